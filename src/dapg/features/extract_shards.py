"""Features of more images than one process should encode: shards that workers claim, a file each."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from dapg.core.engines.base import EngineSettings
from dapg.core.files import write_arrays
from dapg.core.launch import launch
from dapg.core.runtime import Runtime
from dapg.core.schema import read_arrays
from dapg.core.shards import Job, RunShard, chunk, chunks
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.data.compact import CompactRecords
from dapg.features.encoders import Encoder
from dapg.features.extract import extract
from dapg.features.table import FeatureTable

_SHARD = 1024
"""Images of a shard."""


def extract_shards(
    folder: Path,
    build: Callable[[], Encoder],
    dataset: Dataset,
    records: Sequence[Record],
    batch_size: int = 64,
    engine: EngineSettings = EngineSettings(),
) -> Iterator[FeatureTable]:
    """The tables of ``records`` in order, a thousand images at a time, so that millions never are in memory.

    Args:
        folder: that all workers see; what is finished there is not encoded again.
        build: makes the encoder in each worker; a ``partial`` of ``build_encoder``, which can be sent to it.
        dataset: where images are read.
        records: of the images.
        batch_size: images encoded at once; it decides over last bits.
        engine: who does the work.

    Raises:
        ShardsFailed: an image cannot be read.
    """
    compact = CompactRecords(records)
    shards = chunks(len(compact), _SHARD)
    start = functools.partial(_start, folder, build, dataset, compact, batch_size, _SHARD)
    launch(Job("extract", folder, shards, "image", start), engine)
    return (_read(_file(folder, shard), compact[chunk(shard, _SHARD)]) for shard in shards)


def _start(
    folder: Path, build: Callable[[], Encoder], dataset: Dataset, records: Sequence[Record], batch_size: int, size: int
) -> RunShard:
    encoder = build()

    def run_shard(shard: str) -> list[Path]:
        table = extract(encoder, dataset, records[chunk(shard, size)], Runtime(encoder.device, batch_size))
        write_arrays(_file(folder, shard), {name: values.numpy() for name, values in table.features.items()})
        return [_file(folder, shard)]

    return run_shard


def _file(folder: Path, shard: str) -> Path:
    return folder / "features" / f"{shard}.npz"


def _read(path: Path, records: Sequence[Record]) -> FeatureTable:
    return FeatureTable({name: torch.from_numpy(values) for name, values in read_arrays(path).items()}, records)
