"""The standard view of fine-tuning (AGW): pad, crop, mirror, normalise, and where asked erase."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment import basic
from dapg.augment.channel import channel_mix
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.ranges import Offset, Pixels, PixelsOrZero, Share
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self, ViewSize
from dapg.core.settings import unset


@dataclass(frozen=True)
class PaddedViewConfig(ViewSize):
    """One view. Defaults are AGW's (train.py): 288 x 144, padding 10, no erasing, no jitter."""

    height: Pixels = 288
    """Rows the network sees."""
    width: Pixels = 144
    """Columns the network sees."""
    padding: PixelsOrZero = 10
    """Black pixels added on each side before a crop of the old size."""
    flip: Share = 0.5
    """Probability of mirroring."""
    mixing: Share | None = unset(None)
    """Probability of a grey image whose channels are mixed with random weights: takes visible images nearer to
    infrared ones, which stay as they are. Never when not given."""
    erasing: Share = 0.0
    """Probability of random erasing after normalising (CAJ: 0.5)."""
    erasing_area: tuple[Share, Share] = (0.02, 0.4)
    """Share of the view that is erased."""
    erasing_value: tuple[Offset, Offset, Offset] = (0.0, 0.0, 0.0)
    """What fills the hole, in the scale of normalised images: 0 is the mean colour."""

    def at(self, scale: Scale) -> Self:
        """The size of the scale's networks, and its channel mixing."""
        return replace(super().at(scale), mixing=scale.mixing)

    def resized(self, size: tuple[int, int]) -> Self:
        """The same at another (height, width); the padding shrinks with it."""
        return replace(super().resized(size), padding=round(self.padding * size[0] / self.height))


def padded_image(
    images: UInt8[Tensor, "B 3 H W"], config: PaddedViewConfig, generator: SampleGenerator
) -> Float[Tensor, "B 3 h w"]:
    """Resize where the loader has not, pad, crop, mirror: a float image in [0, 1], for further augmentation."""
    image = basic.random_padded_crop(basic.resize(images, config.size), generator.fork("crop"), config.padding)
    image = basic.horizontal_flip(image, generator.fork("flip"), config.flip)
    return image if config.mixing is None else channel_mix(image, generator.fork("mixing"), config.mixing)


def padded_view(
    images: UInt8[Tensor, "B 3 H W"],
    config: PaddedViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Tensor, "B 3 h w"]:
    """What the network sees of each image in training, in single precision."""
    with torch.autocast(images.device.type, enabled=False):
        return standardise(padded_image(images, config, generator), config, generator, mean, std)


def standardise(
    image: Float[Tensor, "B 3 h w"],
    config: PaddedViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Tensor, "B 3 h w"]:
    """The last part of a view: normalise, and where asked erase."""
    view = normalise(image, mean, std)
    if config.erasing <= 0:
        return view
    aspect = (0.3, 1 / 0.3)
    return basic.random_erasing(
        view, generator.fork("erase"), config.erasing, config.erasing_area, aspect, config.erasing_value
    )
