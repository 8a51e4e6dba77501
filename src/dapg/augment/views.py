"""The standard view of contrastive pre-training: a random crop with colours, blur and erasing, normalised."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment import basic
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.rng import SampleGenerator


@dataclass(frozen=True)
class ViewConfig:
    """One view. Defaults are LUPerson's ``ori-cj+sre`` (lup_moco/libs): no colour jitter, random erasing."""

    height: int = 256
    """Rows the network sees."""
    width: int = 128
    """Columns the network sees."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the picture's area a crop may have."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width : height a crop may have, in pixels of the decoded picture."""
    flip: float = 0.5
    """Probability of mirroring."""
    jitter: float = 0.0
    """Probability of colour jitter. LUPerson found that it hurts person re-identification."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Brightness, contrast, saturation and hue (MoCo v2)."""
    grey: float = 0.2
    """Probability of a grey view."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Deviation of the blur, in pixels of a picture 256 high; scaled with the view."""
    erasing: float = 0.5
    """Probability of random erasing; the hole gets the mean colour, which is 0 after normalisation."""
    erasing_area: tuple[float, float] = (0.02, 0.6)
    """Share of the view that is erased."""
    erasing_aspect: tuple[float, float] = (0.3, 3.33)
    """Height : width of the hole."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def standard_view(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Tensor, "B 3 h w"]:
    """Crop, flip, jitter, grey, blur, normalise, erase: in the order of the published recipes."""
    with torch.autocast(images.device.type, enabled=False):  # pictures stay in single precision
        return _view(images, config, generator, mean, std)


def _view(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "B 3 h w"]:
    view = basic.random_resized_crop(images, config.size, generator.fork("crop"), config.crop_scale, config.crop_ratio)
    view = basic.horizontal_flip(view, generator.fork("flip"), config.flip)
    if config.jitter > 0:
        brightness, contrast, saturation, hue = config.jitter_strength
        view = basic.colour_jitter(view, generator.fork("jitter"), brightness, contrast, saturation, hue, config.jitter)
    view = basic.to_grey(view, generator.fork("grey"), config.grey)
    if config.blur > 0:
        low, high = (sigma * config.height / 256 for sigma in config.blur_sigma)
        view = basic.gaussian_blur(view, generator.fork("blur"), (low, high), config.blur)
    view = normalise(view, mean, std)
    if config.erasing > 0:
        view = basic.random_erasing(
            view, generator.fork("erase"), config.erasing, config.erasing_area, config.erasing_aspect, (0.0, 0.0, 0.0)
        )
    return view
