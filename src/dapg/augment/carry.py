"""Carries a person's body parts from one pose to another by key points: each limb's pixels moved, turned and stretched.

Ten parts (trunk, head, and two of each of four limb segments), each a segment with a width. A pixel of the target lies
at some place along and across the part that it is nearest to, and takes its colour from the same place of that part in
the source: the similarity transforms of body parts of Siarohin et al. 2018 (Deformable GANs) and Balakrishnan et al.
2018, on pixels. What the source hides is not known better by this: a back carried to a front shows the back.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from dapg.core.device import constant
from dapg.core.key_points import CONFIDENT, LEFT_HIP, LEFT_SHOULDER, NECK, NUMBER_OF, RIGHT_HIP, RIGHT_SHOULDER

LIMBS = tuple(
    (NUMBER_OF[f"{side}_{start}"], NUMBER_OF[f"{side}_{end}"], half)
    for start, end, half in (
        ("shoulder", "elbow", 0.17),
        ("elbow", "wrist", 0.14),
        ("hip", "knee", 0.24),
        ("knee", "ankle", 0.19),
    )
    for side in ("left", "right")
)
"""Two joints, and half the width in lengths of the trunk; the pose mask (``pose/mask.py``) has them too."""
TRUNK_MARGIN, TRUNK_LEAST, HEAD = 0.24, 0.35, 0.33
"""In lengths of the trunk: how far it reaches beyond shoulders and hips, half its width seen from the side, and half
the width of a head."""
TURNED = 0.3
"""Shoulders farther apart than this, in lengths of the trunk, show a front or a back rather than a side."""
_FACE = tuple(NUMBER_OF[name] for name in ("nose", "right_ear", "left_ear"))


@dataclass(frozen=True)
class _Parts:
    """P parts of B persons as segments, in pixels."""

    start: Float[Tensor, "B P 2"]
    along: Float[Tensor, "B P 2"]
    """Unit vector to the other end."""
    length: Float[Tensor, "B P"]
    half: Float[Tensor, "B P"]
    """Half the width."""
    reach: Float[Tensor, "B P"]
    """How far it reaches beyond its ends."""
    visible: Bool[Tensor, "B P"]
    facing: Float[Tensor, "B"]
    """Left shoulder right of the right one by so many lengths of the trunk: above 0 a front is seen."""


def carry(
    images: Float[Tensor, "B 3 H W"],
    sources: Float[Tensor, "B 18 3"],
    targets: Float[Tensor, "B 18 3"],
    least: float = CONFIDENT,
) -> Float[Tensor, "B 4 H W"]:
    """The persons' parts where the target pose has them: three channels in the images' range, and a cover in [0, 1].

    Where nothing is carried all four are 0. A part is carried if its joints have confidence ``least`` in both poses,
    whatever side of it they show; but no face goes to a back, and no back of a head to a front.

    Args:
        images: of the persons, in any range.
        sources: their key points, as parts of the image (``core/key_points.py``).
        targets: those of the wanted poses.
        least: confidence from which a joint counts as found.
    """
    size = (images.shape[2], images.shape[3])
    new, old = _parts(targets, size, least), _parts(sources, size, least)
    distance, across, along, cover = _places(new, size)
    carried = new.visible & old.visible
    opposite = (new.facing * old.facing < 0) & (torch.minimum(new.facing.abs(), old.facing.abs()) > TURNED)
    carried[:, -1] &= ~opposite
    cover = cover * carried[:, :, None, None]
    nearest = torch.where(cover > 0, distance, torch.inf).argmin(dim=1, keepdim=True)  # (B, 1, H, W)

    wider, longer = (old.half / new.half), (old.length / new.length.clamp(min=1e-3))
    sideways = wider.clone()
    sideways[:, 0] *= torch.where(new.facing * old.facing < 0, -1, 1)  # from front to back what was left is right
    beyond = along.clamp(max=0) + (along - new.length[:, :, None, None]).clamp(min=0)
    x = across * sideways[:, :, None, None]
    y = (along - beyond) * longer[:, :, None, None] + beyond * wider[:, :, None, None]
    x, y, cover = x.gather(1, nearest)[:, 0], y.gather(1, nearest)[:, 0], cover.gather(1, nearest)
    part = nearest.flatten(2)[:, 0]  # (B, HW)

    def of_part(values: Float[Tensor, "B P 2"]) -> Float[Tensor, "B H W 2"]:
        return values.gather(1, part[..., None].expand(-1, -1, 2)).reshape(-1, *size, 2)

    direction, begin = of_part(old.along), of_part(old.start)
    normal = torch.stack([-direction[..., 1], direction[..., 0]], dim=-1)
    places = begin + y[..., None] * direction + x[..., None] * normal
    grid = 2 * places / constant((size[1], size[0]), places.device, places.dtype) - 1
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    sampled = functional.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
    cover = (cover * inside).to(sampled.dtype)
    return torch.cat([sampled * (cover > 0), cover], dim=1)


def _parts(points: Float[Tensor, "B 18 3"], size: tuple[int, int], least: float) -> _Parts:
    height, width = size
    places = torch.nan_to_num(points[..., :2]) * constant((width, height), points.device, points.dtype)
    sure = points[..., 2] >= least

    def of(values: Tensor, *joints: int) -> Tensor:
        """Of some joints, along the second axis."""
        return values.index_select(1, constant(joints, values.device, torch.int64))

    hips, shoulders = of(places, LEFT_HIP, RIGHT_HIP), of(places, LEFT_SHOULDER, RIGHT_SHOULDER)
    waist, neck = hips.mean(dim=1), places[:, NECK]
    trunk = (waist - neck).norm(dim=1).clamp(min=height / 12)  # seen from above or cut off it may vanish
    spans = torch.stack([(hips[:, 0] - hips[:, 1]).norm(dim=1), (shoulders[:, 0] - shoulders[:, 1]).norm(dim=1)])
    half = torch.maximum(spans.amax(dim=0) / 2 + TRUNK_MARGIN * trunk, TRUNK_LEAST * trunk)
    head = of(places, *_FACE).mean(dim=1)
    firsts, lasts, shares = (list(column) for column in zip(*LIMBS, strict=True))
    trunk_visible = of(sure, NECK, LEFT_HIP, RIGHT_HIP).all(dim=1, keepdim=True)
    head_visible = of(sure, NECK, *_FACE).all(dim=1, keepdim=True)
    start = torch.cat([neck[:, None], of(places, *firsts), neck[:, None]], dim=1)
    along = torch.cat([waist[:, None], of(places, *lasts), head[:, None]], dim=1) - start
    slim = trunk[:, None] * constant((*shares, HEAD), trunk.device, trunk.dtype)
    halves = torch.cat([half[:, None], slim], dim=1)
    reach = torch.cat([TRUNK_MARGIN * trunk[:, None], slim], dim=1)
    visible = torch.cat([trunk_visible, of(sure, *firsts) & of(sure, *lasts), head_visible], dim=1)
    length = along.norm(dim=2)
    facing = (shoulders[:, 0, 0] - shoulders[:, 1, 0]) / trunk
    along = along / length.clamp(min=1e-3)[..., None]
    return _Parts(start, along, length, halves, reach, visible, facing)


def _places(parts: _Parts, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every pixel in every part, (B, P, H, W): distance (1 at the edge), pixels across and along, and cover."""
    rows = torch.arange(size[0], device=parts.start.device, dtype=parts.start.dtype)[:, None] + 0.5
    columns = torch.arange(size[1], device=parts.start.device, dtype=parts.start.dtype)[None, :] + 0.5
    x, y = columns - parts.start[..., 0, None, None], rows - parts.start[..., 1, None, None]
    right, down = parts.along[..., 0, None, None], parts.along[..., 1, None, None]
    along, across = x * right + y * down, y * right - x * down
    length, half = parts.length[..., None, None], parts.half[..., None, None]
    outside = along - along.clamp(min=torch.zeros_like(length), max=length)
    distance = torch.hypot(outside / parts.reach[..., None, None], across / half)
    return distance, across, along, ((1 - distance) * half + 0.5).clamp(0, 1)
