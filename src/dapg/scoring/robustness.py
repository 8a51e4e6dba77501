"""Scores of a grid of corruption types (T) and severities (S) as a few numbers, from arrays alone.

The error of a test set is 1 - mAP. Two types at two severities; a reference makes twice the errors on one of them:

    >>> import numpy as np
    >>> ours, reference = np.array([[0.2, 0.4], [0.3, 0.5]]), np.array([[0.4, 0.8], [0.3, 0.5]])
    >>> mean_corruption_error(ours, reference)  # (0.6 / 1.2 + 0.8 / 0.8) / 2
    0.75
    >>> relative_corruption_error(ours, 0.1, reference, 0.2)  # ((0.4 / 0.8) + (0.6 / 0.4)) / 2
    1.0
    >>> round(retention(1 - ours, 0.9), 3)  # the mean of 0.8, 0.6, 0.7, 0.5 of 0.9
    0.722
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dapg.core.errors import UsageError

TAIL = 0.1
"""Share of the grid that the worst cells are."""


def mean_corruption_error(errors: Float[np.ndarray, "T S"], reference: Float[np.ndarray, "t s"]) -> float:
    """MCE (Hendrycks and Dietterich, ICLR 2019): the mean over types of the ratio of errors summed over severities.

    1 is the reference, less is better. The paper's errors are those of a classifier, ours 1 - mAP.

    Raises:
        UsageError: other types or severities, or a type in which the reference makes no error.
    """
    _refuse_other_grid(errors, reference)
    return _mean_ratio(errors.sum(axis=1), reference.sum(axis=1), "makes no error")


def relative_corruption_error(
    errors: Float[np.ndarray, "T S"], clean: float, reference: Float[np.ndarray, "t s"], reference_clean: float
) -> float:
    """Relative mCE: the same of the errors beyond those on clean images, so that a poor start does not hide a fall.

    Raises:
        UsageError: other types or severities, or a type that costs the reference nothing.
    """
    _refuse_other_grid(errors, reference)
    return _mean_ratio((errors - clean).sum(axis=1), (reference - reference_clean).sum(axis=1), "loses nothing")


def retention(scores: Float[np.ndarray, "T S"], clean: float) -> float:
    """The mean score of the grid as a share of the clean one; NaN where that is 0."""
    return float(scores.mean()) / clean if clean > 0 else math.nan


@dataclass(frozen=True)
class Worst:
    """Where a model is weakest."""

    type: int
    """Row of the lowest mean over severities."""
    type_score: float
    tenth: Bool[np.ndarray, "T S"]
    """The lowest tenth of the cells, at least one; the earlier one of equal cells."""
    tenth_score: float


def worst(scores: Float[np.ndarray, "T S"]) -> Worst:
    """The worst type and the worst tenth of the grid."""
    means = scores.mean(axis=1)
    row = int(means.argmin())
    lowest = np.argsort(scores, axis=None, kind="stable")[: max(1, round(TAIL * scores.size))]
    tenth = np.zeros(scores.size, dtype=bool)
    tenth[lowest] = True
    return Worst(row, float(means[row]), tenth.reshape(scores.shape), float(scores.flat[lowest].mean()))


def overlap(errors: Float[np.ndarray, "T Q"]) -> tuple[Float[np.ndarray, "T T"], float]:
    """Do types of corruption measure different things? Correlation (Pearson) of each query's errors between types.

    Args:
        errors: of each query under each type, such as 1 - AP averaged over severities, or what of it is beyond the
            clean error.

    Returns:
        The matrix, and the mean off its diagonal: near 1, one type would have done. A type whose errors are all equal
        correlates with nothing (NaN, and out of the mean).

    Example:
        >>> matrix, mean = overlap(np.array([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6], [0.9, 0.5, 0.1]]))
        >>> matrix.round(2).tolist(), round(mean, 2)  # 1, -1 and -1
        ([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]], -0.33)
    """
    centred = errors - errors.mean(axis=1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(axis=1))
    unit = centred / np.where(lengths > 1e-12, lengths, np.nan)[:, None]
    matrix = unit @ unit.T
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    others = others[~np.isnan(others)]
    return matrix, float(others.mean()) if len(others) else math.nan


def _mean_ratio(ours: NDArray[np.float64], reference: NDArray[np.float64], what: str) -> float:
    flawless = np.flatnonzero(reference <= 1e-12)
    if len(flawless):
        raise UsageError(f"the reference {what} in {len(flawless)} of {len(reference)} types, so no ratio exists")
    return float(np.mean(ours / reference))


def _refuse_other_grid(errors: Float[np.ndarray, "T S"], reference: Float[np.ndarray, "t s"]) -> None:
    if errors.shape != reference.shape:
        raise UsageError(f"a grid of {errors.shape} has no ratio to a reference of {reference.shape}")
