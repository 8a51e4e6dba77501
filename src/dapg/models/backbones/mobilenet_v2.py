"""MobileNetV2 (Sandler et al. 2018): 1280 channels, small enough for a laptop; ImageNet weights are shipped."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.models.backbones.base import Pyramid
from dapg.models.blocks.convolution import Convolution
from dapg.models.blocks.initialise import initialise


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never more than 10 % below (the published rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU6, under torchvision's names 0, 1 and 2."""
    return nn.Sequential(
        Convolution(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without activation; add the input where it fits."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_convolution(in_channels, hidden, 1)]
        layers.append(_convolution(hidden, hidden, 3, stride, groups=hidden))
        layers.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        layers.append(nn.BatchNorm2d(out_channels))
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """One inverted residual step."""
        out: Tensor = self.conv(x)
        return x + out if self.adds_input else out


class MobileNetV2(Pyramid):
    """Feature part of MobileNetV2 with torchvision's names ``features.N...``.

    Below a ``width`` of 1 the last layer keeps its 1280 channels, as published.
    """

    settings: ClassVar[tuple[tuple[int, int, int, int], ...]] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """Table 2 of the paper: expansion, channels, repeats, stride of the first repeat."""
    ends: ClassVar[Mapping[str, int]] = {"layer1": 4, "layer2": 7, "layer3": 14, "layer4": 19}
    """Index of ``features`` at which a stage ends: before the resolution falls again, as in a ResNet."""

    def __init__(self, config: Pyramid.Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(config, generator)
        channels = _round_channels(32 * config.width)
        widened = _round_channels(1280 * max(1.0, config.width))
        end = self.ends[config.built()[-1]]
        with torch.device("meta"):
            layers: list[nn.Module] = [_convolution(3, channels, 3, stride=2)]
            dims = [channels]
            for expansion, published, repeats, published_stride in self.settings:
                stride = config.last_stride if published == 160 else published_stride
                out_channels = _round_channels(published * config.width)
                for repeat in range(repeats):
                    layers.append(InvertedResidual(channels, out_channels, 1 if repeat else stride, expansion))
                    channels = out_channels
                    dims.append(channels)
            layers.append(_convolution(channels, widened, 1))
            dims.append(widened)
            self.features = nn.Sequential(*layers[:end])
        self._stage_dims = {name: dims[self.ends[name] - 1] for name in config.built()}
        self.feature_dim = dims[end - 1]
        initialise(self, generator)
        self._fix()

    def stem_names(self) -> tuple[str, ...]:
        """The first convolution with its batch norm."""
        return ("features.0",)

    def stages(self) -> Mapping[str, Sequence[nn.Module]]:
        """Blocks of the four stages; the widening 1x1 convolution is the last block of ``layer4``."""
        layers = list(self.features)
        bounds = pairwise([1, *self.ends.values()])
        parts = {name: layers[start:end] for name, (start, end) in zip(self.ends, bounds, strict=True)}
        return {name: parts[name] for name in self.config.built()}

    def stage_dims(self) -> Mapping[str, int]:
        """Channels that leave each stage."""
        return self._stage_dims
