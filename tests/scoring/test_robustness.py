"""Measures of a grid of corruptions, worked by hand."""

import math

import numpy as np
import pytest

from dapg.core.errors import UsageError
from dapg.scoring import robustness

ERRORS = np.array([[0.2, 0.4], [0.3, 0.5]])


def test_the_reference_itself_is_one() -> None:
    assert robustness.mean_corruption_error(ERRORS, ERRORS) == 1
    assert robustness.relative_corruption_error(ERRORS, 0.1, ERRORS, 0.1) == 1


def test_types_count_alike_however_hard_they_are() -> None:
    """Halving the small error of one type counts as much as halving the large one of another."""
    reference = np.array([[0.02, 0.02], [0.9, 0.9]])
    assert robustness.mean_corruption_error(reference * [[0.5], [1]], reference) == pytest.approx(0.75)
    assert robustness.mean_corruption_error(reference * [[1], [0.5]], reference) == pytest.approx(0.75)


def test_what_is_beyond_the_clean_error_by_hand() -> None:
    """(0.1 + 0.3) / (0.1 + 0.3) = 1 and (0.2 + 0.4) / (0.2 + 0.2) = 1.5: the mean is 1.25."""
    reference = np.array([[0.3, 0.5], [0.4, 0.4]])
    assert robustness.relative_corruption_error(ERRORS, 0.1, reference, 0.2) == pytest.approx(1.25)


def test_without_an_error_of_the_reference_there_is_no_ratio() -> None:
    with pytest.raises(UsageError, match="loses nothing in 1 of 2 types"):
        robustness.relative_corruption_error(ERRORS, 0.1, np.array([[0.2, 0.2], [0.3, 0.5]]), 0.2)
    with pytest.raises(UsageError, match="makes no error"):
        robustness.mean_corruption_error(ERRORS, np.zeros((2, 2)))
    with pytest.raises(UsageError, match="grid"):
        robustness.mean_corruption_error(ERRORS, np.ones((2, 3)))


def test_the_worst_tenth_of_a_grid() -> None:
    scores = np.arange(100).reshape(20, 5) / 100
    scores[7] = [0.9, 0.0, 0.9, 0.01, 0.9]
    worst = robustness.worst(scores)
    assert worst.type == 0
    assert worst.type_score == pytest.approx(0.02)
    # 0 and 0.01 of row 7, then 0, 0.01, ... 0.07: two of the ten come from row 7.
    assert worst.tenth.sum() == 10
    assert worst.tenth[7].tolist() == [False, True, False, True, False]
    assert worst.tenth_score == pytest.approx((0 + 0.01 + sum(range(8)) / 100) / 10)


def test_retention_is_the_mean_of_the_grid_over_the_clean_score() -> None:
    assert robustness.retention(ERRORS, 0.7) == pytest.approx(0.35 / 0.7)


def test_retention_of_nothing_is_not_a_number() -> None:
    assert math.isnan(robustness.retention(ERRORS, 0.0))


def test_overlap_leaves_out_a_type_that_all_queries_fail_alike() -> None:
    errors = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.5]])
    matrix, mean = robustness.overlap(errors)
    assert np.isnan(matrix[1]).all()
    assert mean == pytest.approx(np.corrcoef(errors[0], errors[2])[0, 1])
