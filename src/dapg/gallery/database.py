"""What a gallery asks of its database, and SQLite, the one truth of a gallery on one machine.

Statements are written once, with ``?`` for values; the other database (``postgres.py``) translates them.
"""

import contextlib
import errno
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import BusyError, DapgError, UsageError
from dapg.core.files import write_failure
from dapg.core.types import Modality
from dapg.gallery.matrix import ROW, Matrix, Rows, Table
from dapg.gallery.schema import MIGRATIONS

Row = tuple[Any, ...]
Value = str | int | float | bytes | list[int] | None
FILE = "gallery.sqlite"
CACHE = "cache"
INCOMING, UPLOAD, OWNER = "incoming", "upload-", 1
"""Folders of images that are taken in, and the rank of their user's lock: a deletion removes those without one."""
_SAFE = ("secure_delete = ON", "foreign_keys = ON")
_PAGE = 16_384
"""Bytes: a feature of up to 8,000 numbers lies on one page, in one piece, so that what is left of it can be found."""


@dataclass(frozen=True)
class Filters:
    """Which images of the gallery are searched."""

    camera: tuple[str, ...] = ()
    """Names of cameras; empty: all."""
    after: float | None = None
    """Seconds since 1970 (of videos without a start: since their beginning); images without a time are left out."""
    before: float | None = None
    """Likewise; the moment itself is left out."""
    modality: Modality | None = None
    """One kind of light; None: both."""


