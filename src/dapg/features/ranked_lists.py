"""Ranked lists as the report draws them: thumbnails, what matches, and maps of what makes two images alike."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from dapg.core.files import atomic_write_bytes, write_arrays
from dapg.core.images import encode, to_pil
from dapg.core.types import JsonObject, Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import Encoder
from dapg.features.grad_cam import maps_of_records
from dapg.features.table import FeatureTable
from dapg.scoring.ranking import Ranking

PICTURES, MAPS = "pictures", "activations.npz"
_THUMBNAIL = (128, 64)

Answers = list[tuple[Record, float, bool | None]]
"""Gallery images, nearest first: similarity, and whether it is the query's person (None: nobody knows)."""


def answers_of(ranking: Ranking, number: int, gallery: Sequence[Record], digits: int = 9) -> Answers:
    """The answers to a query of a ranking; similarities, of single precision, are rounded to ``digits``."""
    columns = (ranking.gallery[number], ranking.similarity[number], ranking.matches[number])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(gallery[place], round(value, digits), match) for place, value, match in rows if place >= 0]


def describe_lists(lists: Sequence[tuple[Record, Answers]]) -> list[JsonObject]:
    """Entries for result.json."""
    return [
        {
            "query": _described(query),
            "answers": [
                {**_described(record), "similarity": similarity, "match": match}
                for record, similarity, match in answers
            ],
        }
        for query, answers in lists
    ]


def save_thumbnails(folder: Path, dataset: Dataset, records: Sequence[Record]) -> None:
    """Small JPEGs below ``folder``, under the names that ``describe_lists`` gives.

    Raises:
        DataError: an image cannot be read.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, content in thumbnails(dataset, records, _THUMBNAIL, quality=85):
        atomic_write_bytes(folder / name, content)


def thumbnails(
    dataset: Dataset, records: Sequence[Record], size: tuple[int, int], quality: int
) -> Iterator[tuple[str, bytes]]:
    """A JPEG file of (height, width) for each different record, under the name that ``describe_lists`` gives.

    Raises:
        DataError: an image cannot be read.
    """
    records = list(dict.fromkeys(records))
    config = LoaderConfig(height=size[0], width=size[1], workers=0)
    for batch in ordered_batches(dataset, records, 64, config):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            yield picture_name(records[index]), encode(to_pil(image), "JPEG", quality=quality)


def save_maps(
    folder: Path,
    encoder: Encoder,
    sources: tuple[Dataset, Dataset],
    lists: Sequence[tuple[Record, Answers]],
    feature: str,
    tables: tuple[FeatureTable, FeatureTable],
) -> None:
    """One array a list: (1 + answers, h, w) float16, 0 ... 1; the query's map first.

    An answer's map shows what makes it like the query; the query's what makes it like its first answer, and where there
    is no answer how strong its features are.

    Args:
        folder: of the stage.
        encoder: with a backbone.
        sources: data set of the queries and of the answers.
        lists: queries and their answers.
        feature: named feature that is compared.
        tables: unit features of the queries and of the answers.
    """
    queries = [query for query, _ in lists]
    firsts = [tables[1].of([answers[0][0]])[feature][0] if answers else None for _, answers in lists]
    query_maps = maps_of_records(encoder, sources[0], queries, feature, firsts)
    pairs = [(record, query) for query, answers in lists for record, *_ in answers]
    others = list(tables[0].of([query for _, query in pairs])[feature])
    answer_maps = iter(maps_of_records(encoder, sources[1], [record for record, _ in pairs], feature, others))
    arrays = {
        str(number): torch.stack([own, *(next(answer_maps) for _ in answers)]).half().numpy()
        for number, ((_, answers), own) in enumerate(zip(lists, query_maps, strict=True))
    }
    write_arrays(folder / MAPS, arrays)


def thumbnail_texts(dataset: Dataset, records: Sequence[Record], size: tuple[int, int], quality: int) -> dict[str, str]:
    """``thumbnails`` in base64, for a JSON file."""
    files = thumbnails(dataset, records, size, quality)
    return {name: base64.b64encode(content).decode() for name, content in files}


def _described(record: Record) -> JsonObject:
    return {
        "path": record.path,
        "person": record.person,
        "camera": record.camera,
        "picture": picture_name(record),
    }


def picture_name(record: Record) -> str:
    """Its file: a readable name, and a hash that tells ``a/b.png`` from ``a_b.png`` and boxes of one image apart."""
    readable = "".join(letter if letter.isalnum() else "_" for letter in record.path)[-60:]
    digest = hashlib.sha256(f"{record.path}\t{record.box}".encode()).hexdigest()[:8]
    return f"{PICTURES}/{readable}-{digest}.jpg"
