"""Polymorphic masks: holes of several shapes in the input, one shape an image, of the PMWGCN reconstruction.

PMWGCN has neither public code nor public text; shapes and sizes are our choice. "Polymorphic" is read as: the hole may
have any of several forms, so that a network cannot learn the form of the hole instead of what surrounds it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.augment.basic import draw_rectangles
from dapg.core.device import constant, send
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator

SHAPES = ("rectangle", "ellipse", "triangle", "stripe", "blocks")
"""``stripe`` reaches from side to side; ``blocks`` are cells of a grid of 8 x 4, each hidden with the same chance."""

_GRID = (8, 4)


def polymorphic_mask(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    probability: float = 0.5,
    shapes: Sequence[str] = SHAPES,
    area: tuple[float, float] = (0.1, 0.4),
    value: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Float[Tensor, "B 3 H W"]:
    """Hide one hole of a random shape of each image, with the given probability, behind ``value``.

    Args:
        images: images in any scale.
        generator: one stream a sample.
        probability: of a hole.
        shapes: names of ``SHAPES`` to choose from with equal chance.
        area: share of the image that the box around the hole may have (the share of hidden cells of ``blocks``).
        value: red, green and blue in the images' own scale; 0 is the mean colour of normalised images.

    Raises:
        UsageError: no shape, or an unknown one.
    """
    chosen = generator.fork("chosen").bernoulli(probability)
    hole = draw_holes(images.shape[-2], images.shape[-1], generator, shapes, area)
    hole = send(hole, images.device) & send(chosen, images.device)[:, None, None, None]
    return torch.where(hole, constant(value, images.device, images.dtype)[:, None, None], images)


def draw_holes(
    height: int,
    width: int,
    generator: SampleGenerator,
    shapes: Sequence[str] = SHAPES,
    area: tuple[float, float] = (0.1, 0.4),
) -> Bool[Tensor, "B 1 {height} {width}"]:
    """True where an image is hidden; one hole of one shape each, on the generator's device.

    Raises:
        UsageError: no shape, or an unknown one.
    """
    unknown = [shape for shape in shapes if shape not in SHAPES]
    if unknown or not shapes:
        raise UsageError(f"shapes of a mask are some of {', '.join(SHAPES)}, not {list(shapes)}")
    kinds = generator.fork("shape").integers(len(shapes))
    holes = torch.zeros(len(generator), 1, height, width, dtype=torch.bool, device=generator.device)
    for number, shape in enumerate(shapes):
        rows = (kinds == number).nonzero()[:, 0]
        if len(rows) > 0:
            drawn = _holes(shape, height, width, generator.fork(shape).rows(rows), area)
            holes[send(rows, generator.device)] = drawn
    return holes


def _holes(
    shape: str, height: int, width: int, generator: SampleGenerator, area: tuple[float, float]
) -> Bool[Tensor, "B 1 {height} {width}"]:
    """Holes of one shape, inscribed in random boxes."""
    if shape == "blocks":
        return _blocks(height, width, generator, area)
    boxes, _ = draw_rectangles(height, width, generator, area)
    if shape == "stripe":  # as tall as the share of the area says, and as wide as the image
        tall = (generator.uniform(low=area[0], high=area[1]) * height).round().clamp(min=1).long()
        boxes[:, 0] = (generator.uniform() * (height - tall + 1)).long()
        boxes[:, 1], boxes[:, 2], boxes[:, 3] = 0, tall, width
    boxes = send(boxes, generator.device).to(torch.float32)
    top, left, tall_box, wide_box = (boxes[:, i, None, None] for i in range(4))
    row = torch.arange(height, device=generator.device)[:, None] + 0.5
    column = torch.arange(width, device=generator.device) + 0.5
    down = 2 * (row - top) / tall_box - 1  # -1 ... 1 inside the box
    across = 2 * (column - left) / wide_box - 1
    inside = (down.abs() < 1) & (across.abs() < 1)
    if shape == "ellipse":
        inside &= down.square() + across.square() < 1
    elif shape == "triangle":  # apex up or down
        turned = torch.where(send(generator.bernoulli(0.5), generator.device)[:, None, None], down, -down)
        inside &= across.abs() < (turned + 1) / 2
    return inside[:, None]


def _blocks(
    height: int, width: int, generator: SampleGenerator, area: tuple[float, float]
) -> Bool[Tensor, "B 1 {height} {width}"]:
    """Cells of the grid, each hidden with a chance drawn for the image."""
    share = generator.uniform(low=area[0], high=area[1])
    hidden = send(generator.uniform(*_GRID) < share[:, None, None], generator.device)
    rows = torch.arange(height, device=generator.device) * _GRID[0] // height
    columns = torch.arange(width, device=generator.device) * _GRID[1] // width
    return hidden[:, rows][:, :, columns][:, None]
