"""Ranked lists as the report draws them: thumbnails, what matches, and maps of what makes two pictures alike."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dapg.core.files import atomic_path, atomic_write_bytes
from dapg.core.images import to_pil
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import Encoder
from dapg.features.grad_cam import maps_of_records

PICTURES, MAPS = "pictures", "activations.npz"
_THUMBNAIL = (128, 64)

Answers = list[tuple[Record, float, bool | None]]
"""Gallery pictures, nearest first: similarity, and whether it is the query's person (None: nobody knows)."""


def describe_lists(lists: Sequence[tuple[Record, Answers]]) -> list[dict[str, Any]]:
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
        DataError: a picture cannot be read.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, content in thumbnails(dataset, records, _THUMBNAIL, quality=85):
        atomic_write_bytes(folder / name, content)


def thumbnails(
    dataset: Dataset, records: Sequence[Record], size: tuple[int, int], quality: int
) -> Iterator[tuple[str, bytes]]:
    """A JPEG file of (height, width) for each different record, under the name that ``describe_lists`` gives.

    Raises:
        DataError: a picture cannot be read.
    """
    records = list(dict.fromkeys(records))
    config = LoaderConfig(height=size[0], width=size[1], workers=0)
    for batch in ordered_batches(dataset, records, 64, config):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            stream = io.BytesIO()
            to_pil(image).save(stream, format="JPEG", quality=quality)
            yield f"{PICTURES}/{_file_name(records[index])}", stream.getvalue()


def save_maps(
    folder: Path,
    encoder: Encoder,
    sources: tuple[Dataset, Dataset],
    lists: Sequence[tuple[Record, Answers]],
    feature: str,
    features: tuple[Mapping[Record, Tensor], Mapping[Record, Tensor]],
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
        features: unit feature of each query and of each answer.
    """
    queries = [query for query, _ in lists]
    firsts = [features[1][answers[0][0]] if answers else None for _, answers in lists]
    query_maps = maps_of_records(encoder, sources[0], queries, feature, firsts)
    answers = [(record, features[0][query]) for query, found in lists for record, *_ in found]
    others = [other for _, other in answers]
    answer_maps = iter(maps_of_records(encoder, sources[1], [record for record, _ in answers], feature, others))
    arrays = {
        str(number): np.stack([_half(own), *(_half(next(answer_maps)) for _ in found)])
        for number, ((_, found), own) in enumerate(zip(lists, query_maps, strict=True))
    }
    with atomic_path(folder / MAPS) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def _half(one: Float[Tensor, "h w"]) -> "np.ndarray[Any, np.dtype[np.float16]]":
    return one.numpy().astype(np.float16)


def _described(record: Record) -> dict[str, Any]:
    return {
        "path": record.path,
        "person": record.person,
        "camera": record.camera,
        "picture": f"{PICTURES}/{_file_name(record)}",
    }


def _file_name(record: Record) -> str:
    """A readable name, and a hash that tells ``a/b.png`` from ``a_b.png`` and two boxes of one picture apart."""
    readable = "".join(letter if letter.isalnum() else "_" for letter in record.path)[-60:]
    digest = hashlib.sha256(f"{record.path}\t{record.box}".encode()).hexdigest()[:8]
    return f"{readable}-{digest}.jpg"
