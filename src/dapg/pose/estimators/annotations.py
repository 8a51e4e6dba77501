"""Exact key points of synthetic people, from the annotations beside their images."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, TypedDict

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.core.errors import DataError, UsageError
from dapg.core.ranges import Range
from dapg.core.schema import parse_json_lines
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.pose.estimators.base import Estimator

ANNOTATIONS = "annotations.jsonl"
CONFIDENCE = (0.0, 0.5, 1.0)
"""Of a point outside the image, hidden, and visible (``data/sets/synthetic.py: key_points``)."""


class _Row(TypedDict):
    path: str
    key_points: list[tuple[float, float, Annotated[int, Range(0, 2)]]]


class Annotations(Estimator):
    """Looks points up in ``annotations.jsonl`` of ``dapg data synth``, in any layout it writes."""

    input_size: ClassVar[tuple[int, int]] = (8, 4)

    def __init__(self, config: Estimator.Config, dataset: Dataset | None = None) -> None:
        super().__init__(config, dataset)
        if dataset is None:
            raise UsageError("the estimator `annotations` looks points up in a data set; images alone do not do")
        try:
            data = dataset.read(Record(ANNOTATIONS))
        except DataError as error:
            raise UsageError(
                f"{dataset.title} under {dataset.root} has no {ANNOTATIONS}; take --estimator blazepose"
            ) from error
        rows = parse_json_lines(data, _Row, f"{dataset.root}: {ANNOTATIONS}")
        self._points: dict[str, list[tuple[float, float, int]]] = {row["path"]: row["key_points"] for row in rows}

    def estimate(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"], records: Sequence[Record] = ()
    ) -> Float[Tensor, "B 18 3"]:
        """The truth; a point outside the image has confidence 0, a hidden one 0.5.

        Raises:
            DataError: no annotations for an image.
        """
        if len(records) != len(images):
            raise UsageError("the estimator `annotations` needs the records of the images")
        points = torch.tensor([self._of(record) for record in records], dtype=torch.float32).reshape(-1, 18, 3)
        corners = torch.tensor([record.box[:2] if record.box else (0, 0) for record in records]).reshape(-1, 2)
        places = (points[..., :2] - corners[:, None]) / sizes.flip(1)[:, None]
        inside = ((places >= 0) & (places <= 1)).all(dim=-1)
        confidence = torch.tensor(CONFIDENCE)[points[..., 2].long()] * inside
        return torch.cat([places, confidence[..., None]], dim=-1)

    def _of(self, record: Record) -> Sequence[Sequence[int | float]]:
        if record.path not in self._points:
            raise DataError(f"{ANNOTATIONS} knows no image {record.path}")
        return self._points[record.path]
