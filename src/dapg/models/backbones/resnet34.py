"""ResNet-34: 512 channels at width 1."""

from typing import ClassVar

from dapg.models.backbones._resnet import BasicBlock, ResNet


class ResNet34(ResNet):
    """He et al. 2016, table 1, the 34-layer column."""

    block: ClassVar = BasicBlock
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
