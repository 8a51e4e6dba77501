"""Skeleton images: against a loop over pixels, by hand, and the canonical poses we ship."""

import math

import pytest
import torch

from dapg.augment.skeleton import COLOURS, JOINT_RADIUS, LIMB_RADIUS, LIMB_SHADE, LIMBS, canonical_poses, draw_skeletons
from dapg.core.key_points import KEY_POINT_NAMES, NUMBER_OF, mirror, usable
from dapg.core.rng import generator_from


def random_points(count: int) -> torch.Tensor:
    return torch.rand(count, 18, 3, generator=generator_from("skeleton test", count))


def segment_distance(x: float, y: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    squared = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    part = 0.0 if squared == 0 else ((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / squared
    part = min(max(part, 0.0), 1.0)
    return math.hypot(x - a[0] - part * (b[0] - a[0]), y - a[1] - part * (b[1] - a[1]))


def slow_skeleton(points: torch.Tensor, height: int, width: int, least: float) -> torch.Tensor:
    """One image, pixel by pixel, straight from the description."""
    places = [(float(x) * width, float(y) * height, float(c)) for x, y, c in points]
    strokes = [(a, b, LIMB_RADIUS * height, [LIMB_SHADE * v for v in COLOURS[i]]) for i, (a, b) in enumerate(LIMBS)]
    strokes += [(j, j, JOINT_RADIUS * height, list(COLOURS[j])) for j in range(18)]
    picture = torch.zeros(3, height, width)
    for row in range(height):
        for column in range(width):
            pixel = [0.0, 0.0, 0.0]
            for a, b, radius, colour in strokes:
                if min(places[a][2], places[b][2]) < least:
                    continue
                distance = segment_distance(column + 0.5, row + 0.5, places[a][:2], places[b][:2])
                cover = min(max(max(radius, 0.5) + 0.5 - distance, 0.0), 1.0)
                pixel = [(1 - cover) * p + cover * c / 255 for p, c in zip(pixel, colour, strict=True)]
            picture[:, row, column] = torch.tensor(pixel)
    return picture


@pytest.mark.parametrize("size", [(24, 12), (17, 23)])
def test_a_batch_equals_the_loop_over_pixels(size: tuple[int, int]) -> None:
    points = random_points(3)
    drawn = draw_skeletons(points, size, 0.4)
    assert drawn.shape == (3, 3, *size)
    for index in range(3):
        torch.testing.assert_close(drawn[index], slow_skeleton(points[index], *size, 0.4), atol=2e-5, rtol=0)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    points = random_points(5)
    torch.testing.assert_close(draw_skeletons(points, (32, 16))[3:4], draw_skeletons(points[3:4], (32, 16)))


def test_a_joint_stands_where_it_is_put_and_nothing_else_is_drawn() -> None:
    points = torch.zeros(1, 18, 3)
    points[0, NUMBER_OF["left_wrist"]] = torch.tensor([0.25, 0.75, 1.0])
    drawn = draw_skeletons(points, (128, 64))[0]
    row, column = 96, 16
    torch.testing.assert_close(drawn[:, row, column] * 255, torch.tensor(COLOURS[NUMBER_OF["left_wrist"]]).float())
    distances = (drawn.sum(0) > 0).nonzero().float() + 0.5 - torch.tensor([96.0, 16.0])
    assert float(distances.norm(dim=1).max()) < JOINT_RADIUS * 128 + 0.5


def test_points_below_the_threshold_and_nan_are_left_out() -> None:
    points = random_points(2)
    points[..., 2] = 0.0
    points[1, 3, :2] = math.nan
    assert float(draw_skeletons(points, (32, 16)).abs().max()) == 0


def test_mirroring_the_points_mirrors_the_shape_and_swaps_sides() -> None:
    points = random_points(2)
    torch.testing.assert_close(mirror(mirror(points)), points)
    left, right = NUMBER_OF["left_knee"], NUMBER_OF["right_knee"]
    torch.testing.assert_close(mirror(points)[:, left, 0], 1 - points[:, right, 0])
    torch.testing.assert_close(mirror(points)[:, left, 1:], points[:, right, 1:])


def test_canonical_poses_are_upright_whole_and_turned_as_named() -> None:
    poses = canonical_poses()
    assert list(poses) == ["front", "left", "back", "right"]
    x = {name: dict(zip(KEY_POINT_NAMES, points[:, 0].tolist(), strict=True)) for name, points in poses.items()}
    for points in poses.values():
        assert points.shape == (18, 3)
        assert float(points[:, :2].min()) > 0
        assert float(points[:, :2].max()) < 1
        ankles, nose = points[[NUMBER_OF["left_ankle"], NUMBER_OF["right_ankle"]], 1], points[0, 1]
        assert float(ankles.min() - nose) > 0.6
        assert bool(usable(points[None])[0])
    assert x["front"]["right_shoulder"] < x["front"]["left_shoulder"]  # who faces us has their right on our left
    assert x["back"]["right_shoulder"] > x["back"]["left_shoulder"]
    assert x["left"]["nose"] < x["left"]["neck"]  # who shows their left side looks to our left
    assert x["right"]["nose"] > x["right"]["neck"]
    torch.testing.assert_close(mirror(poses["left"])[:, :2], poses["right"][:, :2], atol=0.01, rtol=0)


def test_usable_wants_a_shoulder_a_hip_and_eight_points() -> None:
    points = torch.ones(4, 18, 3)
    points[1, [NUMBER_OF["left_hip"], NUMBER_OF["right_hip"]], 2] = 0.1
    points[2, [NUMBER_OF["left_shoulder"], NUMBER_OF["right_shoulder"]], 2] = 0.1
    points[3, :, 2] = 0.0
    few = [NUMBER_OF["left_hip"], NUMBER_OF["left_shoulder"], 0, 1, 3, 4, 6]
    points[3, few, 2] = 1.0
    assert usable(points).tolist() == [True, False, False, False]
    points[3, 7, 2] = 1.0
    assert usable(points).tolist() == [True, False, False, True]
