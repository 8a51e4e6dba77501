"""Boxes that another program found: files of the MOT Challenge, or tables that supervision writes (``sv.CSVSink``).

The numbers of its tracks are not taken over; people are followed here, as with any detector.
"""

import csv
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_write_text
from dapg.core.ranges import CountOrZero, Share
from dapg.data.cropping.boxes import area, inside
from dapg.data.cropping.detectors.base import Detections, Detector, Frame, nobody

SUFFIXES = (".txt", ".csv")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_FRAME = ("frame", "frame_index", "frame_number", "frame_id")
"""What the column with the frame's number may be called; supervision takes any name for it."""


class Boxes(Detector):
    """Reads boxes in place of finding them."""

    @dataclass(frozen=True)
    class Config:
        """Which file, and whom to believe."""

        file: str = ""
        """A MOT file (frame, id, left, top, width, height, confidence, ...) or a CSV of supervision's with a column
        ``frame``; or a folder with such a file for each video, called like it."""
        first: CountOrZero | None = None
        """Number of a video's first frame in the file; when not given, 1 in MOT files and 0 in CSV."""
        threshold: Share = 0.3
        """Smallest confidence; a box without one has 1."""
        person: CountOrZero = 0
        """Class of people in a CSV with classes (COCO: 0); in a MOT file 1 and no class count as people."""

    def __init__(self, config: Config) -> None:
        self.config = config
        if not config.file or not Path(config.file).exists():
            raise UsageError(f"the detector boxes needs --detect.file FILE, or a folder; {config.file!r} is none")
        self._next: list[tuple[float, ...]] = []

    def turn(self, video: str, number: int) -> None:
        """Look up the boxes of the next frame.

        Raises:
            DataError: there is no file for this video, or a line of it is no box.
        """
        path = self._file_of(video)
        self._next = _boxes(path, path.stat().st_mtime_ns, self.config).get(number, [])

    def detect(self, frame: Frame) -> Detections:
        """What the file says about the frame, best first."""
        if not self._next:
            return nobody()
        table = np.array(sorted(self._next, key=lambda row: -row[4]), dtype=np.float32)
        corners = inside(table[:, :4], frame.shape[0], frame.shape[1])
        seen = area(corners) > 0
        return Detections(corners[seen], table[seen, 4])

    def _file_of(self, video: str) -> Path:
        place = Path(self.config.file)
        if place.is_file():
            return place
        files = [place / f"{name}{suffix}" for name in (video, Path(video).stem) for suffix in SUFFIXES]
        there = [path for path in files if path.is_file()]
        if not there:
            raise DataError(f"{place} has no boxes for the video {video}: expected {files[0].name} or {files[1].name}")
        return there[0]


@functools.lru_cache(maxsize=4)
def _boxes(path: Path, changed: int, config: Boxes.Config) -> dict[int, list[tuple[float, ...]]]:
    """Frame, counted from 0 -> (left, top, right, bottom, score) of the people on it; read anew once ``changed``."""
    frames: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = csv.reader(handle)
            for frame, box in _rows(lines, config):
                if box is not None and all(map(np.isfinite, box)) and box[4] >= config.threshold:
                    frames[frame].append(box)
    except (ValueError, IndexError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: a line after the first {len(frames)} frames is no box ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return frames


def _rows(lines: Iterator[list[str]], config: Boxes.Config) -> Iterator[tuple[int, tuple[float, ...] | None]]:
    """Frame and box of each line; None for what is no person."""
    head = next(lines, [])
    names = [name.strip() for name in head]
    if not set(_CORNERS) <= set(names):  # MOT has no head
        first = 1 if config.first is None else config.first
        for line in (head, *lines):
            if not line:
                continue
            left, top, width, height = map(float, line[2:6])
            score = float(line[6]) if len(line) > 6 else 1.0
            kind = float(line[7]) if len(line) > 8 else -1.0  # ground truth has class and visibility behind
            person = kind in (1.0, -1.0)
            box = (left, top, left + width, top + height, 1.0 if score < 0 else score)
            yield int(float(line[0])) - first, box if person else None
        return
    column = next((name for name in _FRAME if name in names), None)
    if column is None:
        raise ValueError(f"no column is called {', '.join(_FRAME)}; pass custom_data to supervision's sink")
    first = config.first or 0
    for line in lines:
        row = dict(zip(names, line, strict=False))
        left, top, right, bottom = (float(row[name]) for name in _CORNERS)
        confidence = row.get("confidence", "")
        sure = 1.0 if confidence in ("", "None") else float(confidence)
        human = row.get("class_id", "") in ("", "None", str(config.person))
        yield int(float(row[column])) - first, (left, top, right, bottom, sure) if human else None


@runtime_checkable
class FrameDetections(Protocol):
    """What of ``supervision.Detections`` is read."""

    xyxy: NDArray[np.floating]
    """(N, 4) corners."""
    confidence: NDArray[np.floating] | None
    """(N,), or none."""


def write_boxes(path: Path | str, frames: Iterable[tuple[int, FrameDetections]]) -> None:
    """Write ``sv.Detections`` of a video, with the number of each frame from 0, as the MOT file that ``Boxes`` reads.

    Example:
        >>> import tempfile, types
        >>> people = types.SimpleNamespace(xyxy=np.array([[10.0, 20, 30, 80]]), confidence=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_boxes(f"{folder}/street.txt", [(0, people)])
        ...     print(Path(f"{folder}/street.txt").read_text(), end="")
        1,-1,10.0,20.0,20.0,60.0,1.0
    """
    lines = []
    for number, detections in frames:
        scores = np.ones(len(detections.xyxy)) if detections.confidence is None else detections.confidence
        for (left, top, right, bottom), score in zip(detections.xyxy.tolist(), scores.tolist(), strict=True):
            lines.append(f"{number + 1},-1,{left},{top},{right - left},{bottom - top},{score}\n")
    atomic_write_text(path, "".join(lines))
