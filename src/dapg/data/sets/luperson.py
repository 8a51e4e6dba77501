"""LUPerson (Fu et al., CVPR 2021) and LUPerson-NL (CVPR 2022): millions of crops of street videos, for pre-training.

Formats: docs/reference/datasets.md. Read from DengpanFu/LUPerson (``LUP/*``, ``lup_moco/libs/dataset.py``) and
DengpanFu/LUPerson-NL.
"""

import io
import os
import pickle
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dapg.core.errors import DataError, UsageError
from dapg.core.types import UNKNOWN, Record
from dapg.data.base import Dataset, example_image
from dapg.data.compact import CompactRecords
from dapg.data.shards.pack import write_tars
from dapg.data.shards.tar_store import INDEX, TarStore, write_index
from dapg.data.verify import Finding

PUBLISHED = {"LUPerson": 4_180_243, "LUPerson-NL": 10_683_716}
_NOISY_KEY = re.compile(r"(\d{5})_(\d{6})_\d{7}_\d{2}")
"""LUPerson-NL: video, noisy person, frame, object. LUPerson's keys are country_city_video_image and name nobody."""
_SAFE_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What a list of keys and numbers may need beside plain containers."""


class LUPerson(Dataset):
    """``lmdb/`` and ``keys.pkl`` as the authors share them, or tars.

    ``keys.pkl`` is a list of keys, or a dictionary with ``keys`` and optionally ``pids`` and ``vids``; it is read by an
    unpickler that builds nothing but containers, text and numbers. Without it the keys of the LMDB are listed. Persons
    come from ``pids``, else from LUPerson-NL's keys; cameras from ``vids``, else from those keys (the video).

    For a part of the set use ``--data.subset N``.
    """

    title = "LUPerson"
    licence = "research use only; images of people on public video"
    access = "ask the authors: https://github.com/DengpanFu/LUPerson and https://github.com/DengpanFu/LUPerson-NL"
    published_persons = True
    splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require()
        self._store: TarStore | None = None
        self._lmdb = next((path for path in (self.root / "lmdb", self.root) if (path / "data.mdb").is_file()), None)
        if self._lmdb is None:
            if not (self.root / INDEX).is_file() and not any(self.root.glob("*.tar")):
                raise DataError(
                    f"{self.title} not found under {self.root}: expected lmdb/data.mdb or *.tar. "
                    "See docs/reference/datasets.md."
                )
            self._store = TarStore(self.root)

    def records(self, split: str = "all") -> Sequence[Record]:
        """One record a key, in the order of ``keys.pkl``; kept as arrays, because there are millions."""
        self.check_split(split)
        if self._store is not None:
            stored = self._store.iterate("all")
            return CompactRecords(_labelled(record.path, record.person, record.camera) for record in stored)
        return CompactRecords(_labelled(*row) for row in zip(*self._keys(), strict=True))

    def read(self, record: Record) -> bytes:
        """The JPEG bytes stored under the record's key."""
        if self._store is not None:
            return self._store.read(record.path)
        with self._open().begin(buffers=False) as transaction:
            data = transaction.get(record.path.encode())
        if data is None:
            raise DataError(f"{record.path} is in keys.pkl but not in {self._lmdb}")
        return bytes(data)

    def audit(self) -> Iterator[Finding]:
        """Compare the number of keys with the published ones and with the LMDB. A part of the set is only a note."""
        count = len(self.records("all"))
        if count not in PUBLISHED.values():
            known = ", ".join(f"{number:,} ({name})" for name, number in PUBLISHED.items())
            yield Finding("count", ".", f"{count:,} images; published are {known}", error=False)
        if self._store is None:
            stored = int(self._open().stat()["entries"])
            if stored < count:
                yield Finding("missing", "lmdb", f"{stored:,} entries for {count:,} keys")

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """There is one split."""
        return ()

    def _open(self) -> Any:
        return _environment(str(self._lmdb))

    def _keys(self) -> tuple[Sequence[str], Sequence[int], Sequence[int]]:
        """Keys, persons and videos; the latter two UNKNOWN where the list does not say."""
        path = next(
            (place / "keys.pkl" for place in (self.root, self.root / "lmdb") if (place / "keys.pkl").is_file()), None
        )
        if path is None:
            with self._open().begin() as transaction, transaction.cursor() as cursor:
                stored = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
            # ``__keys__`` and ``__len__`` are notes that some writers of LMDBs leave beside the images.
            keys = [_key(key, self._lmdb) for key in stored if not (key.startswith(b"__") and key.endswith(b"__"))]
            return keys, [UNKNOWN] * len(keys), [UNKNOWN] * len(keys)
        content = _load_plain(path)
        table: Mapping[str, Any] = content if isinstance(content, dict) else {"keys": content}
        entries = table.get("keys")
        if not isinstance(entries, list | tuple | np.ndarray):
            raise DataError(f"{path}: expected a list of keys, or a dictionary with 'keys'")
        keys = [_key(key, path) for key in entries]
        columns = []
        for name in ("pids", "vids"):
            given = table.get(name)
            values = [UNKNOWN] * len(keys) if given is None else _numbers(given, f"{path}, {name}")
            if len(values) != len(keys):
                raise DataError(f"{path}: {len(values)} {name} for {len(keys)} keys")
            columns.append(values)
        return keys, columns[0], columns[1]

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Keys of LUPerson-NL, packed into a tar by ``write_example``."""
        return {
            f"{video:05d}_{person:06d}_{20:07d}_00.jpg": None for video, person in ((1, 0), (1, 1), (2, 2), (2, 2 + 1))
        }

    @classmethod
    def write_example(cls, root: Path | str) -> None:
        """One tar; an LMDB would need the package lmdb."""
        names = list(cls.example_layout())
        write_tars(Path(root), names, example_image, per_shard=100)
        write_index(Path(root), {"all": [Record(name) for name in names]}, {}, cls.title)


def _key(key: object, where: object) -> str:
    """A key as text.

    Raises:
        DataError: it is neither text nor UTF-8 bytes.
    """
    try:
        text = key.decode() if isinstance(key, bytes) else key
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the key {key!r} is not UTF-8") from error
    if not isinstance(text, str):
        raise DataError(f"{where}: a key must be text, not {key!r}")
    return text


def _numbers(values: object, where: str) -> list[int]:
    """Persons or videos as whole numbers: None is unknown, names are numbered in the order of their first use.

    Raises:
        DataError: names the entry that is neither, or does not fit 31 bits.
    """
    if not isinstance(values, list | tuple | np.ndarray):
        raise DataError(f"{where}: expected a list, not {type(values).__name__}")
    names: dict[str, int] = {}
    numbers = []
    for place, value in enumerate(values):
        if isinstance(value, str):
            numbers.append(names.setdefault(value, len(names)))
        elif value is None or value != value:  # NaN
            numbers.append(UNKNOWN)
        elif not isinstance(value, int | float | np.number) or int(value) != value:
            raise DataError(f"{where}, entry {place}: {value!r} is neither a whole number nor a name")
        elif not -1 <= int(value) < 2**31:
            raise DataError(f"{where}, entry {place}: {value} does not fit 31 bits; number them from 0")
        else:
            numbers.append(int(value))
    return numbers


_OPENING = threading.Lock()
_OPEN: dict[str, tuple[int, Any]] = {}
"""Path -> process and environment: LMDB allows one environment of a path in a process."""


def _environment(path: str) -> Any:
    """The open LMDB of a path, this process's own: one that came along with a fork is closed first.

    Raises:
        UsageError: the package lmdb is not installed.
        DataError: not an LMDB.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UsageError("reading an LMDB needs the package lmdb: pip install dapg[lmdb]") from error
    with _OPENING:
        process, environment = _OPEN.get(path, (0, None))
        if process == os.getpid():
            return environment
        try:
            if environment is not None:
                environment.close()
            environment = lmdb.open(path, readonly=True, lock=False, readahead=False)
            used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        except lmdb.Error as error:
            raise DataError(f"{path} is not an LMDB that can be read ({error})") from error
        size = (Path(path) / "data.mdb").stat().st_size
        if size < used:  # reading beyond the end of a mapped file would kill the process
            environment.close()
            raise DataError(f"{path}/data.mdb is cut off: {size:,} of at least {used:,} bytes; copy it again")
        _OPEN[path] = os.getpid(), environment
        return environment


def _labelled(key: str, person: int, video: int) -> Record:
    match = _NOISY_KEY.match(key)
    if match is None:
        return Record(key, person, video)
    return Record(key, int(match[2]) if person == UNKNOWN else person, int(match[1]) if video == UNKNOWN else video)


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text, numbers and arrays of them; anything else in a pickle could run a program."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _load_plain(path: Path) -> Any:
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises whatever its opcodes meet
        raise DataError(f"{path} is not a plain list of keys ({' '.join(str(error).split())})") from error
