"""Key-point estimation as a stage: a data set in, one table of key points and a sheet to look at out.

The work is cut into chunks of images, each a small table of its own, which workers claim (``core/shards.py``).
"""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.core import plugins
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DapgError, DataError, UsageError
from dapg.core.files import atomic_path, sha256
from dapg.core.images import decode, upright_size
from dapg.core.key_points import CONFIDENT
from dapg.core.launch import launch
from dapg.core.ranges import Threads
from dapg.core.run_folder import RunFolder, refuse_other_input
from dapg.core.settings import run_only, unset
from dapg.core.shards import Job, RunShard, chunk, chunks
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject, Record
from dapg.data.base import Dataset
from dapg.data.compact import CompactRecords
from dapg.data.loading import OnBadImage
from dapg.data.source import draw_subset, list_hash, open_dataset, select_records
from dapg.pose.estimators.base import Estimator
from dapg.pose.key_point_sheets import overlay_sheet
from dapg.pose.key_point_table import TABLE, KeyPointTable, read_table, write_table

CHUNKS, SHEET = "chunks", "overlay.jpg"
CHUNK = 256
"""Images between two saved states."""
SHEET_IMAGES = 40


@dataclass(frozen=True)
class EstimateSettings:
    """What to estimate, how, and where to."""

    name: str
    """Estimator: a file of ``dapg/pose/estimators``."""
    estimator: Any
    """Its own settings (the ``Config`` nested in it)."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images; without a split, those of all splits."""
    engine: EngineSettings = run_only(EngineSettings())
    """Who does the work."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: give it no confidence, and list it in the result, or stop (fail)."""
    threads: Threads = run_only(2)
    """Images decoded at a time."""
    out: str = run_only("")
    """Folder of the table; empty: beside the data, ``<root>-key_points`` (embedded set: outputs/pose/key_points)."""

    def folder(self) -> Path:
        """Where the table goes."""
        if self.out:
            return Path(self.out)
        root = self.data.root.rstrip("/")
        return Path(f"{root}-key_points") if root else Path("outputs/pose/key_points")


def estimator_class(name: str) -> type[Estimator]:
    """The estimator plug-in by name."""
    return plugins.load("pose.estimators", name, Estimator)


def all_records(dataset: Dataset, config: DataConfig, seed: int = 0) -> Sequence[Record]:
    """The records of the given split, or of all splits this copy has, each image once, in order of first appearance.

    Raises:
        UsageError: no split of the data set can be read.
    """
    if config.split:
        return list(select_records(dataset, config, seed))
    unique: dict[tuple[str, tuple[int, ...] | None], Record] = {}
    for split in dataset.splits:
        try:
            records = dataset.records(split)
        except DapgError:  # a copy without this split's lists: the others still count
            continue
        for record in records:
            unique.setdefault((record.path, record.box), record)
    if not unique:
        raise UsageError(f"{dataset.title} under {dataset.root}: no split can be read")
    return list(draw_subset(list(unique.values()), config.subset, seed))


def estimate(settings: EstimateSettings) -> JsonObject:
    """Run, go on with, or reuse one estimation; returns result.json's content.

    The folder then holds ``key_points.npz`` (see ``pose/key_point_table.py``), ``overlay.jpg`` and result.json.

    Raises:
        UsageError: wrong settings, or the folder holds other work.
        DataError, WeightsError: see there. Single unreadable images are listed, and have confidence 0, unless
            ``on_bad_image`` is ``fail``.
    """
    dataset = open_dataset(settings.data)
    records = all_records(dataset, settings.data)
    kind = estimator_class(settings.name)
    kind(settings.estimator, dataset)  # what is missing is said before anything is written
    stage = RunFolder(settings.folder(), settings, "pose estimate")
    finished = stage.open()
    stage.close()  # workers of several commands may share the folder; each chunk is written atomically
    if finished is not None:
        return {**finished, "reused": True}
    folder = settings.folder() / CHUNKS
    folder.mkdir(exist_ok=True)
    refuse_other_input(folder / "list.json", {"pictures": len(records), "hash": list_hash(records)})
    start = functools.partial(_start, settings, dataset, CompactRecords(records), CHUNK)
    shards = chunks(len(records), CHUNK)
    launch(Job("pose estimate", settings.folder(), shards, "picture", start), settings.engine)
    return _merge(settings, dataset, records, list(shards))


def _chunk(settings: EstimateSettings, shard: str) -> Path:
    return settings.folder() / CHUNKS / f"{shard}.npz"


