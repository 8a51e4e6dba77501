"""Channel augmentation and CIL's erasing: shares, exact values, and the wrap."""

import pytest
import torch

from dapg.augment import channel, erasing
from dapg.core.rng import SampleGenerator


def streams(count: int) -> SampleGenerator:
    return SampleGenerator(torch.arange(count))


def pixel() -> torch.Tensor:
    return torch.tensor([0.1, 0.5, 0.8]).view(1, 3, 1, 1)


def what_happened(result: torch.Tensor) -> list[str]:
    luma = 0.2989 * 0.1 + 0.5870 * 0.5 + 0.1140 * 0.8
    known = {(0.1, 0.1, 0.1): "red", (0.5, 0.5, 0.5): "green", (0.8, 0.8, 0.8): "blue", (0.1, 0.5, 0.8): "same"}
    known[(round(luma, 4),) * 3] = "luma"
    return [known[tuple(round(v, 4) for v in row)] for row in result.flatten(1).tolist()]


def shares(result: torch.Tensor) -> dict[str, float]:
    found = what_happened(result)
    return {name: found.count(name) / len(found) for name in set(found)}


def near(expected: dict[str, float]) -> dict[str, object]:
    return {name: pytest.approx(value, abs=0.03) for name, value in expected.items()}


def test_channel_shares() -> None:
    images = pixel().expand(4000, -1, -1, -1)
    third, quarter = 1 / 3, 1 / 4
    exchanged = channel.channel_exchange(images, streams(4000))
    assert shares(exchanged) == near({"red": third, "green": third, "blue": third})
    adapted = channel.channel_adapt_grey(images, streams(4000), 0.5)
    assert shares(adapted) == near({"red": quarter, "green": quarter, "blue": quarter, "luma": 0.125, "same": 0.125})
    adapted = channel.channel_adapt_grey(images, streams(4000), 0.0)
    assert shares(adapted) == near({"red": quarter, "green": quarter, "blue": quarter, "same": quarter})


def test_soft_erasing_mixes_one_rectangle_with_normal_noise() -> None:
    images = torch.full((3000, 3, 24, 16), 0.5)
    result = erasing.soft_erasing(images, streams(3000))
    changed = (result != 0.5).all(dim=1)
    share = changed.flatten(1).float().mean(dim=1)
    assert 0.45 < (share > 0).float().mean() < 0.55
    hit = share > 0
    for row in hit.nonzero()[:20, 0].tolist():
        rows, columns = changed[row].any(dim=1).sum(), changed[row].any(dim=0).sum()
        assert int(changed[row].sum()) == int(rows * columns)
    # (1 - m) 0.5 + m N(0, 1): mean (1 - m) / 2, deviation m; E m = 1/3, E m² = 1/5.
    big = hit & (share > 0.15)
    deviation = torch.stack([result[row][:, changed[row]].std() for row in big.nonzero()[:, 0].tolist()])
    assert float(deviation.mean()) == pytest.approx(1 / 3, abs=0.03)
    assert float((deviation**2).mean()) == pytest.approx(1 / 5, abs=0.03)


def test_self_mixing_takes_a_patch_of_the_same_picture() -> None:
    images = torch.rand(300, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    result = erasing.self_mixing(images, streams(300), probability=1.0)
    generator = streams(300)
    generator.bernoulli(1.0)
    from dapg.augment.basic import draw_rectangles

    rectangles, found = draw_rectangles(24, 16, generator)
    share = generator.uniform() ** 2
    place = generator.uniform(2)
    assert found.all()
    for row, (top, left, tall, wide) in enumerate(rectangles.tolist()):
        down = int(place[row, 0] * (24 - tall + 1))
        right = int(place[row, 1] * (16 - wide + 1))
        expected = images[row].clone()
        other = images[row, :, down : down + tall, right : right + wide]
        patch = expected[:, top : top + tall, left : left + wide]
        expected[:, top : top + tall, left : left + wide] = (1 - share[row]) * patch + share[row] * other
        torch.testing.assert_close(result[row], expected, atol=1e-5, rtol=0)


def test_wrap_and_clip_by_hand() -> None:
    values = torch.tensor([-0.1, 0.0, 100 / 255, 1.0, 1.2]).repeat(3).view(1, 3, 5, 1)
    clipped = erasing.to_image(values)[0, 0, :, 0] * 255
    assert clipped.round().tolist() == [0, 0, 100, 255, 255]
    wrapped = erasing.to_image(values, legacy_wrap=True)[0, 0, :, 0] * 255
    # -25.5 is cut to -25, which is 231 in a byte; 306 is 50.
    assert wrapped.round().tolist() == [231, 0, 100, 255, 50]


def test_cil_erasing_is_a_picture_again() -> None:
    images = torch.rand(50, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    for wrap in (False, True):
        result = erasing.cil_erasing(images, streams(50), legacy_wrap=wrap)
        assert 0 <= result.min() <= result.max() <= 1
        torch.testing.assert_close(result * 255, (result * 255).round(), atol=1e-3, rtol=0)
    assert not torch.equal(erasing.cil_erasing(images, streams(50)), erasing.cil_erasing(images, streams(50), True))


def test_mixed_channels_are_one_weighted_mean() -> None:
    """Mixing is linear: pure red, green and blue show the weights, which sum to 1; grey images stay as they are."""
    draws = streams(64)
    pure = torch.eye(3).view(1, 3, 3, 1).expand(64, 3, 3, 2)  # row r of an image has channel r alone
    mixed = channel.channel_mix(pure, draws, probability=1.0)
    assert torch.equal(mixed[:, :1].expand_as(mixed), mixed)
    torch.testing.assert_close(mixed[:, 0, :, 0].sum(1), torch.ones(64))
    leading = mixed[:, 0, :, 0].argmax(1)
    assert set(leading.tolist()) == {0, 1, 2}
    half = channel.channel_mix(pure, draws, probability=0.5)
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(half, pure, strict=True)])
    assert 16 < int(kept.sum()) < 48
    assert torch.equal(half[~kept], mixed[~kept])  # the weights do not depend on the probability
    grey = torch.rand(64, 1, 4, 2).expand(64, 3, 4, 2)
    torch.testing.assert_close(channel.channel_mix(grey, draws, probability=1.0), grey)
