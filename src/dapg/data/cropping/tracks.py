"""Shared: tracks. Boxes of one person in following frames get one number, by overlap or by Roboflow's trackers."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dapg.core.errors import UsageError
from dapg.core.ranges import Count, Share, Weight
from dapg.core.settings import unset
from dapg.data.cropping.boxes import iou


@dataclass(frozen=True)
class TrackConfig:
    """When two boxes are one person."""

    min_overlap: Share = 0.3
    """IoU of a box and a track's expected place."""
    max_gap: Weight = 1.0
    """Seconds a track outlives its last box."""
    min_boxes: Count = 3
    """Tracks of fewer boxes are taken for false alarms and give no crop."""
    tracker: Literal["greedy", "sort", "bytetrack", "oc-sort"] = unset("greedy")
    """Ours, or one of the package ``trackers`` (docs/tutorials/own-footage.md): its defaults, the limits above."""


@dataclass
class _Track:
    number: int
    box: NDArray[np.float64]
    seconds: float
    speed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def expected(self, seconds: float) -> NDArray[np.float64]:
        """The last box, moved on at the last speed."""
        shift = self.speed * (seconds - self.seconds)
        moved: NDArray[np.float64] = self.box + np.concatenate([shift, shift])
        return moved

    def see(self, box: NDArray[np.float64], seconds: float) -> None:
        """Take a box in; the speed of its centre is averaged, as boxes tremble."""
        elapsed = max(seconds - self.seconds, 1e-3)
        moved = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2 / elapsed
        self.speed = 0.5 * self.speed + 0.5 * moved
        self.box, self.seconds = box, seconds


def greedy_tracks(
    frames: Sequence[tuple[float, Float[np.ndarray, "_ 4"]]], config: TrackConfig
) -> list[NDArray[np.int64]]:
    """A track number for every box of every frame, counted from 0 in order of appearance.

    In each frame the pair of track and box with the largest overlap is joined first, and so on down to
    ``min_overlap``. People who cross can swap numbers, and who comes back gets a new one: pseudo-labels with noise.

    Args:
        frames: (seconds, boxes) in order of time.
        config: limits.
    """
    tracks: list[_Track] = []
    born = 0
    answers = []
    for seconds, boxes in frames:
        tracks = [track for track in tracks if seconds - track.seconds <= config.max_gap]
        numbers = np.full(len(boxes), -1, dtype=np.int64)
        places = np.array([track.expected(seconds) for track in tracks]).reshape(-1, 4)
        overlaps = iou(places, boxes.astype(np.float64))
        for place in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = divmod(int(place), max(1, len(boxes)))
            if overlaps[row, column] < config.min_overlap:
                break
            taken = tracks[row].seconds == seconds or numbers[column] >= 0
            if not taken:
                tracks[row].see(boxes[column].astype(np.float64), seconds)
                numbers[column] = tracks[row].number
        for column in np.flatnonzero(numbers < 0).tolist():
            numbers[column] = born
            tracks.append(_Track(born, boxes[column].astype(np.float64), seconds))
            born += 1
        answers.append(numbers)
    return answers


_FOREIGN = {"sort": "SORTTracker", "bytetrack": "ByteTrackTracker", "oc-sort": "OCSORTTracker"}


def require_tracker(config: TrackConfig) -> None:
    """What the tracker needs, asked for before anything is written.

    Raises:
        UsageError: its package is not installed.
    """
    if config.tracker in _FOREIGN:
        _package(config.tracker)


def _package(name: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("trackers"), importlib.import_module("supervision")
    except ImportError as error:
        raise UsageError(
            f"--tracks.tracker {name} is of Roboflow's package ({error}): pip install trackers, or take greedy"
        ) from error


def foreign_tracks(
    frames: Sequence[tuple[float, Float[np.ndarray, "_ 4"]]],
    scores: Sequence[Float[np.ndarray, "_"]],
    rate: float,
    config: TrackConfig,
) -> list[NDArray[np.int64]]:
    """As ``greedy_tracks``, by a tracker of the package ``trackers``; a box that it joins to none has its own number.

    Args:
        frames: (seconds, boxes) in order of time; frames without boxes may be left out.
        scores: the detector's, of each box.
        rate: frames looked at per second.
        config: which tracker, and limits.

    Raises:
        UsageError: the package is not installed.
    """
    package, supervision = _package(config.tracker)
    tracker = getattr(package, _FOREIGN[config.tracker])(
        lost_track_buffer=round(30 * config.max_gap),  # which it counts at 30 frames a second
        frame_rate=rate,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=config.min_overlap,
    )
    numbers: dict[int, int] = {}
    born, before, answers = 0, None, []
    for (seconds, boxes), sure in zip(frames, scores, strict=True):
        gap = 0 if before is None else round((seconds - before) * rate) - 1
        for _ in range(min(gap, round(config.max_gap * rate) + 1)):
            tracker.update(supervision.Detections.empty())
        before = seconds
        rows = np.arange(len(boxes))
        given = supervision.Detections(xyxy=boxes.astype(np.float64), confidence=sure, data={"row": rows})
        tracked = tracker.update(given)
        own = dict(zip(tracked.data["row"].tolist(), tracked.tracker_id.tolist(), strict=True))
        answer = np.zeros(len(boxes), dtype=np.int64)
        for row in rows.tolist():
            theirs = own.get(row, -1)
            if theirs < 0 or theirs not in numbers:
                answer[row], born = born, born + 1
                if theirs >= 0:
                    numbers[theirs] = int(answer[row])
            else:
                answer[row] = numbers[theirs]
        answers.append(answer)
    return answers
