"""Masks of several shapes: their form, their share, and that each picture's is its own."""

import math

import pytest
import torch
from torch import Tensor

from dapg.augment.masks import SHAPES, draw_holes, polymorphic_mask
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator

SIZE = (96, 48)


def streams(count: int) -> SampleGenerator:
    return SampleGenerator(torch.arange(count))


def holes(shape: str, count: int = 300) -> Tensor:
    return draw_holes(*SIZE, streams(count), (shape,))[:, 0]


def boxes(hole: Tensor) -> Tensor:
    """Area of the smallest box around each hole."""
    return hole.any(dim=2).sum(dim=1) * hole.any(dim=1).sum(dim=1)


@pytest.mark.parametrize("shape, filled", [("rectangle", 1.0), ("ellipse", math.pi / 4), ("triangle", 0.5)])
def test_shapes_fill_their_box_as_geometry_says(shape: str, filled: float) -> None:
    found = holes(shape)
    ratio = found.sum(dim=(1, 2)) / boxes(found)
    assert float(ratio.mean()) == pytest.approx(filled, abs=0.02)
    assert float(ratio.std()) < 0.05
    share = boxes(found) / (SIZE[0] * SIZE[1])
    assert 0.08 < float(share.min()) <= float(share.max()) < 0.42


def test_stripes_reach_from_side_to_side() -> None:
    found = holes("stripe")
    rows = found.any(dim=2)
    assert torch.equal(found, rows[:, :, None].expand_as(found))
    assert ((rows[:, 1:] != rows[:, :-1]).sum(dim=1) <= 2).all()
    assert 0.08 < float(rows.float().mean(dim=1).min()) <= float(rows.float().mean(dim=1).max()) < 0.42


def test_triangles_point_up_and_down() -> None:
    found = holes("triangle")
    upper, lower = found[:, : SIZE[0] // 2].sum(), found[:, SIZE[0] // 2 :].sum()
    assert 0.8 < float(upper / lower) < 1.25
    widths = found.sum(dim=2)
    first = widths.gather(1, (widths > 0).int().argmax(dim=1, keepdim=True))[:, 0]
    up = first < widths.amax(dim=1) / 2
    assert 0.4 < float(up.float().mean()) < 0.6


def test_blocks_hide_whole_cells() -> None:
    found = holes("blocks")
    cells = found.unflatten(1, (8, 12)).unflatten(3, (4, 12))  # (B, 8, 12, 4, 12)
    share = cells.float().mean(dim=(2, 4))
    assert ((share == 0) | (share == 1)).all()
    assert float(share.mean()) == pytest.approx(0.25, abs=0.02)


def test_every_shape_occurs_and_the_rest_of_the_picture_stays() -> None:
    images = torch.rand(400, 3, *SIZE, generator=torch.Generator().manual_seed(0)) + 1
    masked = polymorphic_mask(images, streams(400), value=(-1.0, -2.0, -3.0))
    hidden = masked[:, 0] == -1
    assert torch.equal(hidden, masked[:, 2] == -3)
    torch.testing.assert_close(torch.where(hidden[:, None], 0.0, masked), torch.where(hidden[:, None], 0.0, images))
    assert 0.42 < float(hidden.flatten(1).any(dim=1).float().mean()) < 0.58
    kinds = streams(400).fork("shape").integers(len(SHAPES))
    assert len(kinds.unique()) == len(SHAPES)
    assert torch.equal(polymorphic_mask(images, streams(400), probability=0.0), images)


def test_rows_do_not_depend_on_the_batch() -> None:
    together = draw_holes(*SIZE, streams(20))
    alone = torch.cat([draw_holes(*SIZE, SampleGenerator(torch.tensor([i]))) for i in range(20)])
    assert torch.equal(together, alone)


def test_mistakes_are_named() -> None:
    for shapes in ((), ("rectangle", "star")):
        with pytest.raises(UsageError, match="shapes of a mask"):
            draw_holes(*SIZE, streams(2), shapes)
