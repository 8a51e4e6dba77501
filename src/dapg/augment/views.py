"""Views of pre-training: the standard one (crop, colours, blur, erasing), and the four of the noise chain."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment import basic
from dapg.augment.noise_chain import ChainConfig, noise_chain
from dapg.augment.view_size import ViewSize
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.ranges import Factor, Share, Weight
from dapg.core.rng import SampleGenerator


@dataclass(frozen=True)
class ViewConfig(ViewSize):
    """One view. Defaults are LUPerson's ``ori-cj+sre`` (lup_moco/libs): no colour jitter, random erasing."""

    crop_scale: tuple[Share, Share] = (0.2, 1.0)
    """Share of the picture's area a crop may have."""
    crop_ratio: tuple[Factor, Factor] = (3 / 4, 4 / 3)
    """Width : height a crop may have, in pixels of the decoded picture."""
    flip: Share = 0.5
    """Probability of mirroring."""
    jitter: Share = 0.0
    """Probability of colour jitter. LUPerson found that it hurts person re-identification."""
    jitter_strength: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.4, 0.4, 0.1)
    """Brightness, contrast, saturation and hue (MoCo v2)."""
    grey: Share = 0.2
    """Probability of a grey view."""
    blur: Share = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Factor, Factor] = (0.1, 2.0)
    """Deviation of the blur, in pixels of a picture 256 high; scaled with the view."""
    solarise: Share = 0.0
    """Probability of turning bright values into their negative (BYOL's second view)."""
    erasing: Share = 0.5
    """Probability of random erasing; the hole gets the mean colour, which is 0 after normalisation."""
    erasing_area: tuple[Share, Share] = (0.02, 0.6)
    """Share of the view that is erased."""
    erasing_aspect: tuple[Factor, Factor] = (0.3, 3.33)
    """Height : width of the hole."""


def standard_view(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Tensor, "B 3 h w"]:
    """Crop, flip, jitter, grey, blur, solarise, normalise, erase: in the order of the published recipes."""
    with torch.autocast(images.device.type, enabled=False):  # pictures stay in single precision
        return _view(images, config, generator, mean, std)


def _view(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "B 3 h w"]:
    view = _colours(_geometry(images, config, config.size, generator), config, generator)
    if config.blur > 0:
        low, high = (sigma * config.height / 256 for sigma in config.blur_sigma)
        view = basic.gaussian_blur(view, generator.fork("blur"), (low, high), config.blur)
    if config.solarise > 0:
        view = basic.solarise(view, generator.fork("solarise"), config.solarise)
    view = normalise(view, mean, std)
    if config.erasing > 0:
        view = basic.random_erasing(
            view, generator.fork("erase"), config.erasing, config.erasing_area, config.erasing_aspect, (0.0, 0.0, 0.0)
        )
    return view


def chain_views(
    images: UInt8[Tensor, "B 3 H W"], config: ViewConfig, chain: ChainConfig, generator: SampleGenerator
) -> Float[Tensor, "4 B 3 h w"]:
    """The noise chain's x_q, x1, x2 and x_mix of each picture, in [0, 1]; not normalised.

    Crop, flip, jitter and grey of ``config`` at the chain's size; the corruptions, in [0, 1]; then the network's size.
    ``config.blur`` and ``config.erasing`` are not used: the corruptions blur and hide. With ``geometry: per_view``
    x1 and x2 have a crop and a flip of their own, and the colours of the anchor.
    """
    with torch.autocast(images.device.type, enabled=False):
        anchor, first, second = (generator.fork(name) for name in ("anchor", "first", "second"))
        clean = _colours(_geometry(images, config, chain.size, anchor), config, anchor)
        others = None
        if chain.geometry == "per_view":
            others = (
                _colours(_geometry(images, config, chain.size, first), config, anchor),
                _colours(_geometry(images, config, chain.size, second), config, anchor),
            )
        noisy = noise_chain(
            clean, generator.fork("chain"), chain.names, chain.severities, chain.mixture, others, chunk=256
        )
        views = (noisy.query, noisy.first, noisy.second, noisy.mixed)
        return torch.stack([basic.resize(view, config.size) for view in views])


def _geometry(
    images: UInt8[Tensor, "B 3 H W"], config: ViewConfig, size: tuple[int, int], generator: SampleGenerator
) -> Float[Tensor, "B 3 h w"]:
    """Crop and flip."""
    view = basic.random_resized_crop(images, size, generator.fork("crop"), config.crop_scale, config.crop_ratio)
    return basic.horizontal_flip(view, generator.fork("flip"), config.flip)


def _colours(
    view: Float[Tensor, "B 3 h w"], config: ViewConfig, generator: SampleGenerator
) -> Float[Tensor, "B 3 h w"]:
    """Jitter and grey."""
    if config.jitter > 0:
        brightness, contrast, saturation, hue = config.jitter_strength
        view = basic.colour_jitter(view, generator.fork("jitter"), brightness, contrast, saturation, hue, config.jitter)
    return basic.to_grey(view, generator.fork("grey"), config.grey)
