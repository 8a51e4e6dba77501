"""Shared by networks: a crop of any shape set into the middle of a network's input, and points brought back."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from dapg.core.images import to_float


def frame(
    images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"], canvas: tuple[int, int], padding: float
) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 2"]]:
    """Images in [0, 1] in the middle of the canvas, in their true shape, their borders repeated outwards.

    Args:
        images: images at any one size.
        sizes: (height, width) that gives each image's true shape.
        canvas: (height, width) of the result.
        padding: how many times the image the canvas is, on the side that is tighter.

    Returns:
        The framed images, and the part (across, down) of the canvas that each image covers.
    """
    height, width = canvas
    shape = sizes.to(images.device, torch.float32)
    scale = torch.minimum(height / shape[:, 0], width / shape[:, 1]) / padding  # canvas pixels per image pixel
    covered = torch.stack([shape[:, 1] * scale / width, shape[:, 0] * scale / height], dim=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = 1 / covered[:, 0], 1 / covered[:, 1]
    grid = functional.affine_grid(theta, [len(images), 3, height, width], align_corners=False)
    return functional.grid_sample(to_float(images), grid, padding_mode="border", align_corners=False), covered


def unframe(points: Float[Tensor, "B P 2"], covered: Float[Tensor, "B 2"]) -> Float[Tensor, "B P 2"]:
    """Points as parts of the canvas to parts of the image."""
    return (points - 0.5) / covered[:, None] + 0.5
