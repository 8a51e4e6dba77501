"""Shared by the ResNets (He et al. 2016): blocks and assembly, with torchvision's names and no classifier."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.models.backbones.base import Pyramid
from dapg.models.blocks.convolution import Convolution
from dapg.models.blocks.initialise import initialise


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return Convolution(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projection where the shape changes; None where the input is added as it is."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18 and -34)."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """Residual step; the stride is in the first convolution."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet-50)."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _convolution(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """Residual step; the stride is in the 3x3 convolution, as in torchvision (the paper has it in the first)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


class ResNet(Pyramid):
    """A ResNet without pooling and classifier; a subclass names its block and how many of them a stage has."""

    block: ClassVar[type[BasicBlock] | type[Bottleneck]]
    depths: ClassVar[tuple[int, int, int, int]]

    def __init__(self, config: Pyramid.Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(config, generator)
        base = channels = max(8, round(64 * config.width / 8) * 8)
        strides = (1, 2, 2, config.last_stride)
        self._stage_dims: dict[str, int] = {}
        with torch.device("meta"):
            self.conv1 = nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(base)
            for index, name in enumerate(config.built()):
                setattr(self, name, self._stage(channels, base * 2**index, self.depths[index], strides[index]))
                channels = self._stage_dims[name] = base * 2**index * self.block.expansion
        self.feature_dim = channels
        initialise(self, generator)
        self._fix()

    def _stage(self, in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
        first = self.block(in_channels, channels, stride)
        rest = [self.block(channels * self.block.expansion, channels, 1) for _ in range(depth - 1)]
        return nn.Sequential(first, *rest)

    def stem_names(self) -> tuple[str, ...]:
        """AGW's split point: convolution and batch norm before the max pooling."""
        return ("conv1", "bn1")

    def apply_stem(self, modules: Sequence[nn.Module], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """Convolution, batch norm, ReLU and max pooling: stride 4."""
        convolution, norm = modules
        return functional.max_pool2d(functional.relu(norm(convolution(images)), inplace=True), 3, stride=2, padding=1)

    def stages(self) -> Mapping[str, Sequence[nn.Module]]:
        """Residual blocks of the four stages."""
        return {name: list(self.get_submodule(name).children()) for name in self.config.built()}

    def stage_dims(self) -> Mapping[str, int]:
        """Channels that leave each stage."""
        return self._stage_dims
