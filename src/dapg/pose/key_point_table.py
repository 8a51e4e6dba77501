"""The key-point table: one compressed NumPy file (``key_points.npz``) with the key points of every image of a set.

Arrays, readable by ``numpy.load`` without pickle: ``paths`` (N, UTF-8 bytes), ``boxes`` (N, 4; left, top, right, bottom
in pixels, -1 where the record is the whole image), ``key_points`` (N, 18, 3 float32; see ``core/key_points.py``),
``names`` (the 18 names in order) and ``about`` (JSON: estimator, its settings, data).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.core.errors import DataError
from dapg.core.files import atomic_path
from dapg.core.key_points import KEY_POINT_NAMES, usable
from dapg.core.schema import Array, checked, parse_json, read_arrays, wall
from dapg.core.types import JsonObject, Record

TABLE = "key_points.npz"

Box = tuple[int, int, int, int]
_WHOLE = (-1, -1, -1, -1)


@dataclass(frozen=True)
class KeyPointTable:
    """Key points of N images. ``keys`` are (path, box) as in the images' records."""

    keys: tuple[tuple[str, Box | None], ...]
    points: Float[Tensor, "N 18 3"]
    about: JsonObject = field(default_factory=dict)
    """Who made it: ``estimator``, ``settings``, ``data``."""

    def __post_init__(self) -> None:
        """Refuse a table that contradicts itself.

        Raises:
            DataError: another number of keys than of points, an image twice, or values that are no key points.
        """
        if len(self.keys) != len(self.points):
            raise DataError(f"key points: {len(self.keys)} images, but {len(self.points)} rows of points")
        if len(set(self.keys)) < len(self.keys):
            raise DataError("key points: an image stands in the table twice")
        confidence = self.points[..., 2]
        if not bool(self.points.isfinite().all()) or not bool(((confidence >= 0) & (confidence <= 1)).all()):
            raise DataError("key points: positions must be finite and confidences lie in 0 ... 1")

    def of(self, records: Sequence[Record]) -> Float[Tensor, "n 18 3"]:
        """Key points of these images, in their order.

        Raises:
            DataError: an image that the table does not know.
        """
        rows = {key: row for row, key in enumerate(self.keys)}
        missing = [record.path for record in records if (record.path, record.box) not in rows]
        if missing:
            raise DataError(
                f"key points: {len(missing)} of {len(records)} images are not in the table, e.g. {missing[0]}; "
                "run dapg pose estimate on this data"
            )
        return self.points[[rows[record.path, record.box] for record in records]]

    def usable(self) -> Bool[Tensor, "N"]:
        """Which images show enough of a person (``core/key_points.py: usable``)."""
        return usable(self.points)


_REMEDY = "it is no table of key points, or was damaged: run dapg pose estimate again"
_ARRAYS = {
    "paths": Array("S", (None,)),
    "boxes": Array("i", (None, 4)),
    "key_points": Array("f", (None, len(KEY_POINT_NAMES), 3)),
    "names": Array("U", (len(KEY_POINT_NAMES),)),
    "about": Array("U", ()),
}


def write_table(path: Path | str, table: KeyPointTable) -> None:
    """Write ``key_points.npz`` whole or not at all.

    Raises:
        DapgError: the file cannot be written.
    """
    boxes = np.array([_WHOLE if box is None else box for _, box in table.keys], np.int32).reshape(-1, 4)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            paths=np.array([key[0].encode() for key in table.keys], np.bytes_),
            boxes=boxes,
            key_points=table.points.cpu().numpy().astype(np.float32),
            names=np.array(KEY_POINT_NAMES),
            about=np.array(json.dumps(table.about, sort_keys=True)),
        )


def read_table(path: Path | str) -> KeyPointTable:
    """Read a table, from the file or from the folder of ``dapg pose estimate`` it is in.

    Raises:
        DataError: missing, damaged, or not such a table.
    """
    file = Path(path) / TABLE if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise DataError(f"{file} does not exist; dapg pose estimate makes it")
    stored = read_arrays(file, _ARRAYS, _REMEDY)
    if tuple(stored["names"].tolist()) != KEY_POINT_NAMES:
        raise DataError(f"{file}: its key points have another order than {', '.join(KEY_POINT_NAMES[:3])}, ...")
    with wall(file, _REMEDY):
        paths = [name.decode() for name in stored["paths"].tolist()]
    boxes = [tuple(box) for box in stored["boxes"].tolist()]
    points = torch.from_numpy(stored["key_points"].astype(np.float32))
    about = checked(parse_json(str(stored["about"]), file, _REMEDY), JsonObject, file, _REMEDY)
    if len(paths) != len(boxes):
        raise DataError(f"{file} has {len(paths)} images and {len(boxes)} boxes; {_REMEDY}")
    keys = tuple((name, None if box == _WHOLE else box) for name, box in zip(paths, boxes, strict=True))
    return KeyPointTable(keys, points, about)
