"""ResNet-50: 2048 channels at width 1."""

from typing import ClassVar

from dapg.models.backbones._resnet import Bottleneck, ResNet


class ResNet50(ResNet):
    """He et al. 2016, table 1, the 50-layer column."""

    block: ClassVar = Bottleneck
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
