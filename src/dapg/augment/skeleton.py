"""Skeleton images: key points drawn as a coloured stick figure, the pose input of PN-GAN, a whole batch at once.

The look follows OpenPose: 17 limbs and 18 joints in 18 colours around the colour circle (CMU-Perceptual-Computing-Lab/
openpose, model COCO), limbs darker than joints, on black. Left and right have different colours, which is what tells a
back from a front.
"""

import json
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.device import constant
from dapg.core.files import ASSETS
from dapg.core.key_points import CONFIDENT, KEY_POINT_NAMES, NUMBER_OF

CANONICAL_FILE = ASSETS / "poses" / "canonical.json"

LIMBS = tuple(
    (NUMBER_OF[start], NUMBER_OF[end])
    for start, end in (
        ("neck", "right_shoulder"),
        ("neck", "left_shoulder"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("neck", "right_hip"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("neck", "left_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("neck", "nose"),
        ("nose", "right_eye"),
        ("right_eye", "right_ear"),
        ("nose", "left_eye"),
        ("left_eye", "left_ear"),
    )
)
"""Which points are joined, in OpenPose's order; limb i has colour i, and later limbs lie over earlier ones."""

COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""RGB in steps of 20 degrees of hue, one a joint (OpenPose)."""

LIMB_SHADE = 0.6
"""Limbs are drawn at this part of a joint's brightness (OpenPose)."""
LIMB_RADIUS, JOINT_RADIUS = 1.5 / 128, 2.0 / 128
"""Half the width of a limb, and a joint's radius, as parts of the image's height."""


def draw_skeletons(
    points: Float[Tensor, "B 18 3"], size: tuple[int, int], least: float = CONFIDENT
) -> Float[Tensor, "B 3 H W"]:
    """RGB stick figures in [0, 1] on black, smooth at the edges.

    Args:
        points: x, y as parts of width and height, and confidence (``core/key_points.py``).
        size: (height, width) in pixels.
        least: points below this confidence, and their limbs, are left out.
    """
    height, width = size
    sure = points[..., 2] >= least
    places = torch.nan_to_num(points[..., :2]) * constant((width, height), points.device, points.dtype)
    rows = torch.arange(height, device=points.device, dtype=points.dtype)[None, :, None] + 0.5
    columns = torch.arange(width, device=points.device, dtype=points.dtype)[None, None, :] + 0.5
    colours = constant(COLOURS, points.device, points.dtype) / 255
    canvas = points.new_zeros(len(points), 3, height, width)
    for number, (start, end) in enumerate(LIMBS):
        distance = _distance(columns, rows, places[:, start], places[:, end])
        both = sure[:, start] & sure[:, end]
        _lay(canvas, _coverage(distance, LIMB_RADIUS * height, both), LIMB_SHADE * colours[number])
    for number in range(len(KEY_POINT_NAMES)):
        distance = _distance(columns, rows, places[:, number], places[:, number])
        _lay(canvas, _coverage(distance, JOINT_RADIUS * height, sure[:, number]), colours[number])
    return canvas


def _distance(
    columns: Float[Tensor, "1 1 W"],
    rows: Float[Tensor, "1 H 1"],
    start: Float[Tensor, "B 2"],
    end: Float[Tensor, "B 2"],
) -> Float[Tensor, "B H W"]:
    """From each pixel's centre to the nearest place of a line from ``start`` to ``end``, in pixels."""
    x, y = columns - start[:, 0, None, None], rows - start[:, 1, None, None]
    along = (end - start)[:, :, None, None]
    squared = (along**2).sum(dim=1).clamp(min=1e-12)
    part = ((x * along[:, 0] + y * along[:, 1]) / squared).clamp(0, 1)
    return torch.hypot(x - part * along[:, 0], y - part * along[:, 1])


def _coverage(distance: Float[Tensor, "B H W"], radius: float, drawn: Tensor) -> Float[Tensor, "B 1 H W"]:
    """How much of a pixel a line of that half width covers: 1 inside, 0 outside, a ramp one pixel wide between."""
    return ((max(radius, 0.5) + 0.5 - distance).clamp(0, 1) * drawn[:, None, None])[:, None]


def _lay(canvas: Float[Tensor, "B 3 H W"], coverage: Float[Tensor, "B 1 H W"], colour: Float[Tensor, "3"]) -> None:
    """Paint over the canvas, in place."""
    canvas += coverage * (colour[:, None, None] - canvas)


@cache
def canonical_poses() -> dict[str, Float[Tensor, "18 3"]]:
    """Our own four canonical poses by name: front, left, back, right (``left`` shows the person's left side).

    Mean key points of standing synthetic people (scripts/make_canonical_poses.py), for images twice as high as
    wide. PN-GAN's eight canonical poses and the paper's four are not published.
    """
    stored = json.loads(CANONICAL_FILE.read_text(encoding="utf-8"))
    return {name: torch.tensor(points, dtype=torch.float32) for name, points in stored["poses"].items()}
