"""Sheets to look at: images with their key points over them."""

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dapg.augment.skeleton import draw_skeletons
from dapg.core.images import to_float, to_pil
from dapg.core.key_points import CONFIDENT

COLUMNS = 10


def overlay(
    images: UInt8[Tensor, "B 3 H W"], points: Float[Tensor, "B 18 3"], least: float = CONFIDENT
) -> UInt8[Tensor, "B 3 H W"]:
    """Darkened images with their skeletons drawn over them."""
    skeletons = draw_skeletons(points, (images.shape[-2], images.shape[-1]), least)
    cover = skeletons.amax(dim=1, keepdim=True).clamp(max=1)
    return ((0.6 * to_float(images) * (1 - cover) + skeletons) * 255).round().clamp(0, 255).to(torch.uint8)


def overlay_sheet(images: UInt8[Tensor, "B 3 H W"], points: Float[Tensor, "B 18 3"]) -> Image.Image:
    """Pairs of rows: the images, and below each the same with its key points; ten columns."""
    drawn = overlay(images, points)
    rows = []
    for start in range(0, len(images), COLUMNS):
        for strip in (images[start : start + COLUMNS], drawn[start : start + COLUMNS]):
            missing = COLUMNS - len(strip) if len(images) > COLUMNS else 0
            filled = torch.cat([strip, strip.new_full((missing, *strip.shape[1:]), 255)])
            rows.append(torch.cat(list(filled), dim=-1))
    return to_pil(torch.cat(rows, dim=-2))
