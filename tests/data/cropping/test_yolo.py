"""YOLO files: planted boxes come back through letterbox, layout and suppression; what cannot be used is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dapg.core.errors import UsageError, WeightsError
from dapg.data.cropping.boxes import iou
from dapg.data.cropping.detectors.yolo import Yolo
from onnx_people import Planted, write_network

RED, GREEN, BLUE, YELLOW = (250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)
PLANTED = (
    Planted(RED, 0.9),
    Planted(RED, 0.7, shift=2.0),  # the same person again: suppressed
    Planted(GREEN, 0.6),
    Planted(BLUE, 0.95, category=2),  # a car
    Planted(YELLOW, 0.2),  # not sure enough
)
BOXES = {RED: (61, 40, 121, 203), GREEN: (300, 90, 352, 231), BLUE: (150, 20, 280, 120), YELLOW: (400, 30, 440, 130)}


def frame(height: int, width: int) -> np.ndarray:
    """The boxes above, laid out on 480 x 270 and scaled to the size."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    for colour, (left, top, right, bottom) in boxes(height, width).items():
        pixels[top:bottom, left:right] = colour
    return pixels


def boxes(height: int, width: int) -> dict[tuple[int, int, int], tuple[int, int, int, int]]:
    x, y = width / 480, height / 270
    return {c: (round(b[0] * x), round(b[1] * y), round(b[2] * x), round(b[3] * y)) for c, b in BOXES.items()}


@pytest.mark.parametrize("size", [(270, 480), (480, 300), (1080, 1920), (333, 777), (160, 160)])
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("v5", {}),
        ("v5", {"size": (256, 384)}),
        ("v8", {}),
        ("v8", {"half": True}),
        ("v11", {"dynamic": True}),
        ("v11", {"size": (256, 448)}),
        ("end-to-end", {}),
    ],
)
def test_planted_people_come_back(tmp_path: Path, layout: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    weights = write_network(tmp_path / "yolo.onnx", layout, PLANTED, **options)
    detector = Yolo(Yolo.Config(weights=str(weights), threads=1))
    found = detector.detect(frame(*size))
    expected = np.array([boxes(*size)[RED], boxes(*size)[GREEN]], dtype=np.float32)
    assert found.boxes.shape == (2, 4), "the car, the unsure one and the second box of the red one are left out"
    assert np.diag(iou(found.boxes, expected)).min() > 0.95
    assert found.scores == pytest.approx([0.9, 0.6], abs=1e-3)


def test_the_class_called_person_is_taken_from_the_file(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "yolo.onnx", "v11", PLANTED, names="{0: 'bicycle', 2: 'person'}")
    found = Yolo(Yolo.Config(weights=str(weights))).detect(frame(270, 480))
    assert iou(found.boxes, np.array([BOXES[BLUE]], np.float32))[0, 0] > 0.95
    assert Yolo(Yolo.Config(weights=str(weights), person=0)).detect(frame(270, 480)).scores[0] == pytest.approx(0.9)


def test_an_empty_street_has_nobody(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "yolo.onnx", "v8", PLANTED)
    found = Yolo(Yolo.Config(weights=str(weights))).detect(np.full((270, 480, 3), 90, np.uint8))
    assert found.boxes.shape == (0, 4)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs --detect\.weights"):
        Yolo(Yolo.Config())
    with pytest.raises(WeightsError, match="no such file"):
        Yolo(Yolo.Config(weights=str(tmp_path / "missing.onnx")))
    (tmp_path / "torn.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"torn\.onnx is not a network that onnxruntime can run"):
        Yolo(Yolo.Config(weights=str(tmp_path / "torn.onnx")))
    weights = str(write_network(tmp_path / "yolo.onnx", "v8", PLANTED))
    with pytest.raises(WeightsError, match="knows 80 classes; there is no class 99"):
        Yolo(Yolo.Config(weights=weights, person=99)).detect(frame(270, 480))
