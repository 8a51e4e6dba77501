"""What an alignment leaves to look at: some images in a row, and below each the positives it is compared with."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from dapg.core.errors import DataError
from dapg.core.files import atomic_path
from dapg.core.images import decode, to_pil
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.data.companions import WithCompanions

SHEET = "positives.jpg"
SIZE = (128, 64)
"""Height and width of an image on the sheet."""
_COLUMNS = 12

ReadPositives = Callable[[Record, UInt8[Tensor, "3 128 64"]], UInt8[Tensor, "P 3 128 64"]]
"""Takes a record and its image, and gives its positives; P may differ."""


def companions_of(dataset: WithCompanions) -> ReadPositives:
    """The images that the data set hands along."""

    def read(record: Record, image: UInt8[Tensor, "3 128 64"]) -> UInt8[Tensor, "P 3 128 64"]:
        companions = [decode(data, SIZE, box, name) for data, box, name in dataset.companions(record)]
        return torch.stack(companions) if companions else image.new_empty(0, *image.shape)

    return read


def write_sheet(path: Path, dataset: Dataset, records: Sequence[Record], positives: ReadPositives) -> None:
    """A column for each of twelve records, evenly spread: the image, below it its positives, white where it has less.

    An image that cannot be read is left out: training says what it makes of it. Without any there is no sheet.
    """
    columns = []
    for record in records[:: max(1, len(records) // _COLUMNS)][:_COLUMNS]:
        with contextlib.suppress(DataError):
            image = decode(dataset.read(record), SIZE, record.box, record.path)
            columns.append(torch.cat([image[None], positives(record, image)]))
    if not columns:
        return
    rows = max(len(column) for column in columns)
    filled = [torch.cat([images, images.new_full((rows - len(images), 3, *SIZE), 255)]) for images in columns]
    whole = torch.cat([torch.cat(list(column), dim=1) for column in filled], dim=2)  # (3, rows x 128, columns x 64)
    with atomic_path(path) as temporary:
        to_pil(whole).save(temporary, "JPEG", quality=90)
