"""Turns any data set into ``shard-000000.tar`` ... (readable by webdataset) and an index; killed, it goes on."""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path, folder_lock, remove_leftovers, write_json
from dapg.core.schema import read_json
from dapg.core.types import Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import PICTURE_SUFFIXES
from dapg.data.shards.tar_store import PACKED, PACKING, write_index


def pack(
    dataset: Dataset,
    root: Path | str,
    splits: Sequence[str] = (),
    per_shard: int = 10_000,
) -> dict[str, int]:
    """Pack splits of a data set, and those of its trials whose pictures are all among them.

    Args:
        dataset: what to pack.
        root: new folder for the tars.
        splits: names; none: every split this copy has.
        per_shard: pictures per tar.

    Returns:
        Numbers of pictures, tars and bytes.

    A killed call goes on with the first tar that is not there. Until the index is written, ``packing.json`` says that
    the folder is not whole, and no reader takes it; then it is called ``packed.json``, and the same call again finds
    nothing to do.

    Raises:
        UsageError: an unknown split, or ``root`` holds something else.
        BusyError: another process packs into it.
        DataError: a picture cannot be read.
    """
    folder = Path(root)
    for split in splits:
        dataset.check_split(split)
    chosen = _existing(dataset, splits or dataset.splits, optional=not splits)
    records = list(dict.fromkeys(itertools.chain.from_iterable(chosen.values())))
    by_path = {record.path: record for record in records}
    listed = hashlib.sha256("\n".join(by_path).encode()).hexdigest()
    work = {"data": dataset.title, "splits": list(chosen), "per_shard": per_shard, "pictures": listed}
    with folder_lock(folder):
        whole = _begin(folder, work)
        written = write_tars(folder, list(by_path), lambda path: dataset.read(by_path[path]), per_shard)
        if not whole:
            write_index(folder, chosen, _trials_within(dataset, set(records)), dataset.title, dataset.licence)
            (folder / PACKING).replace(folder / PACKED)
    return written


def _begin(folder: Path, work: dict[str, object]) -> bool:
    """Mark the folder as not whole; one with the mark of the same work is gone on with. Whether it is whole already."""
    mark = next((folder / name for name in (PACKED, PACKING) if (folder / name).exists()), None)
    if mark is None:
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty; shards need a folder of their own")
        write_json(folder / PACKING, work)
    elif read_json(mark) != work:
        raise UsageError(f"{folder} holds tars of other pictures or settings; give another --out")
    remove_leftovers(folder)
    return mark is not None and mark.name == PACKED


def _existing(dataset: Dataset, splits: Sequence[str], optional: bool) -> dict[str, Sequence[Record]]:
    existing: dict[str, Sequence[Record]] = {}
    for split in splits:
        try:
            existing[split] = dataset.records(split)
        except UsageError:
            if not optional:
                raise
    return existing


def _trials_within(dataset: Dataset, packed: set[Record]) -> dict[str, list[Trial]]:
    within = {}
    for mode in dataset.modes:
        try:
            trials = dataset.trials(mode)
        except (UsageError, DataError):
            continue  # an optional mode whose files this copy does not have
        if all(packed.issuperset(trial.query) and packed.issuperset(trial.gallery) for trial in trials):
            within[mode] = trials
    return within


def write_tars(root: Path, paths: Sequence[str], read: Callable[[str], bytes], per_shard: int) -> dict[str, int]:
    """Write pictures as ``000000000.jpg`` and ``000000000.json``, which names the path; tars that are there stay.

    Equal input gives equal tars, byte for byte.
    """
    if not paths:
        raise UsageError("nothing to pack: the splits hold no picture")
    tars = range(0, len(paths), per_shard)
    progress = tqdm(total=len(paths), desc="pack", unit="picture", disable=None)
    with progress as bar:
        for shard, start in enumerate(tars):
            file, batch = root / f"shard-{shard:06d}.tar", paths[start : start + per_shard]
            if not file.exists():
                _write_tar(file, start, batch, read)
            bar.update(len(batch))
    size = sum((root / f"shard-{shard:06d}.tar").stat().st_size for shard in range(len(tars)))
    return {"pictures": len(paths), "tars": len(tars), "bytes": size}


def _write_tar(file: Path, first: int, paths: Sequence[str], read: Callable[[str], bytes]) -> None:
    with atomic_path(file) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, path in enumerate(paths, first):
            suffix = Path(path).suffix.lower()
            suffix = suffix if suffix in PICTURE_SUFFIXES else ".jpg"  # keys of an LMDB have no suffix
            _add(archive, f"{number:09d}{suffix}", read(path))
            _add(archive, f"{number:09d}.json", json.dumps({"path": path}).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
