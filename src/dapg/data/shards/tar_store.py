"""Packed images: webdataset tars with an offset index (``index.npz``), read at random.

The index says where each image begins, whose it is, and which test trials it belongs to. Images keep their bytes,
paths and labels, so training and scores are the same as from the original files. Tars of other programs are indexed on
first use.
"""

import hashlib
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DataError
from dapg.core.files import atomic_path
from dapg.core.schema import Array, checked, parse_json, read_arrays, wall
from dapg.core.types import UNKNOWN, JsonObject, Modality, Protocol, Record, Trial
from dapg.data.compact import CompactRecords
from dapg.data.listing import is_image

INDEX, PACKING, PACKED = "index.npz", "packing.json", "packed.json"
_VERSION = 2
_BLOCK = 65_536


_REMEDY = "it is no index of ours or was damaged: delete it to make it anew, or pack the set again"
_COLUMNS = {
    "meta": Array("U", ()),
    "paths": Array("u", (None,)),
    "digest": Array("u", (None,)),
    "box": Array("i", (None, 4)),
    **{
        name: Array("iu", (None,))
        for name in ("path_end", "shard", "offset", "size", "digest_order", "sample", "person", "camera", "modality")
    },
}


class _Rules(TypedDict):
    name: str
    same_person_same_camera: bool
    camera_groups: dict[str, int]
    junk_persons: list[int]
    unique_identity_cmc: bool


class _Trial(TypedDict):
    name: str
    comparable: bool
    drawn: str
    cause: Literal["gallery", "partition"]
    protocol: _Rules


class _Meta(TypedDict):
    title: str
    licence: str
    splits: list[str]
    modes: dict[str, list[_Trial]]
    tars: list[str]
    sizes: list[int]
    labelled: NotRequired[str]
    """The split of fine-tunings. Indexes of earlier versions and of foreign tars lack this and what follows."""
    fitting: NotRequired[dict[str, str]]
    """Split -> its part without validation persons, packed or not."""
    data_version: NotRequired[str | None]


def _within(array: NDArray[np.generic], limit: int) -> bool:
    """Whether whole numbers in one row are from 0 to below the limit."""
    whole = array.dtype.kind in "iu" and array.ndim == 1
    return whole and (not array.size or (int(array.min()) >= 0 and int(array.max()) < limit))


