"""Shared: boxes in pixels, (left, top, right, bottom), one a row: overlap, and the best of overlapping ones."""

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray

Boxes = Float32[np.ndarray, "N 4"]


def iou(first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Area of the common part over the area of both together, for every pair; 0 for boxes without area."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (opposite - corner).clip(min=0).prod(axis=2)
    areas = area(first)[:, None] + area(second)[None, :] - common
    shared: NDArray[np.floating] = np.where(areas > 0, common / np.where(areas > 0, areas, 1), 0)
    return shared


def area(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    """Width times height; 0 for a box that is inside out."""
    sides: NDArray[np.floating] = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
    return sides


def best_of_overlapping(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, "N"], threshold: float
) -> Int[np.ndarray, "K"]:
    """Rows that non-maximum suppression keeps, best first; of equal scores the earlier row.

    The best box stays, all that overlap it by more than ``threshold`` (IoU) go, and so on with what is left.
    """
    waiting = np.argsort(-scores, kind="stable")
    chosen = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        chosen.append(best)
        waiting = waiting[iou(boxes[best : best + 1], boxes[waiting])[0] <= threshold]
    return np.array(chosen, dtype=np.int64)


def inside(boxes: Float[np.ndarray, "N 4"], height: int, width: int) -> Boxes:
    """Boxes cut off at the edges of an image."""
    limits = np.array([width, height, width, height], dtype=np.float32)
    cut: Boxes = np.clip(boxes, 0, limits).astype(np.float32)
    return cut
