"""PCK by hand."""

import math

import torch

from dapg.core.key_points import LEFT_HIP, NECK, NUMBER_OF, RIGHT_HIP
from dapg.pose.scores import errors, pck, torso_lengths


def person() -> torch.Tensor:
    """Neck at (0.5, 0.2), hips at (0.4, 0.6) and (0.6, 0.6): a torso 0.4 heights long."""
    points = torch.full((1, 18, 3), 0.5)
    points[0, NECK, :2] = torch.tensor([0.5, 0.2])
    points[0, LEFT_HIP, :2] = torch.tensor([0.6, 0.6])
    points[0, RIGHT_HIP, :2] = torch.tensor([0.4, 0.6])
    return points


HALF = torch.tensor([0.5])


def test_torso_length_and_errors_count_in_true_lengths() -> None:
    truth = person()
    torch.testing.assert_close(torso_lengths(truth, HALF), torch.tensor([0.4]))
    moved = truth.clone()
    moved[0, 0, 0] += 0.16  # 0.08 heights in an image half as wide as high: 0.2 torsos
    moved[0, 1, 1] -= 0.04  # 0.1 torsos
    moved[0, 2, :2] += torch.tensor([0.24, 0.16])  # 0.12 across, 0.16 down: 0.2 heights, 0.5 torsos
    moved[0, 3, 2] = 0.0  # not found
    found = errors(moved, truth, HALF)[0]
    torch.testing.assert_close(found[:3], torch.tensor([0.2, 0.1, 0.5]))
    assert math.isinf(found[3])
    assert float(found[4:].max()) == 0


def test_pck_counts_true_points_only() -> None:
    truth, moved = person(), person()
    truth[0, 10:, 2] = 0.0  # ten true points
    moved[0, 0, 0] += 0.12  # 0.15 torsos
    moved[0, 2, 2] = 0.0
    moved[0, 17, 0] += 5  # nobody knows where that is
    torch.testing.assert_close(pck(moved, truth, HALF, 0.2), torch.tensor([0.9]))
    torch.testing.assert_close(pck(moved, truth, HALF, 0.1), torch.tensor([0.8]))
    truth[..., 2] = 0.0
    assert float(pck(moved, truth, HALF)) == 0


def test_left_and_right_exchanged_is_wrong() -> None:
    truth = person()
    swapped = truth.clone()
    left, right = NUMBER_OF["left_hip"], NUMBER_OF["right_hip"]
    swapped[0, [left, right]] = truth[0, [right, left]]
    assert math.isclose(float(errors(swapped, truth, HALF)[0, left]), 0.25, rel_tol=1e-5)
