"""Boxes of other programs: MOT files, supervision's tables and objects, and what is wrong with some."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dapg.core.errors import DataError, UsageError
from dapg.data.cropping.crop import CropSettings, crop
from dapg.data.cropping.crop_quality import FilterConfig
from dapg.data.cropping.detectors.boxes import Boxes, write_boxes
from dapg.data.cropping.segments import Sampling
from dapg.data.cropping.tracks import TrackConfig, foreign_tracks

FRAME = np.zeros((100, 200, 3), np.uint8)


def people(detector: Boxes, number: int, video: str = "street") -> list[list[float]]:
    detector.turn(video, number)
    answer = detector.detect(FRAME)
    rows = np.concatenate([answer.boxes, answer.scores[:, None]], axis=1).astype(float).round(3)
    return rows.tolist()


def test_mot_files_count_from_one_and_boxes_are_cut_at_the_frame(tmp_path: Path) -> None:
    file = tmp_path / "det.txt"
    file.write_text("1,-1,10,20,30,60,0.5\n1,-1,190,-5,30,60,0.9\n3,7,10,20,30,60,-1\n3,7,10,20,30,60,0.1\n")
    detector = Boxes(Boxes.Config(file=str(file)))
    assert people(detector, 0) == [[190, 0, 200, 55, 0.9], [10, 20, 40, 80, 0.5]]
    assert people(detector, 1) == []
    assert people(detector, 2) == [[10, 20, 40, 80, 1.0]]
    from_zero = Boxes(Boxes.Config(file=str(file), first=0))
    assert people(from_zero, 3) == [[10, 20, 40, 80, 1.0]]


def test_ground_truth_of_other_things_is_no_person(tmp_path: Path) -> None:
    file = tmp_path / "gt.txt"
    file.write_text("1,1,10,20,30,60,1,1,0.9\n1,2,50,20,30,60,1,3,0.9\n1,3,90,20,30,60,0,1,0.9\n")
    assert people(Boxes(Boxes.Config(file=str(file))), 0) == [[10, 20, 40, 80, 1.0]]


def test_tables_of_supervision(tmp_path: Path) -> None:
    columns = ["x_min", "y_min", "x_max", "y_max", "class_id", "confidence", "tracker_id", "frame"]
    rows: list[list[object]] = [
        [10, 20, 40, 80, 0, 0.7, 3, 0],
        [10, 20, 40, 80, 2, 0.9, 4, 0],
        [1, 2, 3, 4, "", "", "", 1],
    ]
    with (tmp_path / "street.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([list[object](columns), *rows])
    detector = Boxes(Boxes.Config(file=str(tmp_path)))
    assert people(detector, 0, "street.mp4") == [[10, 20, 40, 80, 0.7]]
    assert people(detector, 1, "street.mp4") == [[1, 2, 3, 4, 1.0]]


def test_its_own_objects_and_sinks(tmp_path: Path) -> None:
    """With the real package where it is installed."""
    sv: Any = pytest.importorskip("supervision")
    detections = sv.Detections(np.array([[10.0, 20, 40, 80]]), confidence=np.array([0.75]), class_id=np.array([0]))
    write_boxes(tmp_path / "street.txt", [(4, detections)])
    with sv.CSVSink(str(tmp_path / "sink.csv")) as sink:
        sink.append(detections, custom_data={"frame": 4})
    for file in ("street.txt", "sink.csv"):
        assert people(Boxes(Boxes.Config(file=str(tmp_path / file))), 4) == [[10, 20, 40, 80, 0.75]]


@pytest.mark.parametrize(
    "content, message",
    [
        ("1,2\n", "is no box"),
        ("1,-1,a,20,30,60,0.5\n", "is no box"),
        ("x_min,y_min,x_max,y_max\n1,2,3,4\n", "no column is called frame"),
        ("\x00\n", "is no box"),
    ],
)
def test_lines_that_are_no_boxes(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "det.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        people(Boxes(Boxes.Config(file=str(tmp_path / "det.txt"))), 0)


def test_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --detect"):
        Boxes(Boxes.Config())
    with pytest.raises(DataError, match=r"expected street\.mp4\.txt or street\.mp4\.csv"):
        people(Boxes(Boxes.Config(file=str(tmp_path))), 0, "street.mp4")


def test_crops_are_what_the_boxes_hold(tmp_path: Path) -> None:
    """A grey person walks through a folder of frames; the crops are cut at the boxes of a MOT file."""
    (tmp_path / "street").mkdir()
    frames = []
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 60, (100, 200, 3), dtype=np.uint8)
        left = 10 + 4 * number
        pixels[20:90, left : left + 30] = 200
        Image.fromarray(pixels).save(tmp_path / "street" / f"{number:03d}.png")
        frames.append((number, SimpleNamespace(xyxy=np.array([[left, 20.0, left + 30, 90]]), confidence=None)))
    write_boxes(tmp_path / "street.txt", frames)
    settings = CropSettings(
        source=str(tmp_path / "street"),
        detector="boxes",
        detect=Boxes.Config(file=str(tmp_path / "street.txt")),
        sampling=Sampling(segment_seconds=1.0),
        filters=FilterConfig(min_sharpness=0.0, duplicate_bits=-1),
        picture_rate=10.0,
        out=str(tmp_path / "out"),
    )
    result = crop(settings)
    assert (result["boxes"], result["tracks"]) == (20, 1)
    crops = sorted((tmp_path / "out" / "street").glob("*.jpg"))
    assert len(crops) == result["crops"] == 4
    for file in crops:
        assert Image.open(file).size == (30, 70)
        assert np.asarray(Image.open(file)).mean() > 190


def walkers() -> tuple[list[tuple[float, np.ndarray]], list[np.ndarray]]:
    """Two people walk towards each other in lanes of their own; the second is away for a second, then for three."""
    frames, scores = [], []
    for number in range(60):
        boxes = [[10 + 3 * number, 10, 40 + 3 * number, 90]]
        if not (20 <= number < 25 or 35 <= number < 50):
            boxes.append([300 - 3 * number, 200, 330 - 3 * number, 280])
        frames.append((number / 5, np.array(boxes, dtype=np.float64)))
        scores.append(np.full(len(boxes), 0.9))
    return frames, scores


@pytest.mark.parametrize("tracker", ["sort", "bytetrack", "oc-sort"])
def test_trackers_of_roboflow_follow_people(tracker: Any) -> None:
    """With the real package where it is installed."""
    pytest.importorskip("trackers")
    frames, scores = walkers()
    answers = foreign_tracks(frames, scores, 5.0, TrackConfig(max_gap=1.5, tracker=tracker))
    assert len({int(numbers[0]) for numbers in answers[2:]}) == 1, "a track may begin with its second box"
    second = [int(numbers[1]) for numbers in answers if len(numbers) > 1]
    assert len(set(second[2:30])) == 1, "a second is bridged"
    assert second[2] not in second[-5:], "three are not"


def test_a_tracker_that_is_not_there_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    (tmp_path / "det.txt").write_text("1,-1,10,20,30,60,0.5\n")
    (tmp_path / "street").mkdir()
    Image.fromarray(FRAME).save(tmp_path / "street" / "0.png")
    settings = CropSettings(
        source=str(tmp_path / "street"),
        detector="boxes",
        detect=Boxes.Config(file=str(tmp_path / "det.txt")),
        tracks=TrackConfig(tracker="sort"),
        out=str(tmp_path / "out"),
    )
    with pytest.raises(UsageError, match="pip install trackers"):
        crop(settings)
    assert not (tmp_path / "out").exists()
