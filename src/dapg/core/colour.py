"""Shared: grey, HSV value, saturation and hue of float images, without a detour where none is needed."""

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.device import constant

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma of R, G, B: what Pillow's ``L`` and OpenCV's ``RGB2GRAY`` use."""


def grey(images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 1 H W"]:
    """Luma of RGB images, one channel, same range."""
    red, green, blue = images.unbind(dim=-3)
    luma = red * GREY_WEIGHTS[0]
    luma = luma.add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])
    return luma.unsqueeze(-3)


def rgb_to_hsv(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Hue, saturation and value in [0, 1]; hue and saturation of grey pixels are 0 (as in scikit-image)."""
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    spread = value - images.amin(dim=1)
    divisor = torch.where(spread > 0, spread, torch.ones_like(spread))
    saturation = spread / torch.where(value > 0, value, torch.ones_like(value))
    hue = torch.where(
        red == value,
        (green - blue) / divisor,
        torch.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue / 6
    hue = torch.where(hue < 0, hue + 1, hue)  # a remainder, to the last bit, at a tenth of its time
    hue = torch.where(spread > 0, hue, torch.zeros_like(hue))
    return torch.stack([hue, saturation, value], dim=1)


_SECTOR = ((0, 1, 2, 2, 3, 0, 0), (3, 0, 0, 1, 2, 2, 3), (2, 2, 3, 0, 0, 1, 2))
"""For red, green, blue: which of v, q, p, t a channel is in each sixth of the colour circle (the seventh for h = 1)."""


def hsv_to_rgb(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The inverse of ``rgb_to_hsv``, step by step as scikit-image does it (Smith 1978)."""
    hue, saturation, value = images.unbind(dim=1)
    sector = (hue * 6).floor()
    within = hue * 6 - sector
    parts = torch.stack(
        [
            value,
            value * (1 - within * saturation),
            value * (1 - saturation),
            value * (1 - (1 - within) * saturation),
        ],
        dim=1,
    )
    table = constant(_SECTOR, images.device, torch.int64)
    return parts.gather(1, table[:, sector.long()].transpose(0, 1))


def through_hls(levels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Whole grey levels 0 ... 255 to 8-bit HLS and back, with OpenCV's rounding: hue in steps of 2 degrees.

    Strong colours come back up to a few levels away.
    """
    unit = levels * (1 / 255)  # and not a division: it decides to which side halves of a level are rounded
    red, green, blue = unit.unbind(dim=1)
    largest, smallest = unit.amax(dim=1), unit.amin(dim=1)
    total, spread = largest + smallest, largest - smallest
    coloured = spread > 0
    divisor = torch.where(coloured, spread, torch.ones_like(spread))
    hue = torch.where(
        red == largest,
        (green - blue) / divisor,
        torch.where(green == largest, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = torch.where(hue < 0, hue + 6, hue)  # a remainder, to the last bit, at a tenth of its time
    hue = torch.where(coloured, hue, torch.zeros_like(hue)).mul(30).round()  # 0 ... 180
    saturation = spread / torch.where(coloured, torch.where(total < 1, total, 2 - total), divisor)
    saturation, lightness = saturation.mul(255).round().div(255), total.mul(0.5).mul(255).round().div(255)
    # Channel n of (red, green, blue) is L - a max(-1, min(k - 3, 9 - k, 1)) with k = (n + H / 30°) mod 12.
    amplitude = saturation * torch.minimum(lightness, 1 - lightness)
    place = constant((0.0, 8.0, 4.0), levels.device)[None, :, None, None]
    k = hue[:, None] / 15 + place
    k = torch.where(k >= 12, k - 12, k)
    channels = lightness[:, None] - amplitude[:, None] * torch.minimum(k - 3, 9 - k).clamp(-1, 1)
    return channels.mul(255).round()
