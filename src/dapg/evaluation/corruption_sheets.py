"""Sheets to look at: every corruption at every severity of one image, and the noise chain like the paper's Fig. 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from dapg.augment.noise_chain import noise_chain
from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path
from dapg.core.images import decode, to_pil
from dapg.core.ranges import Count, Pixels, Seed, Severity
from dapg.core.rng import SampleGenerator
from dapg.core.seeds import derive_seed
from dapg.corruptions import library
from dapg.evaluation.corrupted_sets import Assignment, corrupt_image

_MARGIN = 4
_LABEL = 12


@dataclass(frozen=True)
class SheetSettings:
    """Every corruption at every severity of one image."""

    out: str = "sheet.png"
    """The file; its suffix says the format."""
    types: tuple[str, ...] = ("all",)
    """Corruptions, families or groups: the rows."""
    height: Pixels = 256
    """Rows of pixels that the image is resized to before."""
    width: Pixels = 128
    """Columns likewise."""
    seed: Seed = 0
    """Of the noise."""


@dataclass(frozen=True)
class ChainSheetSettings:
    """Draws of the noise chain of stage 1, like Fig. 3 of the paper."""

    out: str = "chain.png"
    """The file; its suffix says the format."""
    rows: Count = 4
    """Draws."""
    severities: tuple[Severity, Severity] = (1, 3)
    """Smallest and largest severity."""
    height: Pixels = 256
    """Rows of pixels that the image is resized to before."""
    width: Pixels = 128
    """Columns likewise."""
    seed: Seed = 0
    """Of the draws."""


def write_sheet(picture: Path, settings: SheetSettings | ChainSheetSettings) -> None:
    """Draw the sheet of an image file.

    Raises:
        DataError: the image cannot be read.
        UsageError: a size below 32 pixels, or an output file that is no kind of image.
    """
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise DataError(f"{picture}: {error.strerror or error}") from error
    out = Path(settings.out)
    form = Image.registered_extensions().get(out.suffix.lower())
    if form is None:
        raise UsageError(f"{out} names no kind of image; give a file such as sheet.png or sheet.jpg")
    image = decode(data, (settings.height, settings.width), None, str(picture))
    if isinstance(settings, SheetSettings):
        sheet = severity_sheet(image, library.expand(settings.types), settings.seed)
    else:
        sheet = chain_sheet(image, settings.rows, settings.severities, settings.seed)
    with atomic_path(out) as temporary:
        sheet.save(temporary, form)


def severity_sheet(
    image: UInt8[Tensor, "3 H W"], names: Sequence[str] = library.VISIBLE_20, seed: int = 0
) -> Image.Image:
    """A row a corruption: the clean image, then severities 1 to 5."""
    rows = []
    for name in names:
        damaged = [
            corrupt_image(image, Assignment(name, severity, derive_seed("sheet", name, severity, seed)))
            for severity in library.SEVERITIES
        ]
        rows.append((name, [image, *damaged]))
    return _sheet(rows, ["clean", *(f"severity {severity}" for severity in library.SEVERITIES)])


def chain_sheet(
    image: UInt8[Tensor, "3 H W"], rows: int = 4, severities: tuple[int, int] = (1, 3), seed: int = 0
) -> Image.Image:
    """A row a draw of the noise chain: anchor, one, two and three corruptions, and their mixture."""
    anchor = (image.to(torch.float32) / 255).expand(rows, -1, -1, -1).contiguous()
    seeds = torch.tensor([derive_seed("chain sheet", row, seed) for row in range(rows)])
    chain = noise_chain(anchor, SampleGenerator(seeds), severities=severities)
    lines = []
    for row in range(rows):
        views = [anchor[row], chain.query[row], chain.first[row], chain.second[row], chain.mixed[row]]
        levels = chain.severities[row].tolist()
        label = ", ".join(f"{name} {level}" for name, level in zip(chain.names[row], levels, strict=True))
        lines.append((label, [view.mul(255).round().to(torch.uint8) for view in views]))
    return _sheet(lines, ["anchor", "x_q", "x1", "x2", "x_mix"])


def _sheet(rows: Sequence[tuple[str, Sequence[Tensor]]], columns: Sequence[str]) -> Image.Image:
    """Images in a grid with a line of text above each row and column titles on top."""
    height, width = rows[0][1][0].shape[-2:]
    cell_height, cell_width = height + _LABEL + _MARGIN, width + _MARGIN
    sheet = Image.new("RGB", (cell_width * len(columns) + _MARGIN, cell_height * len(rows) + 2 * _LABEL), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        pen.text((column * cell_width + _MARGIN, 0), title, fill="black")
    for row, (label, images) in enumerate(rows):
        top = row * cell_height + _LABEL
        pen.text((_MARGIN, top), label, fill="black")
        for column, image in enumerate(images):
            sheet.paste(to_pil(image), (column * cell_width + _MARGIN, top + _LABEL))
    return sheet
