"""Packed pictures: webdataset tars with an offset index, streamed in a resumable order or read at random.

``pack`` turns any data set into ``shard-000000.tar`` ... (readable by webdataset) and ``index.npz``, which says where
each picture begins, whose it is, and which test trials it belongs to. Pictures keep their bytes, paths and labels, so
training and scores are the same as from the original files. Tars of other programs are indexed on first use.
"""

import bisect
import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path
from dapg.core.rng import generator_from
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset, example_picture
from dapg.data.compact import CompactRecords
from dapg.data.listing import PICTURE_SUFFIXES

INDEX = "index.npz"
_VERSION = 2
_BLOCK = 65_536


class Shards(Dataset):
    """A folder of tars with an index, as ``dapg data shard`` writes it.

    Splits, modes and title are those of the packed set.
    """

    title = "packed shards"
    licence = "that of the packed data set, see its index"
    access = "packed from your own copy"
    splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require()
        self.store = TarStore(self.root)
        meta = self.store.meta
        # Instance values in place of the class's: a packed set has the splits, modes and name it was packed with.
        self.splits = tuple(meta["splits"])  # type: ignore[misc]
        self.modes = tuple(meta["modes"])  # type: ignore[misc]
        self.title = meta["title"]  # type: ignore[misc]

    def records(self, split: str = "all") -> Sequence[Record]:
        """The records of a packed split, in the order of the original set."""
        self.check_split(split)
        return self.store.records(split)

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """The trials that were packed.

        Raises:
            UsageError: trials of another seed than 0; they are drawn from the original folders only.
        """
        self.check_mode(mode)
        if seed:
            raise UsageError(f"{self.root} holds the trials of seed 0 only; use the original data set for seed {seed}")
        return self.store.trials(mode)

    def read(self, record: Record) -> bytes:
        """The picture's bytes, from the middle of its tar."""
        return self.store.read(record.path)

    @property
    def shard_numbers(self) -> list[int]:
        """For each record of the first split, the tar it lies in: what ``ShardSampler`` needs."""
        return self.store.shard_numbers(self.splits[0])

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """The pictures that ``write_example`` packs."""
        return {f"{person}/{number}.png": None for person in ("a", "b") for number in (1, 2, 3)}

    @classmethod
    def write_example(cls, root: Path | str) -> None:
        """Two small tars with six pictures."""
        pictures = ((name, example_picture(name)) for name in cls.example_layout())
        write_tars(Path(root), pictures, per_shard=4)
        records = [Record(name, ord(name[0]) - ord("a"), int(name[2])) for name in cls.example_layout()]
        write_index(Path(root), {"all": records}, {}, "example")