class Database(ABC):
    """Statements, transactions, and the two questions of a search. Safe to share between threads."""

    words: dict[str, str]
    """What the braces of the schema stand for."""
    begin = "BEGIN"
    append_only: str
    """What makes the table ``audit`` refuse changes, after the first migration."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Value]) -> tuple[list[Row], int]:
        """Run one statement on the connection: the rows that it returns, and how many it changed."""

    @abstractmethod
    def _run_many(self, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run one statement for each row of values."""

    @abstractmethod
    def _script(self, statements: str) -> None:
        """Run statements without values, within the transaction."""

    @abstractmethod
    def close(self) -> None:
        """Let the connection go."""

    @abstractmethod
    def vector(self, feature: NDArray[np.float16]) -> Value:
        """A feature as the database stores it."""

    @abstractmethod
    def feature(self, stored: object) -> NDArray[np.float16]:
        """A stored feature."""

    @abstractmethod
    def nearest(self, model: int, query: NDArray[np.float32], filters: Filters, count: int) -> Table:
        """The ``count`` images (dtype ``HIT``) with the largest inner products, largest first, equal ones by image.

        Products are of half-precision features, summed in single precision.
        """

    @abstractmethod
    def of_tracks(self, model: int, query: NDArray[np.float32], filters: Filters, tracks: Sequence[int]) -> Table:
        """All images of these tracks that pass the filters, in the same order."""

    @abstractmethod
    def forget(self) -> None:
        """After a committed deletion: remove what the database and its caches still hold of it."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Every file whose bytes can be searched for what must be gone."""

    @abstractmethod
    def problems(self) -> list[str]:
        """What the database itself says about its own integrity."""

    @abstractmethod
    def backup(self, folder: Path) -> None:
        """Write a consistent copy."""

    def query(self, statement: str, *values: Value) -> list[Row]:
        """Rows of a statement that reads, or that changes and returns."""
        with self._lock:
            return self._run(statement, values)[0]

    def execute(self, statement: str, *values: Value) -> int:
        """Run a statement; how many rows it changed."""
        with self._lock:
            return self._run(statement, values)[1]

    def many(self, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run a statement for each row of values."""
        with self._lock:
            self._run_many(statement, rows)

    def value(self, statement: str, *values: Value) -> Any:
        """The first column of the first row; None where there is none."""
        rows = self.query(statement, *values)
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one writer at a time. A transaction inside another joins it."""
        with self._lock:
            if self._depth == 0:
                self._run(self.begin, ())
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._run("COMMIT", ())
            except BaseException:
                if self._depth == 1:
                    with contextlib.suppress(DapgError):  # a full disk has SQLite roll back by itself
                        self._run("ROLLBACK", ())
                raise
            finally:
                self._depth -= 1

    def migrate(self) -> None:
        """Bring the tables up to the newest number.

        Raises:
            UsageError: they are newer than this program.
        """
        with self.transaction():
            self._script("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY);")
            done = int(self.value("SELECT COALESCE(MAX(number), 0) FROM migrations"))
            if done > len(MIGRATIONS):
                raise UsageError(f"the gallery has tables of version {done}; this dapg knows {len(MIGRATIONS)}: update")
            for number, statements in enumerate(MIGRATIONS[done:], done + 1):
                self._script(statements.format(**self.words))
                if number == 1:
                    self._script(self.append_only)
                self.execute("INSERT INTO migrations VALUES (?)", number)

    def count(self, key: str, step: int = 0) -> int:
        """A counter of the table ``meta`` after ``step``; within a transaction a step is also the lock of writers."""
        if step:
            self.execute("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + ? AS TEXT) WHERE key = ?", step, key)
        return int(self.value("SELECT value FROM meta WHERE key = ?", key))


class SqliteDatabase(Database):
    """One file, WAL, durable commits, freed pages overwritten; searches by a matrix in ``cache/``."""

    words = {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT", "int": "INTEGER", "real": "REAL", "blob": "BLOB", "vector": "BLOB",
    }  # fmt: skip
    begin = "BEGIN IMMEDIATE"
    append_only = """
        CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
        CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
    """

    def __init__(self, folder: Path, patience: float = 60.0) -> None:
        super().__init__()
        self.folder, self.path = folder, folder / FILE
        self._matrix: Matrix | None = None
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=patience, isolation_level=None, check_same_thread=False
            )
            for pragma in (f"page_size = {_PAGE}", "journal_mode = WAL", "synchronous = FULL", *_SAFE):
                self._connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise DapgError(f"{self.path}: {error}") from error

    def _run(self, statement: str, values: Sequence[Value]) -> tuple[list[Row], int]:
        with self._errors():
            cursor = self._connection.execute(statement, values)
            return cursor.fetchall(), cursor.rowcount

    def _run_many(self, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        with self._errors():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _errors(self, written: Path | None = None) -> Iterator[None]:
        path = written or self.path
        try:
            yield
        except sqlite3.OperationalError as error:
            if "disk is full" in str(error):
                raise write_failure(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
            kind = BusyError if "locked" in str(error) else DapgError
            raise kind(f"{path}: {error}") from error
        except sqlite3.Error as error:
            raise DapgError(f"{path}: {error}") from error

    def _script(self, statements: str) -> None:
        """``executescript`` would commit first."""
        part = ""
        for line in statements.splitlines():
            part += line + "\n"
            if sqlite3.complete_statement(part):
                self._run(part, ())
                part = ""

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            self._connection.close()

    def vector(self, feature: NDArray[np.float16]) -> Value:
        """Its bytes, little-endian."""
        return feature.astype("<f2").tobytes()

    def feature(self, stored: object) -> NDArray[np.float16]:
        """From its bytes."""
        assert isinstance(stored, bytes)
        return np.frombuffer(stored, "<f2")

    def rows(self, model: int) -> Rows:
        """The features of a model, memory-mapped, as new as the database."""
        with self._lock:
            epoch = self.count("epoch")
            if self._matrix is None or (self._matrix.model, self._matrix.epoch) != (model, epoch):
                width = int(self.value("SELECT width FROM models WHERE id = ?", model))
                self._matrix = Matrix(self.folder / CACHE, model, epoch, width)
            self._matrix.extend(self._rows_after, self.value)
            return self._matrix.rows

    def _rows_after(self, model: int, last: int, limit: int) -> tuple[Table, bytes, int]:
        """Up to ``limit`` rows after feature ``last``: labels (``ROW``), the bytes of all features, the new last."""
        rows = self.query(
            "SELECT f.id, p.id, p.camera, COALESCE(p.track, -p.id), p.time, p.modality, f.vector FROM features f "
            "JOIN pictures p ON p.id = f.picture WHERE f.model = ? AND f.id > ? ORDER BY f.id LIMIT ?",
            model, last, limit,
        )  # fmt: skip
        labels = np.array([(p, c, t, np.nan if time is None else time, m) for _, p, c, t, time, m, _ in rows], ROW)
        return labels, b"".join(row[-1] for row in rows), rows[-1][0] if rows else last

    def nearest(self, model: int, query: NDArray[np.float32], filters: Filters, count: int) -> Table:
        """By the matrix: filters first, then products of what is left."""
        rows = self.rows(model)
        return rows.nearest(query[None], self.passing(rows, filters), count)[0]

    def of_tracks(self, model: int, query: NDArray[np.float32], filters: Filters, tracks: Sequence[int]) -> Table:
        """By the matrix."""
        rows = self.rows(model)
        chosen = np.isin(rows.labels["track"], list(tracks))
        passing = self.passing(rows, filters)
        chosen = chosen if passing is None else chosen & passing
        return rows.nearest(query[None], chosen, int(chosen.sum()))[0]

    def passing(self, rows: Rows, filters: Filters) -> NDArray[np.bool_] | None:
        """Which rows pass the filters; None: all."""
        if filters == Filters():
            return None
        labels = rows.labels
        chosen = np.ones(len(rows.features), dtype=np.bool_)
        if filters.camera:
            numbers = camera_numbers(self, filters.camera)
            chosen &= np.logical_or.reduce([labels["camera"] == number for number in numbers])
        if filters.after is not None:
            chosen &= labels["time"] >= filters.after
        if filters.before is not None:
            chosen &= labels["time"] < filters.before
        if filters.modality is not None:
            chosen &= labels["modality"] == int(filters.modality)
        return chosen

    def forget(self) -> None:
        """Remove the matrices of earlier epochs, and cut the write-ahead log to nothing.

        Raises:
            BusyError: another process reads an old state and does not end.
        """
        with self._lock:
            Matrix.remove_old(self.folder / CACHE, self.count("epoch"))
            if self._matrix is not None and self._matrix.epoch != self.count("epoch"):
                self._matrix = None
            (busy, _, _), *_ = self.query("PRAGMA wal_checkpoint(TRUNCATE)")
            if busy:
                raise BusyError(f"{self.path}: another process holds an old state open; run dapg gallery check later")

    def files(self) -> list[Path]:
        """Everything in the gallery's folder."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def problems(self) -> list[str]:
        """SQLite's own checks: structure, and references between tables."""
        lost = [
            f"{row[0]}, row {row[1]}: refers to a missing {row[2]}" for row in self.query("PRAGMA foreign_key_check")
        ]
        return [row[0] for row in self.query("PRAGMA integrity_check") if row[0] != "ok"] + lost

    def backup(self, folder: Path) -> None:
        """By SQLite's online backup: others may write meanwhile."""
        file = folder / FILE
        with self._lock, self._errors(file), contextlib.closing(sqlite3.connect(file)) as copy:
            self._connection.backup(copy)


def camera_numbers(database: Database, names: Sequence[str]) -> list[int]:
    """Numbers of cameras by name.

    Raises:
        UsageError: a name that the gallery does not have.
    """
    known: dict[str, int] = dict(database.query("SELECT name, id FROM cameras"))
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = ", ".join(sorted(known)[:20]) or "none"
        raise UsageError(f"the gallery has no camera {unknown[0]!r}; it has {listed}")
    return [known[name] for name in names]
