"""Where a person is, from key points alone: limbs as thick lines (pose mask of Ma et al. 2017, PG2)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.augment.carry import LIMBS
from dapg.core.device import constant
from dapg.core.key_points import CONFIDENT, NUMBER_OF
from dapg.pose.scores import torso_lengths

_PARTS = (
    *LIMBS,
    *((NUMBER_OF[start], NUMBER_OF[end], half) for start, end, half in (
        ("left_shoulder", "left_hip", 0.22), ("right_shoulder", "right_hip", 0.22),
        ("left_shoulder", "right_shoulder", 0.2), ("left_hip", "right_hip", 0.26), ("neck", "left_hip", 0.26),
        ("neck", "right_hip", 0.26), ("neck", "nose", 0.2), ("nose", "nose", 0.33))),
)  # fmt: skip
"""Two joints and half the width of what lies between them, in torso lengths; its area agrees with the true one."""


def person_mask(
    points: Float[Tensor, "B 18 3"], size: tuple[int, int], least: float = CONFIDENT
) -> Float[Tensor, "B 1 H W"]:
    """1 on the body as the key points tell it, 0 elsewhere, a ramp one pixel wide between.

    Clothes that stand off (skirts, open coats) reach beyond it, so it is a weight, not a cut-out.
    """
    height, width = size
    places = torch.nan_to_num(points[..., :2]) * constant((width, height), points.device, points.dtype)
    aspect = points.new_full((len(points),), width / height)
    torso = height * torso_lengths(points, aspect).clamp(min=1 / 12)  # seen from above or cut off it may vanish
    sure = points[..., 2] >= least
    rows = torch.arange(height, device=points.device, dtype=points.dtype)[:, None] + 0.5
    columns = torch.arange(width, device=points.device, dtype=points.dtype)[None, :] + 0.5
    mask = points.new_zeros(len(points), height, width)
    for start, end, radius in _PARTS:
        first = places[:, start, :, None, None]  # (B, 2, 1, 1)
        along = places[:, end, :, None, None] - first
        x, y = columns - first[:, 0], rows - first[:, 1]
        part = ((x * along[:, 0] + y * along[:, 1]) / (along**2).sum(dim=1).clamp(min=1e-12)).clamp(0, 1)
        distance = torch.hypot(x - part * along[:, 0], y - part * along[:, 1])
        cover = ((radius * torso)[:, None, None] + 0.5 - distance).clamp(0, 1)
        mask = torch.maximum(mask, cover * (sure[:, start] & sure[:, end])[:, None, None])
    return mask[:, None]