class TarStore:
    """Random access to the members of all tars of a folder through an offset index."""

    def __init__(self, root: Path) -> None:
        """Read the index, or make it where another program wrote the tars.

        Raises:
            DataError: no tar, or an index that does not belong to the tars.
        """
        self.root = root
        if not (root / INDEX).is_file():
            _index_foreign(root)
        try:
            with np.load(root / INDEX, allow_pickle=False) as stored:
                self._arrays = {name: stored[name] for name in stored.files}
            self.meta: dict[str, Any] = json.loads(str(self._arrays.pop("meta")))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{root / INDEX} is not a shard index ({error}); delete it to make it anew") from error
        if self.meta["version"] != _VERSION:
            raise DataError(f"{root / INDEX} was written by another version of dapg: pack the set again")
        for name, size in zip(self.meta["tars"], self.meta["sizes"], strict=True):
            path = root / name
            if not path.is_file():
                raise DataError(f"packed shards not complete under {root}: expected {name}. See docs/datasets.md.")
            if path.stat().st_size != size:
                raise DataError(f"{path} has {path.stat().st_size} bytes, its index says {size}: pack it again")
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def records(self, split: str) -> Sequence[Record]:
        """Records of a split, in packing order."""
        return CompactRecords(self.iterate(split))

    def iterate(self, split: str) -> Iterator[Record]:
        """Records of a split one by one, so that millions of them need not be held."""
        chosen = self._arrays[f"split/{split}"]
        for start in range(0, len(chosen), _BLOCK):
            yield from self._records(chosen[start : start + _BLOCK])

    def _records(self, chosen: NDArray[np.int64]) -> list[Record]:
        found = self._arrays
        boxes = found["box"][chosen].tolist()
        rows = zip(
            found["sample"][chosen].tolist(),
            found["person"][chosen].tolist(),
            found["camera"][chosen].tolist(),
            found["modality"][chosen].tolist(),
            boxes,
            strict=True,
        )
        return [
            Record(self._path(sample), person, camera, Modality(modality), None if box[0] < 0 else tuple(box))
            for sample, person, camera, modality, box in rows
        ]

    def trials(self, mode: str) -> list[Trial]:
        """Trials of a packed mode."""
        everything = self._records(np.arange(len(self._arrays["sample"])))
        trials = []
        for number, trial in enumerate(self.meta["modes"][mode]):
            query, gallery = (
                tuple(everything[place] for place in self._arrays[f"trial/{mode}/{number}/{side}"].tolist())
                for side in ("query", "gallery")
            )
            rules = dict(trial["protocol"])
            rules["camera_groups"] = {int(key): value for key, value in rules["camera_groups"].items()}
            rules["junk_persons"] = tuple(rules["junk_persons"])
            rest = {key: trial[key] for key in ("name", "comparable", "drawn", "cause")}
            trials.append(Trial(mode=mode, query=query, gallery=gallery, protocol=Protocol(**rules), **rest))
        return trials

    def shard_numbers(self, split: str) -> list[int]:
        """Tar number of each record of a split."""
        shards: list[int] = self._arrays["shard"][self._arrays["sample"][self._arrays[f"split/{split}"]]].tolist()
        return shards

    def read(self, path: str) -> bytes:
        """Bytes of the picture with this path.

        Raises:
            DataError: no such picture, or the tar ends before it does.
        """
        digest = np.uint64(_digest(path))
        place = int(np.searchsorted(self._arrays["digest"], digest))
        if place == len(self._arrays["digest"]) or self._arrays["digest"][place] != digest:
            raise DataError(f"{path} is not in the tars under {self.root}")
        sample = int(self._arrays["digest_order"][place])
        shard, offset, size = (int(self._arrays[name][sample]) for name in ("shard", "offset", "size"))
        data = os.pread(self._file(shard), size, offset)
        if len(data) < size:
            raise DataError(f"{self.root / self.meta['tars'][shard]} ends inside {path}")
        return data

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay behind: each loader worker opens its own."""
        return {**self.__dict__, "_files": {}}

    def _file(self, shard: int) -> int:
        if self._process != os.getpid():  # a forked worker must not share file positions or close its parent's files
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            path = self.root / self.meta["tars"][shard]
            try:
                self._files[shard] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{path}: {error.strerror or error}") from error
        return self._files[shard]

    def _path(self, sample: int) -> str:
        first, last = self._arrays["path_end"][sample - 1] if sample else 0, self._arrays["path_end"][sample]
        return bytes(self._arrays["paths"][first:last].tobytes()).decode()


class ShardSampler:
    """Every record once per epoch; tars in random order, a few at a time, random order within those few.

    Reading stays close together on the disk while batches stay mixed. Like every sampler of ours ``batch`` is a pure
    function of seed and step, and ``LocalBatches`` splits a batch over processes.
    """

    def __init__(self, shard_numbers: Sequence[int], batch_size: int, seed: int, window: int = 4) -> None:
        """Group records by tar.

        Args:
            shard_numbers: tar of each record.
            batch_size: records per step, over all processes.
            seed: of all orders.
            window: tars that are mixed at a time.

        Raises:
            UsageError: fewer records than a batch holds.
        """
        if len(shard_numbers) < batch_size:
            raise UsageError(f"{len(shard_numbers)} pictures are too few for a batch of {batch_size}")
        self.batch_size, self.seed, self.window = batch_size, seed, window
        numbers = np.asarray(shard_numbers)
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        self._groups: list[NDArray[np.int64]] = np.split(order, cuts)
        self.count = len(numbers)
        self._windows: dict[tuple[int, int], list[int]] = {}
        self._epochs: dict[int, tuple[list[list[int]], list[int]]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps after which every record was seen once."""
        return self.count / self.batch_size

    def batch(self, step: int) -> list[int]:
        """Numbers of the records of step ``step``."""
        first = step * self.batch_size
        return [self._at(*divmod(place, self.count)) for place in range(first, first + self.batch_size)]

    def _at(self, epoch: int, place: int) -> int:
        windows, ends = self._epoch(epoch)
        number = bisect.bisect_right(ends, place)
        start = ends[number - 1] if number else 0
        return self._window(epoch, number, windows[number])[place - start]

    def _epoch(self, epoch: int) -> tuple[list[list[int]], list[int]]:
        """The epoch's windows (lists of tars) and where each ends."""
        if epoch not in self._epochs:
            order = torch.randperm(len(self._groups), generator=generator_from("shards", self.seed, epoch)).tolist()
            windows = [order[start : start + self.window] for start in range(0, len(order), self.window)]
            sizes = (sum(len(self._groups[group]) for group in window) for window in windows)
            self._epochs = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs[epoch] = windows, list(itertools.accumulate(sizes))
        return self._epochs[epoch]

    def _window(self, epoch: int, number: int, groups: list[int]) -> list[int]:
        key = epoch, number
        if key not in self._windows:
            records = np.concatenate([self._groups[group] for group in groups])
            order = torch.randperm(len(records), generator=generator_from("window", self.seed, epoch, number))
            if len(self._windows) > 1:  # a batch spans two windows at most, save tiny ones
                self._windows.clear()
            self._windows[key] = records[order.numpy()].tolist()
        return self._windows[key]


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

    Raises:
        UsageError: an unknown split, or ``root`` is not empty.
        DataError: a picture cannot be read.
    """
    folder = Path(root)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; shards need a folder of their own")
    for split in splits:
        dataset.check_split(split)
    chosen = _existing(dataset, splits or dataset.splits, optional=not splits)
    records = list(dict.fromkeys(itertools.chain.from_iterable(chosen.values())))
    paths = dict.fromkeys(record.path for record in records)
    by_path = {record.path: record for record in records}
    written = write_tars(folder, ((path, dataset.read(by_path[path])) for path in paths), per_shard)
    write_index(folder, chosen, _trials_within(dataset, set(records)), dataset.title, dataset.licence)
    return written


def _existing(dataset: Dataset, splits: Sequence[str], optional: bool) -> dict[str, Sequence[Record]]:
    found: dict[str, Sequence[Record]] = {}
    for split in splits:
        try:
            found[split] = dataset.records(split)
        except UsageError:
            if not optional:
                raise
    return found


def _trials_within(dataset: Dataset, packed: set[Record]) -> dict[str, list[Trial]]:
    found = {}
    for mode in dataset.modes:
        try:
            trials = dataset.trials(mode)
        except (UsageError, DataError):
            continue  # an optional mode whose files this copy does not have
        if all(packed.issuperset(trial.query) and packed.issuperset(trial.gallery) for trial in trials):
            found[mode] = trials
    return found


def write_tars(root: Path, pictures: Iterable[tuple[str, bytes]], per_shard: int) -> dict[str, int]:
    """Write (path, bytes) pairs as ``000000000.jpg`` and ``000000000.json``, which names the path.

    Equal input gives equal tars, byte for byte.
    """
    root.mkdir(parents=True, exist_ok=True)
    numbered = enumerate(pictures)
    shards = pixels = count = 0
    while batch := list(itertools.islice(numbered, per_shard)):
        with (
            atomic_path(root / f"shard-{shards:06d}.tar") as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for number, (path, data) in batch:
                stem = f"{number:09d}"
                suffix = Path(path).suffix.lower()
                suffix = suffix if suffix in PICTURE_SUFFIXES else ".jpg"  # keys of an LMDB have no suffix
                _add(archive, f"{stem}{suffix}", data)
                _add(archive, f"{stem}.json", json.dumps({"path": path}).encode())
                pixels += len(data)
                count += 1
        shards += 1
    if count == 0:
        raise UsageError("nothing to pack: the splits hold no picture")
    return {"pictures": count, "tars": shards, "bytes": pixels}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_index(
    root: Path,
    splits: Mapping[str, Sequence[Record]],
    trials: Mapping[str, Sequence[Trial]],
    title: str,
    licence: str = "",
) -> None:
    """Write ``index.npz`` for the tars of ``root``.

    Raises:
        DataError: a record's picture is not in the tars.
    """
    names, samples = _scan(root)
    number_of = {path: number for number, (path, *_) in enumerate(samples)}
    records = list(dict.fromkeys(itertools.chain.from_iterable(splits.values())))
    place = {record: number for number, record in enumerate(records)}
    absent = [record.path for record in records if record.path not in number_of]
    if absent:
        raise DataError(f"{len(absent)} pictures are not in the tars under {root}, first {absent[0]}")
    digests = np.array([_digest(path) for path, *_ in samples], dtype=np.uint64)
    order = np.argsort(digests, kind="stable")
    if len(np.unique(digests)) < len(digests):
        raise DataError(f"two pictures under {root} have the same path")
    encoded = [path.encode() for path, *_ in samples]
    arrays: dict[str, Any] = {
        "paths": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "path_end": np.cumsum([len(path) for path in encoded], dtype=np.int64),
        "shard": np.array([shard for _, shard, _, _ in samples], dtype=np.int32),
        "offset": np.array([offset for _, _, offset, _ in samples], dtype=np.int64),
        "size": np.array([size for _, _, _, size in samples], dtype=np.int64),
        "digest": digests[order],
        "digest_order": order,
        "sample": np.array([number_of[record.path] for record in records], dtype=np.int64),
        "person": np.array([record.person for record in records], dtype=np.int64),
        "camera": np.array([record.camera for record in records], dtype=np.int64),
        "modality": np.array([int(record.modality) for record in records], dtype=np.int8),
        "box": np.array([record.box or (-1, -1, -1, -1) for record in records], dtype=np.int32).reshape(-1, 4),
    }
    for split, members in splits.items():
        arrays[f"split/{split}"] = np.array([place[record] for record in members], dtype=np.int64)
    modes: dict[str, list[dict[str, Any]]] = {}
    for mode, found in trials.items():
        modes[mode] = []
        for number, trial in enumerate(found):
            for side, members in (("query", trial.query), ("gallery", trial.gallery)):
                arrays[f"trial/{mode}/{number}/{side}"] = np.array([place[record] for record in members])
            protocol = {**asdict(trial.protocol), "camera_groups": dict(trial.protocol.camera_groups)}
            kept = {key: getattr(trial, key) for key in ("name", "comparable", "drawn", "cause")}
            modes[mode].append({**kept, "protocol": protocol})
    meta = {
        "version": _VERSION,
        "title": title,
        "licence": licence,
        "splits": list(splits),
        "modes": modes,
        "tars": names,
        "sizes": [(root / name).stat().st_size for name in names],
    }
    arrays["meta"] = np.array(json.dumps(meta))
    with atomic_path(root / INDEX) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)


def _scan(root: Path) -> tuple[list[str], list[tuple[str, int, int, int]]]:
    """Names of the tars, and of each picture path, tar number, offset and size."""
    names = sorted(path.name for path in root.glob("*.tar"))
    if not names:
        raise DataError(f"packed shards not found under {root}: expected *.tar. See docs/datasets.md.")
    samples = []
    for shard, name in enumerate(names):
        try:
            samples += [(path, shard, offset, size) for path, offset, size in _members(root / name)]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{root / name} is damaged ({error})") from error
    return names, samples


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Path, offset and size of each picture of a tar; the path is that of the sample's JSON, else the member's name."""
    waiting: tuple[str, int, int] | None = None
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            stem, suffix = _split_suffix(member.name)
            if suffix.lower() in PICTURE_SUFFIXES:
                if waiting is not None:
                    yield waiting
                waiting = member.name, member.offset_data, member.size
            elif suffix == ".json" and waiting is not None and _split_suffix(waiting[0])[0] == stem:
                yield _named(archive, member, waiting)
                waiting = None
    if waiting is not None:
        yield waiting


def _split_suffix(name: str) -> tuple[str, str]:
    """``a.b/c.jpg`` -> ``a.b/c``, ``.jpg``."""
    suffix = Path(name).suffix
    return name.removesuffix(suffix), suffix


def _named(archive: tarfile.TarFile, member: tarfile.TarInfo, picture: tuple[str, int, int]) -> tuple[str, int, int]:
    stream = archive.extractfile(member)
    try:
        described = json.loads(stream.read()) if stream is not None else {}
    except ValueError:
        return picture
    path = described.get("path") if isinstance(described, dict) else None
    return (path, *picture[1:]) if isinstance(path, str) else picture


def _index_foreign(root: Path) -> None:
    """Index tars of another program: every picture is visible and nobody is known."""
    _, samples = _scan(root)
    write_index(root, {"all": [Record(path, UNKNOWN) for path, *_ in samples]}, {}, root.name)


def _digest(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
