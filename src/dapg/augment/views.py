"""Views of pre-training: the standard one (crop, colours, blur, erasing), and the four of the noise chain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from dapg.augment import basic
from dapg.augment.channel import channel_mix
from dapg.augment.noise_chain import ChainConfig, corrupt_repeatedly, draw_mixture, mix, noise_chain
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.ranges import Factor, Share, Weight
from dapg.core.rng import SampleGenerator
from dapg.core.scales import ViewSize
from dapg.core.settings import unset


@dataclass(frozen=True)
class ViewConfig(ViewSize):
    """One view. Defaults are LUPerson's ``ori-cj+sre`` (lup_moco/libs): no colour jitter, random erasing."""

    crop_scale: tuple[Share, Share] = (0.2, 1.0)
    """Share of the image's area a crop may have."""
    crop_ratio: tuple[Factor, Factor] = (3 / 4, 4 / 3)
    """Width : height a crop may have, in pixels of the decoded image."""
    flip: Share = 0.5
    """Probability of mirroring."""
    jitter: Share = 0.0
    """Probability of colour jitter. LUPerson found that it hurts person re-identification."""
    jitter_strength: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.4, 0.4, 0.1)
    """Brightness, contrast, saturation and hue (MoCo v2)."""
    grey: Share = 0.2
    """Probability of a grey view."""
    mixing: Share | None = unset(None)
    """Probability that a view is a grey image of channels mixed with random weights, apart for each view of an image
    and after corruptions, if any: what fine-tuning across modalities does (``PaddedViewConfig``). Never when not given.
    """
    blur: Share = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Factor, Factor] = (0.1, 2.0)
    """Deviation of the blur, in pixels of an image 256 high; scaled with the view."""
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
    with torch.autocast(images.device.type, enabled=False):  # images stay in single precision
        return _view(images, config, generator, mean, std)


def _view(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    generator: SampleGenerator,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "B 3 h w"]:
    view = _mixed(_colours(_geometry(images, config, config.size, generator), config, generator), config, generator)
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
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    chain: ChainConfig,
    generator: SampleGenerator,
    kept: Callable[[Int[Tensor, "B"]], UInt8[Tensor, "B 3 3 H W"]] | None = None,
) -> Float[Tensor, "4 B 3 h w"]:
    """The noise chain's x_q, x1, x2 and x_mix of each image, in [0, 1]; not normalised.

    Crop, flip, jitter and grey of ``config`` at the chain's size; the corruptions, in [0, 1]; then the network's size.
    ``config.blur`` and ``config.erasing`` are not used: the corruptions blur and hide. With ``geometry: per_view``
    x1 and x2 have a crop and a flip of their own, and the colours of the anchor; with ``whole``, too, but the whole
    image is corrupted before. ``chain.anchor`` ``clean`` has a in x_q's place. ``kept`` gives the links of whole images
    by the number that is drawn for each (``chain_bank.py``).
    """
    with torch.autocast(images.device.type, enabled=False):
        if chain.geometry == "whole":
            return _cut_views(images, config, chain, generator, kept)
        anchor = generator.fork("anchor")

        def crop(name: str) -> Float[Tensor, "B 3 h w"]:
            return _colours(_geometry(images, config, chain.size, generator.fork(name)), config, anchor)

        clean, others = crop("anchor"), None
        if chain.geometry == "per_view":
            first, second = crop("first"), crop("second")
            mixed = {"anchor": clean, "second": second}.get(chain.mixed_crop)
            others = first, second, crop("mixed") if mixed is None else mixed
        noisy = noise_chain(
            clean, generator.fork("chain"), chain.names, chain.severities, chain.mixture, others, chunk=256
        )
        query = clean if chain.anchor == "clean" else noisy.query
        return _finished((query, noisy.first, noisy.second, noisy.mixed), config, generator)


def _cut_views(
    images: UInt8[Tensor, "B 3 H W"],
    config: ViewConfig,
    chain: ChainConfig,
    generator: SampleGenerator,
    kept: Callable[[Int[Tensor, "B"]], UInt8[Tensor, "B 3 3 H W"]] | None,
) -> Float[Tensor, "4 B 3 h w"]:
    """``geometry: whole``: x_q, x1, x2 and x_mix of the whole image, each then cropped, flipped and coloured."""
    whole, stream = basic.resize(images, chain.size), generator.fork("chain")
    if kept is None:
        noisy = noise_chain(whole, stream, chain.names, chain.severities, chain.mixture, chunk=256)
        links, mixed = [noisy.query, noisy.first, noisy.second], noisy.mixed
    else:
        drawn = kept(generator.fork("bank").integers(chain.bank)).to(torch.float32) / 255
        links, mixed = list(drawn.unbind(1)), mix(whole, drawn, *draw_mixture(stream, chain.mixture, whole.device))
    views = [whole if chain.anchor == "clean" else links[0], *links[1:], mixed]
    crops = ["anchor", "first", "second", "mixed" if chain.mixed_crop == "own" else chain.mixed_crop]
    colours = generator.fork("anchor")
    return torch.stack(
        [
            _mixed(
                _colours(_geometry(view, config, config.size, generator.fork(crop)), config, colours),
                config,
                generator.fork(f"view {number}"),
            )
            for number, (view, crop) in enumerate(zip(views, crops, strict=True))
        ]
    )


def clean_and_corrupted_views(
    images: UInt8[Tensor, "B 3 H W"], config: ViewConfig, chain: ChainConfig, generator: SampleGenerator
) -> Float[Tensor, "2 B 3 h w"]:
    """A clean view of each image and another, corrupted zero to three times by ``chain``'s types and severities.

    Each has a crop, a flip and colours of its own; both are in [0, 1] and not normalised, as ``chain_views``.
    """
    with torch.autocast(images.device.type, enabled=False):
        clean, other = (
            _colours(_geometry(images, config, chain.size, stream), config, stream)
            for stream in (generator.fork("anchor"), generator.fork("other"))
        )
        corrupted = corrupt_repeatedly(other, generator.fork("chain"), chain.names, chain.severities)
        return _finished((clean, corrupted), config, generator)


def _finished(
    views: Sequence[Float[Tensor, "B 3 H W"]], config: ViewConfig, generator: SampleGenerator
) -> Float[Tensor, "V B 3 h w"]:
    """Views at the network's size, each with its own mixture of channels."""
    resized = (basic.resize(view, config.size) for view in views)
    return torch.stack([_mixed(view, config, generator.fork(f"view {n}")) for n, view in enumerate(resized)])


def _mixed(view: Float[Tensor, "B 3 h w"], config: ViewConfig, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
    return view if config.mixing is None else channel_mix(view, generator.fork("mixing"), config.mixing)


def _geometry(
    images: Shaped[Tensor, "B 3 H W"], config: ViewConfig, size: tuple[int, int], generator: SampleGenerator
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