class TarStore:
    """Random access to the members of all tars of a folder through an offset index."""

    def __init__(self, root: Path) -> None:
        """Read the index, or make it where another program wrote the tars.

        Raises:
            DataError: no tar, or an index that does not belong to the tars.
        """
        self.root = root
        if (root / PACKING).exists():
            raise DataError(f"packing {root} was interrupted; run its dapg data shard command again to go on")
        if not (root / INDEX).is_file():
            _index_foreign(root)
        self._arrays = read_arrays(root / INDEX, _COLUMNS, _REMEDY)
        described = parse_json(str(self._arrays.pop("meta")), root / INDEX, _REMEDY)
        if isinstance(described, dict) and described.get("version") != _VERSION:
            raise DataError(f"{root / INDEX} was written by another version of dapg: pack the set again")
        self.meta: _Meta = checked(described, _Meta, root / INDEX, _REMEDY)
        self._check_index(root / INDEX)
        for name, size in zip(self.meta["tars"], self.meta["sizes"], strict=True):
            if Path(name).name != name:  # an index from elsewhere must not open files outside the folder
                raise DataError(f"{root / INDEX} names a tar outside its folder: {name!r}")
            path = root / name
            if not path.is_file():
                raise DataError(
                    f"packed shards not complete under {root}: expected {name}. See docs/reference/datasets.md."
                )
            if path.stat().st_size != size:
                raise DataError(f"{path} has {path.stat().st_size} bytes, its index says {size}: pack it again")
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def _check_index(self, path: Path) -> None:
        """Numbers that point from one array into another stay within it.

        Raises:
            DataError: one does not.
        """
        arrays = self._arrays
        images, records = len(arrays["path_end"]), len(arrays["sample"])
        limits = {"digest_order": images, "sample": images, "shard": len(self.meta["tars"])}
        limits |= {name: records for name in arrays if name.startswith(("split/", "trial/"))}
        sizes = dict.fromkeys(("shard", "offset", "size", "digest", "digest_order"), images)
        sizes |= dict.fromkeys(("person", "camera", "modality", "box"), records)
        wrong = [name for name, size in sizes.items() if len(arrays[name]) != size]
        wrong += [name for name, limit in limits.items() if not _within(arrays[name], limit)]
        wanted = [f"split/{split}" for split in self.meta["splits"]]
        for mode, trials in self.meta["modes"].items():
            wanted += [f"trial/{mode}/{n}/{side}" for n in range(len(trials)) for side in ("query", "gallery")]
        wrong += [name for name in wanted if name not in arrays]
        ends = arrays["path_end"]
        if not _within(ends, len(arrays["paths"]) + 1) or bool((np.diff(ends) < 0).any()):
            wrong.append("path_end")
        if not set(np.unique(arrays["modality"]).tolist()) <= set(map(int, Modality)):
            wrong.append("modality")
        if len(self.meta["tars"]) != len(self.meta["sizes"]):
            wrong.append("sizes")
        if not wrong:
            ends = np.array(self.meta["sizes"], dtype=np.float64)[arrays["shard"]]  # floats do not run over
            for name in ("offset", "size"):
                if bool(((arrays[name] < 0) | (arrays[name] > ends)).any()):
                    wrong.append(name)
        if wrong:
            raise DataError(f"{path} contradicts itself in {wrong[0]}; {_REMEDY}")

    def records(self, split: str) -> Sequence[Record]:
        """Records of a split, in packing order."""
        return CompactRecords(self.iterate(split))

    def iterate(self, split: str) -> Iterator[Record]:
        """Records of a split one by one, so that millions of them need not be held."""
        if f"split/{split}" not in self._arrays:
            raise DataError(f"{self.root / INDEX} has no split {split!r}; {_REMEDY}")
        chosen = self._arrays[f"split/{split}"]
        for start in range(0, len(chosen), _BLOCK):
            yield from self._records(chosen[start : start + _BLOCK])

    def _records(self, chosen: NDArray[np.int64]) -> list[Record]:
        columns = self._arrays
        boxes = columns["box"][chosen].tolist()
        rows = zip(
            columns["sample"][chosen].tolist(),
            columns["person"][chosen].tolist(),
            columns["camera"][chosen].tolist(),
            columns["modality"][chosen].tolist(),
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
            stored = trial["protocol"]
            with wall(self.root / INDEX, _REMEDY):
                groups = {int(key): value for key, value in stored["camera_groups"].items()}
            rules = Protocol(
                stored["name"],
                stored["same_person_same_camera"],
                groups,
                tuple(stored["junk_persons"]),
                stored["unique_identity_cmc"],
            )
            name, drawn, cause = trial["name"], trial["drawn"], trial["cause"]
            trials.append(Trial(name, mode, query, gallery, rules, trial["comparable"], drawn, cause))
        return trials

    def shard_numbers(self, split: str) -> list[int]:
        """Tar number of each record of a split."""
        shards: list[int] = self._arrays["shard"][self._arrays["sample"][self._arrays[f"split/{split}"]]].tolist()
        return shards

    def read(self, path: str) -> bytes:
        """Bytes of the image with this path.

        Raises:
            DataError: no such image, or the tar ends before it does.
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

    def __getstate__(self) -> dict[str, object]:
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
        with wall(self.root / INDEX, _REMEDY):
            return bytes(self._arrays["paths"][first:last].tobytes()).decode()


def write_index(
    root: Path,
    splits: Mapping[str, Sequence[Record]],
    trials: Mapping[str, Sequence[Trial]],
    title: str,
    licence: str = "",
    choices: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Write ``index.npz`` for the tars of ``root``; ``choices`` are the optional keys of its ``meta``.

    Raises:
        DataError: a record's image is not in the tars.
    """
    names, samples = _scan(root)
    number_of = {path: number for number, (path, *_) in enumerate(samples)}
    tested = (side for of_mode in trials.values() for trial in of_mode for side in (trial.query, trial.gallery))
    records = list(dict.fromkeys(itertools.chain(*splits.values(), *tested)))
    place = {record: number for number, record in enumerate(records)}
    absent = [record.path for record in records if record.path not in number_of]
    if absent:
        raise DataError(f"{len(absent)} images are not in the tars under {root}, first {absent[0]}")
    digests = np.array([_digest(path) for path, *_ in samples], dtype=np.uint64)
    order = np.argsort(digests, kind="stable")
    if len(np.unique(digests)) < len(digests):
        raise DataError(f"two images under {root} have the same path")
    encoded = [path.encode() for path, *_ in samples]
    arrays: JsonObject = {
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
    modes: dict[str, list[JsonObject]] = {}
    for mode, of_mode in trials.items():
        modes[mode] = []
        for number, trial in enumerate(of_mode):
            for side, members in (("query", trial.query), ("gallery", trial.gallery)):
                arrays[f"trial/{mode}/{number}/{side}"] = np.array([place[record] for record in members])
            protocol = {**asdict(trial.protocol), "camera_groups": dict(trial.protocol.camera_groups)}
            described = {key: getattr(trial, key) for key in ("name", "comparable", "drawn", "cause")}
            modes[mode].append({**described, "protocol": protocol})
    meta = {
        "version": _VERSION,
        "title": title,
        "licence": licence,
        "splits": list(splits),
        "modes": modes,
        "tars": names,
        "sizes": [(root / name).stat().st_size for name in names],
        **choices,
    }
    arrays["meta"] = np.array(json.dumps(meta))
    with atomic_path(root / INDEX) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)


def _scan(root: Path) -> tuple[list[str], list[tuple[str, int, int, int]]]:
    """Names of the tars, and of each image path, tar number, offset and size."""
    names = sorted(path.name for path in root.glob("*.tar"))
    if not names:
        raise DataError(f"packed shards not found under {root}: expected *.tar. See docs/reference/datasets.md.")
    samples = []
    for shard, name in enumerate(names):
        try:
            samples += [(path, shard, offset, size) for path, offset, size in _members(root / name)]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{root / name} is damaged ({error})") from error
    return names, samples


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Path, offset and size of each image of a tar; the path is that of the sample's JSON, else the member's name."""
    waiting: tuple[str, int, int] | None = None
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            name = member.name.removeprefix("./")
            stem, suffix = _split_suffix(name)
            if is_image(name):
                if waiting is not None:
                    yield waiting
                waiting = name, member.offset_data, member.size
            elif suffix == ".json" and waiting is not None and _split_suffix(waiting[0])[0] == stem:
                yield _named(archive, member, waiting)
                waiting = None
    if waiting is not None:
        yield waiting


def _split_suffix(name: str) -> tuple[str, str]:
    """``a.b/c.jpg`` -> ``a.b/c``, ``.jpg``."""
    suffix = Path(name).suffix
    return name.removesuffix(suffix), suffix


def _named(archive: tarfile.TarFile, member: tarfile.TarInfo, image: tuple[str, int, int]) -> tuple[str, int, int]:
    stream = archive.extractfile(member)
    try:
        described = parse_json(stream.read(), member.name) if stream is not None else {}
    except DataError:
        return image
    path = described.get("path") if isinstance(described, dict) else None
    return (path, *image[1:]) if isinstance(path, str) else image


def _index_foreign(root: Path) -> None:
    """Index tars of another program: every image is visible and nobody is known."""
    _, samples = _scan(root)
    write_index(root, {"all": [Record(path, UNKNOWN) for path, *_ in samples]}, {}, root.name)


def _digest(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
