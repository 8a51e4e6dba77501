"""Turns any data set into ``shard-000000.tar`` ... (readable by webdataset) and an index; killed, it goes on."""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path, folder_lock, remove_leftovers, write_json
from dapg.core.launch import launch
from dapg.core.schema import read_json
from dapg.core.shards import Job, RunShard, chunk, chunks
from dapg.core.types import JsonObject, Record, Trial
from dapg.data.base import Dataset
from dapg.data.compact import CompactRecords
from dapg.data.listing import IMAGE_SUFFIXES
from dapg.data.shards.tar_store import PACKED, PACKING, write_index


def pack(
    dataset: Dataset,
    root: Path | str,
    splits: Sequence[str] = (),
    per_shard: int = 10_000,
    engine: EngineSettings = EngineSettings(),
) -> dict[str, int]:
    """Pack splits of a data set, and those of its trials whose images are all among them.

    Args:
        dataset: what to pack.
        root: new folder for the tars.
        splits: names; none: every split this copy has. The set's default among them is written first: it is what a
            packed set is trained on unless told otherwise, and streamed.
        per_shard: images per tar.
        engine: who does the work.

    Returns:
        Numbers of images, tars and bytes.

    A killed call goes on with the first tar that is not there. Until the index is written, ``packing.json`` says that
    the folder is not whole, and no reader takes it; then it is called ``packed.json``, and the same call again finds
    nothing to do.

    Raises:
        UsageError: an unknown split, or ``root`` holds something else.
        BusyError: another process writes the index.
        ShardsFailed: an image cannot be read.
    """
    folder = Path(root)
    for split in splits:
        dataset.check_split(split)
    first = dataset.default_split()
    wanted = sorted(splits or dataset.splits, key=lambda split: split != first)  # the others stay in their order
    chosen = _existing(dataset, wanted, optional=not splits)
    records = list(dict.fromkeys(itertools.chain.from_iterable(chosen.values())))
    by_path = {record.path: record for record in records}
    listed = hashlib.sha256("\n".join(by_path).encode()).hexdigest()
    if not by_path:
        raise UsageError("nothing to pack: the splits hold no image")
    with folder_lock(folder):
        _begin(folder, {"data": dataset.title, "splits": list(chosen), "per_shard": per_shard, "pictures": listed})
    shards = chunks(len(by_path), per_shard)
    start = functools.partial(_start, dataset, CompactRecords(by_path.values()), folder, per_shard)
    launch(Job("data shard", folder, shards, "picture", start), engine)
    with folder_lock(folder, patience=3600.0):  # others that worked with us may be writing the same
        remove_leftovers(folder)
        if (folder / PACKING).exists():
            trials, own = _trials_within(dataset, records), _choices(dataset, chosen)
            write_index(folder, chosen, trials, dataset.title, dataset.licence, own)
            (folder / PACKING).replace(folder / PACKED)
    size = sum(_tar(folder, int(shard)).stat().st_size for shard in shards)
    return {"pictures": len(by_path), "tars": len(shards), "bytes": size}


def _start(dataset: Dataset, records: Sequence[Record], folder: Path, per_shard: int) -> RunShard:
    """Writes one tar."""

    def run_shard(shard: str) -> list[Path]:
        chosen, tar = records[chunk(shard, per_shard)], _tar(folder, int(shard))
        by_path = {record.path: record for record in chosen}
        _write_tar(tar, int(shard) * per_shard, list(by_path), lambda path: dataset.read(by_path[path]))
        return [tar]

    return run_shard


def _tar(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.tar"


def _begin(folder: Path, work: dict[str, object]) -> None:
    """Mark the folder as not whole; one with a mark of the same work is gone on with."""
    mark = next((folder / name for name in (PACKED, PACKING) if (folder / name).exists()), None)
    if mark is None:
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty; shards need a folder of their own")
        write_json(folder / PACKING, work)
    elif read_json(mark) != work:
        raise UsageError(f"{folder} holds tars of other images or settings; give another --out")


def _existing(dataset: Dataset, splits: Sequence[str], optional: bool) -> dict[str, Sequence[Record]]:
    existing: dict[str, Sequence[Record]] = {}
    for split in splits:
        try:
            existing[split] = dataset.records(split)
        except UsageError:
            if not optional:
                raise
    return existing


def _choices(dataset: Dataset, chosen: Iterable[str]) -> JsonObject:
    """What the set says of its splits and version, as the packed one must answer alike."""
    fitting = {}
    for split in chosen:
        with contextlib.suppress(UsageError):  # a set without validation persons
            fitting[split] = dataset.fitting_split(split)
    labelled = dataset.labelled_split()
    return {
        "fitting": fitting,
        "data_version": dataset.version,
        **({"labelled": labelled} if labelled in chosen else {}),
    }


def _trials_within(dataset: Dataset, packed: Sequence[Record]) -> dict[str, list[Trial]]:
    """Those of whose images all are packed; their labels may be others than a split's (``leave-one-out``)."""
    images, within = {record.name for record in packed}, {}
    for mode in dataset.modes:
        try:
            trials = dataset.trials(mode)
        except (UsageError, DataError):
            continue  # an optional mode whose files this copy does not have
        if all(record.name in images for trial in trials for record in (*trial.query, *trial.gallery)):
            within[mode] = trials
    return within


def write_tars(root: Path, paths: Sequence[str], read: Callable[[str], bytes], per_shard: int) -> None:
    """Write images as ``000000000.jpg`` and ``000000000.json``, which names the path; equal input, equal bytes."""
    for number, start in enumerate(range(0, len(paths), per_shard)):
        _write_tar(_tar(root, number), start, paths[start : start + per_shard], read)


def _write_tar(file: Path, first: int, paths: Sequence[str], read: Callable[[str], bytes]) -> None:
    with atomic_path(file) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, path in enumerate(paths, first):
            suffix = Path(path).suffix.lower()
            suffix = suffix if suffix in IMAGE_SUFFIXES else ".jpg"  # keys of an LMDB have no suffix
            _add(archive, f"{number:09d}{suffix}", read(path))
            _add(archive, f"{number:09d}.json", json.dumps({"path": path}).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
