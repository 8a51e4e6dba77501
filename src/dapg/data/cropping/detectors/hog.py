"""What moves and looks like a person: background subtraction, then OpenCV's HOG. Needs no file, but a still camera.

Background subtraction says where something is and how large, so that the HOG classifier (Dalal and Triggs, CVPR 2005)
looks at a few small regions at the right scale instead of a whole pyramid. A blob with the shape of one person gives
its own, tighter box; blobs of several people are taken apart by the HOG boxes.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float32, Int
from numpy.typing import NDArray

from dapg.core.ranges import Count, Offset, Range, Share, Weight
from dapg.data.cropping._opencv import opencv
from dapg.data.cropping.boxes import best_of_overlapping, inside, iou
from dapg.data.cropping.detectors.base import Detections, Detector, Frame, nobody

_PERSON_IN_WINDOW = (0.18, 0.11, 0.82, 0.89)
"""Where a person stands in the classifier's 64 x 128 window: its training images had 16 pixels of margin."""
_PERSON_ROWS = 96
"""Height of that person in pixels."""
_SHADOW_FREE = 255
"""Value of foreground in the mask; shadows are 127."""


class Hog(Detector):
    """Moving people; needs no file, finds no one who has stood still since the video began."""

    warm_up = 10.0

    @dataclass(frozen=True)
    class Config:
        """How sure, and of what size."""

        threshold: Offset = 0.2
        """Smallest HOG score (signed distance to the classifier's plane)."""
        min_height: Annotated[int, Range(16, 4096)] = 40
        """Smallest person looked for, in pixels."""
        history: Count = 200
        """Frames the background is learnt from; people who stand longer become background."""
        contrast: Weight = 16.0
        """Squared distance, in deviations, from which on a pixel is foreground (OpenCV's default)."""
        overlap: Share = 0.45
        """Of two boxes with a larger IoU the better one stays."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._cv2 = opencv()
        self._background = self._cv2.createBackgroundSubtractorMOG2(config.history, config.contrast, True)
        self._hog = self._cv2.HOGDescriptor()
        self._hog.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())

    def watch(self, frame: Frame) -> None:
        """Learn the background."""
        self._background.apply(frame)

    def detect(self, frame: Frame) -> Detections:
        """Every blob of foreground is asked whether it is one person, several, or none."""
        foreground = self._foreground(frame)
        people = [self._people(frame, foreground, blob) for blob in self._blobs(foreground)]
        boxes = np.concatenate([nobody().boxes, *(boxes for boxes, _ in people)])
        scores = np.concatenate([nobody().scores, *(scores for _, scores in people)])
        chosen = best_of_overlapping(boxes, scores, self.config.overlap)
        return Detections(boxes[chosen], scores[chosen])

    def _foreground(self, frame: Frame) -> Bool[np.ndarray, "H W"]:
        """Foreground without shadows, specks gone, gaps closed (more up and down than sideways: people are tall)."""
        mask = (self._background.apply(frame) == _SHADOW_FREE).astype(np.uint8)
        mask = self._cv2.morphologyEx(mask, self._cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        rows = max(3, self.config.min_height // 4) | 1
        brush = self._cv2.getStructuringElement(self._cv2.MORPH_ELLIPSE, (rows // 2 | 1, rows))
        return np.asarray(self._cv2.morphologyEx(mask, self._cv2.MORPH_CLOSE, brush) > 0)

    def _blobs(self, foreground: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "N 4"]:
        """Boxes (left, top, right, bottom) of connected foreground of a person's size or more."""
        stats = self._cv2.connectedComponentsWithStats(foreground.astype(np.uint8))[2][1:].astype(np.int64)
        least = self.config.min_height
        dense = stats[:, 4] >= 0.2 * stats[:, 2] * stats[:, 3]  # not so: noise that hangs together, as after key frames
        large = stats[dense & (stats[:, 3] >= 0.8 * least) & (stats[:, 4] >= 0.1 * least**2)]
        return np.concatenate([large[:, :2], large[:, :2] + large[:, 2:4]], axis=1)

    def _people(
        self, frame: Frame, foreground: Bool[np.ndarray, "H W"], blob: Int[np.ndarray, "4"]
    ) -> tuple[Float32[np.ndarray, "N 4"], Float32[np.ndarray, "N"]]:
        """Boxes and scores of the people in one blob."""
        boxes, scores = self._classify(frame, blob)
        covered = np.array([_share(foreground, box) for box in boxes], dtype=np.float32)
        boxes, scores = boxes[covered >= 0.2], scores[covered >= 0.2]
        width, height = blob[2] - blob[0], blob[3] - blob[1]
        if not len(boxes) or not 1.5 <= height / width <= 4.5:
            return boxes, scores
        whole = blob[None].astype(np.float32)
        near = iou(boxes, whole)[:, 0] >= 0.4  # other boxes in the outline of one person are its legs
        return (whole, scores[near].max(keepdims=True)) if near.any() else (boxes[:0], scores[:0])

    def _classify(
        self, frame: Frame, blob: Int[np.ndarray, "4"]
    ) -> tuple[Float32[np.ndarray, "N 4"], Float32[np.ndarray, "N"]]:
        """HOG boxes around people of at least 0.7 times the blob's height; of any, where half the frame moves."""
        height = int(blob[3] - blob[1])
        rows, columns = frame.shape[:2]
        smallest = max(0.7 * height, self.config.min_height)
        if (blob[2] - blob[0]) * height > 0.5 * rows * columns:
            smallest = float(self.config.min_height)
        border = int(0.35 * height) + 8
        left, top = max(0, int(blob[0]) - border), max(0, int(blob[1]) - border)
        region = frame[top : int(blob[3]) + border, left : int(blob[2]) + border]
        factor = _PERSON_ROWS / smallest
        resized = self._cv2.resize(np.ascontiguousarray(region), None, fx=factor, fy=factor)
        padding = [max(0, least - side) for least, side in zip((128, 64), resized.shape[:2], strict=True)]
        resized = self._cv2.copyMakeBorder(resized, 0, padding[0], 0, padding[1], self._cv2.BORDER_REPLICATE)
        rectangles, scores = self._hog.detectMultiScale(
            resized, hitThreshold=self.config.threshold, winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0
        )
        if len(rectangles) == 0:
            return nobody().boxes, nobody().scores
        windows = np.asarray(rectangles, dtype=np.float32).reshape(-1, 4)
        shares = np.array(_PERSON_IN_WINDOW, dtype=np.float32)
        people = np.concatenate([windows[:, :2], windows[:, :2]], axis=1)
        people += np.concatenate([windows[:, 2:], windows[:, 2:]], axis=1) * shares
        people = people / np.float32(factor) + np.array([left, top, left, top], dtype=np.float32)
        numbers = np.asarray(scores, dtype=np.float32).reshape(-1)
        people = inside(people, rows, columns)
        chosen = best_of_overlapping(people, numbers, self.config.overlap)
        return people[chosen], numbers[chosen]


def _share(mask: Bool[np.ndarray, "H W"], box: Float32[np.ndarray, "4"]) -> float:
    """How much of a box is foreground."""
    left, top, right, bottom = (round(float(side)) for side in box)
    part: NDArray[np.generic] = mask[top:bottom, left:right]
    return float(part.mean()) if part.size else 0.0
