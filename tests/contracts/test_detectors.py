"""Every detector keeps the contract: boxes inside the frame, best first, the same again for the same frames."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dapg.core import plugins
from dapg.core.images import open_rgb
from dapg.data.cropping.crop import DETECTORS
from dapg.data.cropping.detectors.base import Detections, Detector
from dapg.data.sets.synthetic import Synthetic
from onnx_people import Planted, write_network


def yolo(folder: Path) -> dict[str, object]:
    weights = write_network(folder / "yolo.onnx", "v8", (Planted((250, 10, 10)), Planted((10, 250, 10), 0.8)))
    return {"weights": str(weights), "threads": 1}


SETTINGS: dict[str, Callable[[Path], dict[str, object]]] = {"yolo": yolo, "hog": lambda folder: {"threshold": -2.0}}
"""What a detector needs beyond its defaults; a low threshold makes any blob a person."""
PEOPLE = Synthetic()
PERSON = open_rgb(PEOPLE.read(PEOPLE.records(PEOPLE.splits[0])[0]), "person")
NAMES = [name for name in plugins.names(DETECTORS) if name != "boxes"]  # which looks at no frame: test_boxes.py


@pytest.fixture(params=NAMES)
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Detector]:
    kind = plugins.load(DETECTORS, request.param, Detector)
    changes = SETTINGS.get(request.param, lambda folder: {})(tmp_path)
    return lambda: kind(kind.Config(**changes))


def frames(height: int, width: int, count: int = 8) -> list[np.ndarray]:
    """Over noise a synthetic person, half the frame high, walks right under a red bar; both appear in frame 2."""
    background = np.random.default_rng(0).integers(110, 130, (height, width, 3), dtype=np.uint8)
    found = []
    for number in range(count):
        pixels = background.copy()
        rows = height // 2
        person = np.asarray(PERSON.resize((max(1, rows // 2), max(1, rows))))
        left = 5 + 6 * number
        if number >= 2:
            free = pixels[height // 3 : height // 3 + rows, left : left + person.shape[1]]
            free[:] = person[: free.shape[0], : free.shape[1]]
            pixels[height // 12 : height // 4, left : left + height // 5] = (250, 10, 10)
        found.append(pixels)
    return found


def run(detector: Detector, pictures: list[np.ndarray], watched: int = 3) -> list[Detections]:
    for picture in pictures[:watched]:
        detector.watch(picture)
    return [detector.detect(picture) for picture in pictures[watched:]]


def test_settings_are_frozen_and_have_defaults(new: Callable[[], Detector]) -> None:
    kind = type(new())
    assert dataclasses.is_dataclass(kind.Config)
    assert kind.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    kind.Config()
    assert kind.warm_up >= 0


@pytest.mark.parametrize("size", [(240, 320), (320, 180), (161, 277)])
def test_boxes_lie_in_the_frame_best_first_and_somebody_is_found(
    new: Callable[[], Detector], size: tuple[int, int]
) -> None:
    pictures = frames(*size)
    before = [picture.copy() for picture in pictures]
    answers = run(new(), pictures)
    assert all(np.array_equal(a, b) for a, b in zip(before, pictures, strict=True)), "frames are not written to"
    assert sum(len(found.boxes) for found in answers) > 0
    for found in answers:
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert found.boxes.shape == (len(found.scores), 4)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([size[1], size[0], size[1], size[0]])).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all()


def test_the_same_frames_give_the_same_boxes(new: Callable[[], Detector]) -> None:
    for first, second in zip(run(new(), frames(240, 320)), run(new(), frames(240, 320)), strict=True):
        assert first.boxes.tobytes() == second.boxes.tobytes()
        assert first.scores.tobytes() == second.scores.tobytes()


@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_empty_scene_has_nobody(new: Callable[[], Detector], value: int) -> None:
    still = [np.full((200, 300, 3), value, np.uint8)] * 5
    assert all(len(found.boxes) == 0 for found in run(new(), still))


def test_odd_frames_are_survived(new: Callable[[], Detector]) -> None:
    for size in ((1, 1), (7, 300), (300, 5)):
        assert all(found.boxes.shape[1] == 4 for found in run(new(), frames(*size, 4)))
