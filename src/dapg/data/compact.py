"""Shared by sets of millions of images: a list of records kept as a few arrays instead of Python objects."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DataError
from dapg.core.types import Modality, Record

_BLOCK = 65_536
_NO_BOX = (-1, -1, -1, -1)


class CompactRecords(Sequence[Record]):
    """Records that are built when they are asked for; read-only, otherwise like a list of them.

    A record takes its path and 17 bytes (33 where some record has a box). A loader worker that reads it does not copy
    the memory that it shares with its parent, as touching Python objects does.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        """Take the records over, block by block.

        Raises:
            DataError: a number of a record is beyond 32 bits.
        """
        source = iter(records)
        blobs: list[bytes] = []
        columns: list[tuple[NDArray[np.generic], ...]] = []
        boxes: list[NDArray[np.int32]] = []
        while block := list(islice(source, _BLOCK)):
            encoded = [record.path.encode() for record in block]
            blobs.append(b"".join(encoded))
            try:
                columns.append(
                    (
                        np.array([len(path) for path in encoded], dtype=np.int64),
                        np.array([record.person for record in block], dtype=np.int32),
                        np.array([record.camera for record in block], dtype=np.int32),
                        np.array([record.modality for record in block], dtype=np.int8),
                    )
                )
                boxes.append(np.array([record.box or _NO_BOX for record in block], dtype=np.int32))
            except OverflowError as error:
                raise DataError(
                    f"a person, camera or box is beyond 32 bits ({error}); mend or rebuild the list"
                ) from error
        kinds = (np.int64, np.int32, np.int32, np.int8)
        empty = [tuple(np.zeros(0, kind) for kind in kinds)]
        lengths, *labels = (np.concatenate(column) for column in zip(*(columns or empty), strict=True))
        self._paths = b"".join(blobs)
        self._ends: NDArray[np.int64] = np.cumsum(lengths)
        self._labels: list[NDArray[np.generic]] = labels
        """Persons, cameras, modalities."""
        whole = np.concatenate(boxes) if boxes else np.zeros((0, 4), np.int32)
        self._boxes: NDArray[np.int32] | None = whole if bool((whole[:, 0] >= 0).any()) else None

    def __len__(self) -> int:
        """Number of records."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """One record, or a list of some."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return next(self._block(place, place + 1))

    def __iter__(self) -> Iterator[Record]:
        """All records in order."""
        for start in range(0, len(self), _BLOCK):
            yield from self._block(start, min(start + _BLOCK, len(self)))

    def __eq__(self, other: object) -> bool:
        """Equal to any list or sequence of equal records."""
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # like a list

    def _block(self, start: int, stop: int) -> Iterator[Record]:
        first = int(self._ends[start - 1]) if start else 0
        labels = (column[start:stop].tolist() for column in self._labels)
        boxes = [_NO_BOX] * (stop - start) if self._boxes is None else self._boxes[start:stop].tolist()
        for end, person, camera, modality, box in zip(self._ends[start:stop].tolist(), *labels, boxes, strict=True):
            path = self._paths[first:end].decode()
            yield Record(path, person, camera, Modality(modality), None if box[0] < 0 else tuple(box))
            first = end
