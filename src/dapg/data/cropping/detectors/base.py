"""Contract of a detector: frames of one video in, boxes of people out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

Frame = UInt8[np.ndarray, "H W 3"]
"""A decoded frame, red green blue."""


@dataclass(frozen=True)
class Detections:
    """People in one frame, best first."""

    boxes: Float32[np.ndarray, "N 4"]
    """(left, top, right, bottom) in pixels of the frame, inside it."""
    scores: Float32[np.ndarray, "N"]
    """The detector's own measure; higher is surer."""


class Detector(ABC):
    """One object per stretch of video; it sees the frames in order, all of one size.

    A new detector is a new file of this folder with one public subclass and its settings nested as ``Config``. Equal
    frames must give equal boxes: a stretch that was killed is done again.
    """

    warm_up: ClassVar[float] = 0.0
    """Seconds of video it wants to watch before the first frame it is asked about."""

    Config: ClassVar[type[Any]]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Load what is needed.

        Raises:
            UsageError: a package is not installed, or the settings are wrong.
            WeightsError: the network's file cannot be used.
        """

    def watch(self, frame: Frame) -> None:  # noqa: B027 (most detectors remember nothing)
        """A frame from before the stretch, for detectors that learn the background."""

    def turn(self, video: str, number: int) -> None:  # noqa: B027 (most detectors look at the frame alone)
        """Which frame of which video comes next, counted from 0."""

    @abstractmethod
    def detect(self, frame: Frame) -> Detections:
        """People in the next frame."""


def nobody() -> Detections:
    """No box."""
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
