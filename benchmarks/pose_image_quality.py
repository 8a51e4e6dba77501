"""How good generated images are, inside the person: likeness of structure, and sharpness."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dapg.core.colour import grey

_SIDE, _DEVIATION = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
"""Window and constants of SSIM (Wang et al. 2004) for values in [0, 1]."""


def ssim_map(first: Float[Tensor, "B 1 H W"], second: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Structural similarity at each pixel of images in [0, 1]; windows at the border count what is inside."""
    first, second = first.double(), second.double()  # variances are differences of nearly equal numbers
    places = torch.arange(_SIDE, dtype=first.dtype, device=first.device) - _SIDE // 2
    line = torch.exp(-(places**2) / (2 * _DEVIATION**2))
    window = (line[:, None] * line[None, :])[None, None]
    inside = functional.conv2d(torch.ones_like(first), window, padding=_SIDE // 2)

    def mean(x: Tensor) -> Tensor:
        return functional.conv2d(x, window, padding=_SIDE // 2) / inside

    mean_1, mean_2 = mean(first), mean(second)
    variance_1, variance_2 = mean(first**2) - mean_1**2, mean(second**2) - mean_2**2
    covariance = mean(first * second) - mean_1 * mean_2
    likeness = (2 * mean_1 * mean_2 + _C1) * (2 * covariance + _C2)
    return (likeness / ((mean_1**2 + mean_2**2 + _C1) * (variance_1 + variance_2 + _C2))).float()


def masked_mean(values: Float[Tensor, "B 1 H W"], mask: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B"]:
    """Mean of each image's values where the mask is, weighted by it."""
    return (values * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def gradient_energy(images: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B"]:
    """Mean squared difference of luminance between neighbours, across and down, inside the mask: sharpness."""
    light = grey(images)
    across, down = (light[..., 1:] - light[..., :-1]) ** 2, (light[:, :, 1:] - light[:, :, :-1]) ** 2
    both_across, both_down = mask[..., 1:] * mask[..., :-1], mask[:, :, 1:] * mask[:, :, :-1]
    return masked_mean(across, both_across) + masked_mean(down, both_down)
