"""Shared: greedy tracks. Boxes of one person in following frames get one number, by overlap alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dapg.core.ranges import Count, Share, Weight
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
