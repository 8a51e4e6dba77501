"""Shared: grey, HSV value, saturation and hue of float pictures, without a detour where none is needed."""

import torch
from jaxtyping import Float
from torch import Tensor

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma of R, G, B: what Pillow's ``L`` and OpenCV's ``RGB2GRAY`` use."""


def grey(images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 1 H W"]:
    """Luma of RGB pictures, one channel, same range."""
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
    hue = torch.where(spread > 0, (hue / 6) % 1, torch.zeros_like(hue))
    return torch.stack([hue, saturation, value], dim=1)


def hsv_to_rgb(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The inverse of ``rgb_to_hsv``: v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6, n = 5, 3, 1."""
    hue, saturation, value = images.unbind(dim=1)
    chroma = value * saturation
    channels = []
    for offset in (5, 3, 1):
        position = (hue * 6 + offset) % 6
        channels.append(value - chroma * torch.minimum(position, 4 - position).clamp(0, 1))
    return torch.stack(channels, dim=1)
