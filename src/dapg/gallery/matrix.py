"""Exact search: the features of a gallery as one matrix of half precision in a memory-mapped file.

The file is a cache that is read from the database and extended as that grows; a deletion begins a new epoch, with new
files. It names the audit's last entry: a database without that entry is another one, such as a backup that was put
back, and has the file made anew. Blocks of rows are cast to single precision, multiplied and summed there: no score is
approximated, and a query reads half the bytes that single precision takes (measured: benchmarks/gallery_search.py).
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor

from dapg.core.errors import DapgError
from dapg.core.files import atomic_write_text, folder_lock

Table = Shaped[np.ndarray, "_"]
"""Of one of the two structured types below, or one field of it."""
ROW = np.dtype([("picture", "i8"), ("camera", "i8"), ("track", "i8"), ("time", "f8"), ("modality", "i1")])
"""What filters and answers need to know about a row; an image without a track is one of its own, ``-picture``."""
HIT = np.dtype([*ROW.descr, ("score", "f4")])
_BLOCK = 512
"""Rows cast at once: 1 MB of single precision at 512 numbers a row, which stays in the processor's cache."""
_READ = 20_000
"""Rows read from the database at once."""

ReadRows = Callable[[int, int, int], tuple[Table, bytes, int]]
"""(model, last feature, limit) -> labels, bytes of the features, number of the last of them."""


@dataclass(frozen=True)
class Rows:
    """Labels and features of the first rows, as they were at one moment; threads may search while the matrix grows."""

    labels: dict[str, Table]
    """Field of ``ROW`` -> (N,)."""
    features: Float16[Tensor, "N D"]

    def nearest(self, queries: Float32[np.ndarray, "Q D"], chosen: NDArray[np.bool_] | None, count: int) -> list[Table]:
        """For each query the rows (``HIT``) with the largest products, largest first, equal ones by image.

        Args:
            queries: unit features.
            chosen: which rows take part; None: all.
            count: at most so many answers.
        """
        numbers = None if chosen is None else np.flatnonzero(chosen)
        scores = self._products(torch.from_numpy(queries).half().float(), numbers)
        return [self._first(line.numpy(), numbers, count) for line in scores]

    def _products(self, queries: Float[Tensor, "Q D"], numbers: NDArray[np.int64] | None) -> Float[Tensor, "Q M"]:
        total = len(self.features) if numbers is None else len(numbers)
        scores = torch.empty(len(queries), total)
        block = torch.empty(_BLOCK, queries.shape[1])
        for start in range(0, total, _BLOCK):
            end = min(start + _BLOCK, total)
            if numbers is None:
                part = block[: end - start].copy_(self.features[start:end])
            else:
                chosen = torch.from_numpy(numbers[start:end])
                part = block[: end - start].copy_(self.features.index_select(0, chosen))
            if len(queries) == 1:
                torch.mv(part, queries[0], out=scores[0, start:end])
            else:
                scores[:, start:end] = queries @ part.T
        return scores

    def _first(self, scores: NDArray[np.float32], numbers: NDArray[np.int64] | None, count: int) -> Table:
        if count < len(scores):
            least = np.partition(scores, len(scores) - count)[len(scores) - count]
            places = np.flatnonzero(scores >= least)  # with all equal ones, of which the order decides
        else:
            places = np.arange(len(scores))
        rows = places if numbers is None else numbers[places]
        order = np.lexsort((self.labels["picture"][rows], -scores[places]))[:count]
        hits = np.empty(len(order), HIT)
        for name, values in self.labels.items():
            hits[name] = values[rows[order]]
        hits["score"] = scores[places[order]]
        return hits


class Matrix:
    """The features of one model in the order in which the database took them in."""

    def __init__(self, folder: Path, model: int, epoch: int, width: int) -> None:
        self.folder, self.model, self.epoch, self.width = folder, model, epoch, width
        self._last = 0
        self.rows = Rows(_columns(np.empty(0, ROW)), torch.empty(0, width, dtype=torch.float16))

    def extend(self, read: ReadRows, value: Callable[..., Any]) -> None:
        """Take in what the database has gained, from the files where another process took it in already.

        ``value`` is the database's own.
        """
        labels, data, last = read(self.model, self._last, _READ)
        if not len(labels):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder, patience=600.0):
            count, known = self._state(value)
            if known != self._last:  # another process was here, or the files are gone or of another database
                labels, data, last = read(self.model, known, _READ)
            with (
                self._open("rows", count * ROW.itemsize) as rows,
                self._open("f16", count * 2 * self.width) as features,
            ):
                while len(labels):
                    rows.write(labels.tobytes())
                    features.write(data)
                    count, known = count + len(labels), last
                    labels, data, last = read(self.model, known, _READ)
                for handle in (rows, features):
                    handle.flush()
                    os.fsync(handle.fileno())
            audit = value("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")  # read last: no row is younger than it
            atomic_write_text(self._path("json"), json.dumps({"rows": count, "last": known, "audit": audit}))
            self.rows, self._last = self._map(count), known

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.epoch}-{self.model}.{suffix}"

    def _state(self, value: Callable[..., Any]) -> tuple[int, int]:
        """(rows, number of the last feature) that the files are known to hold of this database."""
        try:
            state = json.loads(self._path("json").read_text())
            count, last = int(state["rows"]), int(state["last"])
            whole = value("SELECT 1 FROM audit WHERE hash = ?", state["audit"])
            whole = whole and self._path("rows").stat().st_size >= count * ROW.itemsize
            return (count, last) if whole and self._path("f16").stat().st_size >= count * 2 * self.width else (0, 0)
        except (OSError, ValueError, KeyError):
            return 0, 0

    def _open(self, suffix: str, size: int) -> BinaryIO:
        path = self._path(suffix)
        if not size:  # others may still search the old file
            path.unlink(missing_ok=True)
        path.touch()
        handle = path.open("r+b")
        handle.truncate(size)  # without what a killed process began to add
        handle.seek(size)
        return handle

    def _map(self, count: int) -> Rows:
        try:
            # Private pages, which are never written: torch wants an array that it may write to.
            features = np.memmap(self._path("f16"), "<f2", "c", shape=(count, self.width))
            return Rows(_columns(np.fromfile(self._path("rows"), ROW, count)), torch.from_numpy(features))
        except (OSError, ValueError) as error:
            raise DapgError(
                f"{self._path('f16')}: {error}; delete the folder {self.folder}, it is made anew"
            ) from error

    @staticmethod
    def remove_old(folder: Path, epoch: int) -> None:
        """Delete the files of all other epochs."""
        for path in folder.glob("[0-9]*-*.*"):
            if path.name.partition("-")[0] != str(epoch):
                path.unlink(missing_ok=True)


def _columns(labels: Table) -> dict[str, Table]:
    """Each field in one piece: comparing all rows of one then reads no other."""
    return {name: np.ascontiguousarray(labels[name]) for name in ROW.names or ()}