def _start(settings: EstimateSettings, dataset: Dataset, records: Sequence[Record], size: int) -> RunShard:
    """Makes the table of ``size`` images in a row."""
    network = estimator_class(settings.name)(settings.estimator, dataset)
    pool = ThreadPoolExecutor(settings.threads)

    def run_shard(shard: str) -> list[Path]:
        chosen = records[chunk(shard, size)]
        points, problems = [], dict[str, str]()
        for batch in _batches(dataset, chosen, network, pool):
            if batch.problems and settings.on_bad_image == "fail":
                raise DataError(next(iter(batch.problems.values())))
            points.append(network.estimate(batch.images, batch.sizes, batch.records))
            points[-1][batch.unreadable, :, 2] = 0
            problems.update(batch.problems)
        keys = tuple((record.path, record.box) for record in chosen)
        finite = torch.nan_to_num(torch.cat(points), nan=0.0, posinf=0.0, neginf=0.0)
        write_table(_chunk(settings, shard), KeyPointTable(keys, finite, {"unreadable": problems}))
        return [_chunk(settings, shard)]

    return run_shard


@dataclass(frozen=True)
class _Images:
    """Decoded images; a grey one stands in for each that cannot be read."""

    images: UInt8[Tensor, "B 3 H W"]
    sizes: Int[Tensor, "B 2"]
    records: Sequence[Record]
    problems: dict[str, str]
    unreadable: list[int]


def _batches(
    dataset: Dataset, records: Sequence[Record], network: Estimator, pool: ThreadPoolExecutor
) -> Iterator[_Images]:
    """Batches of the network's size, read by threads."""
    height, width = network.input_size

    def read(record: Record) -> tuple[Tensor, tuple[int, int], str]:
        try:
            data = dataset.read(record)
            size = upright_size(data, record.box, record.name)
            return decode(data, (height, width), record.box, record.name), size, ""
        except DataError as error:
            return torch.full((3, height, width), 128, dtype=torch.uint8), (height, width), str(error)

    for start in range(0, len(records), network.batch_size):
        chosen = records[start : start + network.batch_size]
        images, sizes, problems = zip(*pool.map(read, chosen), strict=True)
        broken = [number for number, problem in enumerate(problems) if problem]
        named = {chosen[number].name: problems[number] for number in broken}
        yield _Images(torch.stack(images), torch.tensor(sizes), chosen, named, broken)


def _merge(
    settings: EstimateSettings, dataset: Dataset, records: Sequence[Record], shards: Sequence[str]
) -> JsonObject:
    """Join the chunks; only one of several commands that end together does it."""
    out = settings.folder()
    stage = RunFolder(out, settings, "pose estimate")
    with closing(stage):
        finished = stage.open()
        if finished is not None:
            return {**finished, "reused": True}
        tables = [read_table(_chunk(settings, shard)) for shard in shards]
        keys = tuple(key for table in tables for key in table.keys)
        if keys != tuple((record.path, record.box) for record in records):
            raise DataError(f"{out / CHUNKS} holds chunks of other images; give another --out")
        about = {
            "estimator": settings.name,
            "settings": vars(settings.estimator) if hasattr(settings.estimator, "__dict__") else {},
            "data": {"name": settings.data.name, "pictures": len(records), "hash": list_hash(list(records))},
        }
        table = KeyPointTable(keys, torch.cat([table.points for table in tables]), about)
        write_table(out / TABLE, table)
        _write_sheet(out / SHEET, dataset, records, table.points)
        unreadable = {path: reason for part in tables for path, reason in part.about["unreadable"].items()}
        confident, fine = table.points[..., 2] >= CONFIDENT, table.usable()
        unusable = [key[0] for key, good in zip(keys, fine.tolist(), strict=True) if not good]
        result = stage.finish(
            {
                "pictures": len(records),
                "detected": int(confident.any(dim=1).sum()),
                "usable": int(fine.sum()),
                "unusable": unusable[:1000],
                "unreadable": unreadable,
                "mean_confidence": float(table.points[..., 2].mean()) if len(records) else 0.0,
                "table_sha256": sha256(out / TABLE),
            }
        )
    for shard in shards:
        _chunk(settings, shard).unlink(missing_ok=True)
    return result


def _write_sheet(path: Path, dataset: Dataset, records: Sequence[Record], points: Float[Tensor, "N 18 3"]) -> None:
    """Some images spread evenly over the set, with their key points."""
    step = max(1, len(records) // SHEET_IMAGES)
    chosen = list(range(0, len(records), step))[:SHEET_IMAGES]
    images, rows = [], []
    for number in chosen:
        record = records[number]
        try:
            images.append(decode(dataset.read(record), (192, 96), record.box, record.path))
            rows.append(number)
        except DataError:  # listed in the result already
            continue
    if not images:
        return
    with atomic_path(path) as temporary:
        overlay_sheet(torch.stack(images), points[rows]).save(temporary, "JPEG", quality=90)
