"""Every key-point estimator found keeps the contract of pose/estimators/base.py."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dapg.core import plugins
from dapg.core.train_config import DataConfig
from dapg.core.types import Record
from dapg.data.source import open_dataset
from dapg.pose.estimate import estimator_class
from dapg.pose.estimators.base import Estimator

ESTIMATORS = plugins.names("pose.estimators")
NEEDS = {"blazepose": "ai_edge_litert", "onnx": "onnxruntime"}
"""Packages of optional extras."""


def build(name: str, folder: Path) -> tuple[Estimator, Sequence[Record]]:
    """The estimator with its default settings, a model made here where it wants one, and images to work on."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    dataset = open_dataset(DataConfig())
    kind = estimator_class(name)
    settings: dict[str, Any] = {}
    if "model" in kind.Config.__dataclass_fields__ and not getattr(kind.Config(), "model", "") and name == "onnx":
        pytest.importorskip("onnx")
        from onnx_graphs import coloured_peaks

        settings["model"] = str(coloured_peaks(folder / "graph.onnx"))
    return kind(kind.Config(**settings), dataset), dataset.records("test")[:3]


def pictures(estimator: Estimator, records: Sequence[Record]) -> torch.Tensor:
    from dapg.core.images import decode

    dataset = open_dataset(DataConfig())
    return torch.stack([decode(dataset.read(record), estimator.input_size) for record in records])


@pytest.mark.parametrize("name", ESTIMATORS)
class TestEveryEstimator:
    def test_points_are_parts_of_the_picture_with_confidences(self, name: str, tmp_path: Path) -> None:
        estimator, records = build(name, tmp_path)
        points = estimator.estimate(pictures(estimator, records), torch.tensor([[192, 96]] * 3), records)
        assert points.shape == (3, 18, 3)
        assert bool(points.isfinite().all())
        assert 0 <= float(points[..., 2].min()) <= float(points[..., 2].max()) <= 1
        assert float(points[..., 2].max()) > 0.3
        assert float((points[..., :2] - 0.5).abs().max()) < 2  # parts, not pixels

    def test_a_picture_does_not_depend_on_its_batch_nor_the_input_changes(self, name: str, tmp_path: Path) -> None:
        estimator, records = build(name, tmp_path)
        images, sizes = pictures(estimator, records), torch.tensor([[192, 96]] * 3)
        before = images.clone()
        together = estimator.estimate(images, sizes, records)
        assert torch.equal(images, before)
        alone = estimator.estimate(images[1:2], sizes[1:2], records[1:2])
        torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)

    def test_no_picture_is_no_error(self, name: str, tmp_path: Path) -> None:
        estimator, _ = build(name, tmp_path)
        empty = torch.zeros(0, 3, *estimator.input_size, dtype=torch.uint8)
        assert estimator.estimate(empty, torch.zeros(0, 2, dtype=torch.int64), []).shape == (0, 18, 3)


def test_estimators_were_found() -> None:
    assert {"annotations", "blazepose", "onnx"} <= set(ESTIMATORS)
