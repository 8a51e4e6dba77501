"""Soft erasing and self mixing of CIL (Chen et al. 2021), with its accident as a switch.

Source: MinghuiChen43/CIL-ReID. The result leaves [0, 1]: theirs then *wraps* modulo 256 when it becomes an image,
which is part of the published recipe. Ours clips unless ``legacy_wrap`` is set.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.augment.basic import draw_rectangles, rectangle_mask
from dapg.core.device import send
from dapg.core.rng import SampleGenerator


def soft_erasing(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Float[Tensor, "B 3 H W"]:
    """A random rectangle becomes (1 - m) patch + m noise, noise ~ N(0, 1) per element, m ~ Beta(0.5, 1).

    The result leaves [0, 1]; see ``to_image``.
    """
    height, width = images.shape[-2:]
    chosen = generator.bernoulli(probability)
    rectangles, fitted = draw_rectangles(height, width, generator, area, aspect)
    share = _beta_half_one(generator)
    noise = send(generator.normal_field(3, height, width), images.device).to(images.dtype)
    return torch.lerp(images, noise, _amount(rectangles, share * (chosen & fitted), images))


def self_mixing(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Float[Tensor, "B 3 H W"]:
    """A random rectangle becomes (1 - m) patch + m (another such patch of the image), m ~ Beta(0.5, 1)."""
    height, width = images.shape[-2:]
    chosen = generator.bernoulli(probability)
    rectangles, fitted = draw_rectangles(height, width, generator, area, aspect)
    share = _beta_half_one(generator)
    place = generator.uniform(2)
    free = torch.tensor([height, width]) - rectangles[:, 2:] + 1
    shift = (place * free).long() - rectangles[:, :2]
    other = _shifted(images, send(shift, images.device))
    return torch.lerp(images, other, _amount(rectangles, share * (chosen & fitted), images))


def _amount(
    rectangles: Int[Tensor, "B 4"], share: Float[Tensor, "B"], images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B 1 H W"]:
    """``share`` inside the rectangles, 0 outside, on the images' device."""
    mask = rectangle_mask(send(rectangles, images.device), images.shape[-2], images.shape[-1])
    return mask * send(share, images.device)[:, None, None, None]


def cil_erasing(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, legacy_wrap: bool = False
) -> Float[Tensor, "B 3 H W"]:
    """CIL's two steps in order, then back to an image in [0, 1]."""
    erased = soft_erasing(images, generator.fork("soft erasing"))
    return to_image(self_mixing(erased, generator.fork("self mixing")), legacy_wrap)


def to_image(images: Float[Tensor, "B 3 H W"], legacy_wrap: bool = False) -> Float[Tensor, "B 3 H W"]:
    """Whole grey levels in [0, 1], truncated; values outside are clipped, or wrapped modulo 256 as in CIL."""
    levels = images.mul(255).add_(1e-3)
    if legacy_wrap:
        return levels.trunc().to(torch.int64).remainder(256).to(images.dtype) / 255
    return levels.floor().clamp_(0, 255) / 255


def _beta_half_one(generator: SampleGenerator) -> Float[Tensor, "B"]:
    """Beta(0.5, 1): its distribution function is the square root, so a uniform number squared."""
    return generator.uniform() ** 2


def _shifted(images: Float[Tensor, "B 3 H W"], shift: Int[Tensor, "B 2"]) -> Float[Tensor, "B 3 H W"]:
    """Each image read ``shift`` = (rows, columns) away, wrapping round; used inside rectangles only."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + shift[:, 0, None]) % height
    columns = (torch.arange(width, device=images.device) + shift[:, 1, None]) % width
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(3, device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
