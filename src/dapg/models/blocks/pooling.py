"""From a feature map to one vector an image: average, generalised mean (GeM, as AGW has it), stripes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.models.blocks.initialise import initialise


def average_pool(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Mean over all positions."""
    return features.mean(dim=(2, 3))


def gem_pool(
    features: Float[Tensor, "B C h w"], power: float | Float[Tensor, ""] = 3.0, epsilon: float = 1e-12
) -> Float[Tensor, "B C"]:
    """(mean over positions of x^power + epsilon)^(1/power); 3 is the fixed power of the published AGW code.

    A negative value counts as 0: a ResNet's map comes from a ReLU and has none, but that of a transformer or of
    MobileNetV2's ``layer3`` is signed. Half-precision input is pooled in float32, where its cube does not overflow.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=0)
    return (wide.pow(power).mean(dim=(2, 3)) + epsilon).pow(1 / power)


class Stripes(nn.Module):
    """Means of horizontal stripes after a 1x1 convolution to 64 channels.

    Stripes as in PCB (Sun et al. 2018), narrow and without losses of their own.
    """

    CHANNELS = 64

    def __init__(self, channels: int, count: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):
            self.reduce = nn.Conv2d(channels, self.CHANNELS, 1)
        initialise(self, generator)
        self.count, self.feature_dim = count, count * self.CHANNELS

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D"]:
        """The stripes' means from the top, channel by channel."""
        return functional.adaptive_avg_pool2d(self.reduce(features), (self.count, 1)).flatten(1)
