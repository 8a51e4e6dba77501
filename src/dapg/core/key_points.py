"""The 18 key points of a person: their order, their units, and which images have enough of them.

A set of key points is (18, 3): x and y as parts of the image's width and height (0 left or top edge, 1 right or
bottom edge; the image is the record's box, upright), and a confidence in [0, 1], 0 for a point that was not found.
Parts, not pixels, so that one table serves every input size.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.core.device import constant

KEY_POINT_NAMES = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
"""Order of the 18 key points: COCO's 17 and the neck, as OpenPose writes them (its model ``COCO``)."""

NUMBER_OF = {name: number for number, name in enumerate(KEY_POINT_NAMES)}

NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP = (
    NUMBER_OF[name] for name in ("neck", "right_shoulder", "left_shoulder", "right_hip", "left_hip")
)

MIRRORED = tuple(
    NUMBER_OF[name.replace("left", "right") if name.startswith("left") else name.replace("right", "left")]
    for name in KEY_POINT_NAMES
)
"""Number of the point that takes each point's place when an image is mirrored."""

CONFIDENT = 0.3
"""Confidence from which a point counts as found; hidden points of exact annotations have 0.5."""
LEAST_POINTS = 8
"""Points an image must have to be usable."""


def usable(points: Float[Tensor, "B 18 3"], least: float = CONFIDENT) -> Bool[Tensor, "B"]:
    """Whether a person's pose can be told: a shoulder, a hip and at least eight points with confidence ``least``."""
    sure = points[..., 2] >= least
    shoulder = sure[:, RIGHT_SHOULDER] | sure[:, LEFT_SHOULDER]
    hip = sure[:, RIGHT_HIP] | sure[:, LEFT_HIP]
    return shoulder & hip & (sure.sum(dim=1) >= LEAST_POINTS)


def mirror(points: Float[Tensor, "*B 18 3"]) -> Float[Tensor, "*B 18 3"]:
    """Key points of the mirrored image: x from the other side, left and right exchanged."""
    swapped = points.index_select(-2, constant(MIRRORED, points.device, torch.int64))
    return torch.cat([1 - swapped[..., :1], swapped[..., 1:]], dim=-1)
