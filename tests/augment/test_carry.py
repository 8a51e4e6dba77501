"""Body parts carried by key points, against places worked out by hand."""

import torch

from dapg.augment.carry import carry
from dapg.augment.skeleton import canonical_poses
from dapg.core.key_points import NUMBER_OF, mirror
from dapg.core.rng import generator_from

SIZE = (64, 32)
FRONT, BACK, LEFT = (canonical_poses()[name][None] for name in ("front", "back", "left"))


def picture(count: int = 1) -> torch.Tensor:
    """Smooth, so that interpolation costs little, and nowhere 0."""
    coarse = torch.rand(count, 3, 8, 4, generator=generator_from("carry")) + 0.5
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")


def only(points: torch.Tensor, *names: str) -> torch.Tensor:
    """The other points are not found."""
    kept = torch.zeros(18)
    kept[[NUMBER_OF[name] for name in names]] = 1
    return torch.cat([points[..., :2], points[..., 2:] * kept[:, None]], dim=-1)


def limb(start: tuple[float, float], end: tuple[float, float]) -> torch.Tensor:
    """A front whose left forearm alone is found, at these pixels."""
    points = only(FRONT, "left_elbow", "left_wrist").clone()
    for name, (x, y) in (("left_elbow", start), ("left_wrist", end)):
        points[0, NUMBER_OF[name], :2] = torch.tensor([x / SIZE[1], y / SIZE[0]])
    return points


def test_in_its_own_pose_a_person_stays_as_it_is() -> None:
    before = picture(3)
    points = torch.cat([FRONT, BACK, LEFT])
    after = carry(before, points, points)
    cover = after[:, 3:]
    assert 0.1 < float(cover.mean()) < 0.6
    there = (cover > 0).expand(-1, 3, -1, -1)
    torch.testing.assert_close(after[:, :3][there], before[there], atol=1e-4, rtol=0)
    assert not after[:, :3][~there].any()


def test_a_moved_person_is_found_where_it_went() -> None:
    before = picture()
    moved = FRONT.clone()
    moved[..., 0] += 4 / SIZE[1]
    moved[..., 1] -= 2 / SIZE[0]
    there = carry(before, FRONT, moved)
    here = carry(before, FRONT, FRONT)
    torch.testing.assert_close(there[:, :, 2:60, 6:], here[:, :, 4:62, 2:-4], atol=1e-4, rtol=0)


def test_a_forearm_turned_by_a_right_angle() -> None:
    """From upright at (8, 20)-(8, 32) to level at (12, 40)-(24, 40): d pixels along and c to its left keep their place.

    Down becomes right, and so the right-hand side, seen along it, becomes the upper.
    """
    before = picture()
    after = carry(before, limb((8, 20), (8, 32)), limb((12, 40), (24, 40)))[0]
    for along in (0.5, 3.5, 7.5, 11.5):
        for across in (-0.5, 0.5):
            row, column = 40 + across, 12 + along
            old_row, old_column = 20 + along, 8 - across
            found = after[:3, int(row), int(column)]
            torch.testing.assert_close(found, before[0, :, int(old_row), int(old_column)], atol=1e-4, rtol=0)
    assert float(after[3, 40, 17]) == 1
    assert float(after[3, 10, 17]) == 0


def test_twice_as_long_a_forearm_is_stretched() -> None:
    before = torch.zeros(1, 3, *SIZE)
    before[:, :, 26:] = 1  # the lower half of the forearm
    after = carry(before, limb((8, 20), (8, 32)), limb((16, 20), (16, 44)))[0, 0]
    assert float(after[31, 16]) < 0.5 < float(after[33, 16])


def test_what_is_not_found_is_not_carried() -> None:
    """In either pose; and nothing is carried from outside the image."""
    before = picture()
    assert not carry(before, only(FRONT), FRONT).any()
    assert not carry(before, FRONT, only(FRONT)).any()
    whole = carry(before, FRONT, FRONT)[:, 3]
    part = carry(before, only(FRONT, "left_elbow", "left_wrist"), FRONT)[:, 3]
    assert 0 < float(part.sum()) < 0.2 * float(whole.sum())
    outside = FRONT.clone()
    outside[..., 0] += 2
    assert not carry(before, outside, FRONT).any()
    lost = FRONT.clone()
    lost[..., :2] = torch.nan
    assert carry(before, lost, FRONT).isfinite().all()


def test_no_face_goes_to_a_back() -> None:
    names = ("neck", "nose", "right_ear", "left_ear", "left_shoulder", "right_shoulder")
    head = {name: only(points, *names)[None] for name, points in canonical_poses().items()}
    covered = {
        (source, target): bool(carry(picture(), head[source], head[target])[:, 3].any())
        for source in head
        for target in head
    }
    assert [pair for pair, there in covered.items() if not there] == [("front", "back"), ("back", "front")]


def test_a_trunk_turned_about_is_mirrored() -> None:
    """What hangs on the left shoulder is right in an image of the front, and left in one of the back."""
    trunk = ("neck", "left_hip", "right_hip")
    before = torch.zeros(1, 3, *SIZE)
    before[:, :, :, SIZE[1] // 2 :] = 1
    middle = int(SIZE[0] * 0.35)
    for target, first in ((BACK, 1.0), (FRONT, 0.0)):
        after = carry(before, only(FRONT, *trunk), only(target, *trunk))[0]
        seen = after[0, middle, after[3, middle] == 1]
        assert abs(float(seen[0]) - first) < 0.1
        assert abs(float(seen[-1]) - (1 - first)) < 0.1


def test_a_mirrored_pair_gives_the_mirrored_picture() -> None:
    before = picture()
    after = carry(before, FRONT, LEFT)
    flipped = carry(before.flip(3), mirror(FRONT), mirror(LEFT))
    torch.testing.assert_close(flipped.flip(3), after, atol=1e-3, rtol=0)


def test_persons_do_not_hang_on_the_batch_and_gradients_flow() -> None:
    before = picture(2).requires_grad_()
    both = carry(before, torch.cat([FRONT, BACK]), torch.cat([LEFT, LEFT]))
    for number, points in enumerate((FRONT, BACK)):
        torch.testing.assert_close(carry(before[number : number + 1], points, LEFT), both[number : number + 1])
    both.sum().backward()
    assert before.grad is not None
    assert bool(before.grad.abs().sum() > 0)
