"""The noise chain: what contains what, types without replacement, weights, both geometries."""

import pytest
import torch

from dapg.augment.noise_chain import corrupt_repeatedly, mix, noise_chain
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library


def views(count: int = 6, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear")


def streams(count: int = 6) -> SampleGenerator:
    return SampleGenerator(torch.arange(count) + 10)


def test_each_view_contains_the_one_before() -> None:
    anchor, generator = views(), streams()
    chain = noise_chain(anchor, generator)
    for row in range(6):
        picture = anchor[row : row + 1]
        alone = generator.rows(torch.tensor([row]))
        for step, view in enumerate((chain.query, chain.first, chain.second)):
            level = chain.severities[row, step : step + 1]
            drawn = library.draw(picture.shape, [chain.names[row][step]], level, alone.fork(f"noise {step}"))
            picture = library.apply(picture, drawn)
            torch.testing.assert_close(picture[0], view[row], atol=2e-2, rtol=0)


def test_three_different_types_and_the_asked_severities() -> None:
    chain = noise_chain(views(200), streams(200), severities=(2, 4))
    assert all(len(set(three)) == 3 for three in chain.names)
    assert {name for three in chain.names for name in three} == set(library.IMAGENET_C)
    assert sorted(chain.severities.unique().tolist()) == [2, 3, 4]
    few = noise_chain(views(), streams(), names=("fog", "snow", "contrast"))
    assert {name for three in few.names for name in three} == {"fog", "snow", "contrast"}


def test_the_mixture_lies_between_and_obeys_its_rule() -> None:
    anchor = views()
    chain = noise_chain(anchor, streams())
    stacked = torch.stack([anchor, chain.query, chain.first, chain.second])
    assert (chain.mixed >= stacked.amin(dim=0) - 1e-5).all()
    assert (chain.mixed <= stacked.amax(dim=0) + 1e-5).all()
    # One solution of weights for all pixels of a sample reproduces the mixture, sums to 1 and is not negative.
    for row in range(6):
        columns = stacked[:, row].flatten(1).T.double()
        solution = torch.linalg.lstsq(columns, chain.mixed[row].flatten()[:, None].double()).solution[:, 0]
        assert (columns @ solution - chain.mixed[row].flatten()).abs().max() < 1e-3
        assert float(solution.sum()) == pytest.approx(1, abs=2e-2)
    weights = noise_chain(anchor, streams(), mixture="weights")
    share = streams().fork("weights").exponential(3)
    share /= share.sum(dim=1, keepdim=True)
    expected = sum(
        share[:, k, None, None, None] * view for k, view in enumerate((weights.query, weights.first, weights.second))
    )
    torch.testing.assert_close(weights.mixed, expected, atol=1e-5, rtol=0)


def test_mix_by_hand() -> None:
    clean = torch.full((1, 3, 1, 1), 0.5)
    chains = torch.stack([torch.full((1, 3, 1, 1), v) for v in (0.0, 0.2, 1.0)], dim=1)
    result = mix(clean, chains, torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0.4]))
    assert result.flatten().tolist() == pytest.approx([0.6 * 0.5 + 0.4 * (0.3 * 0.2 + 0.2 * 1.0)] * 3)


def test_per_view_geometry_uses_the_same_draws_on_other_views() -> None:
    anchor = views()
    shared = noise_chain(anchor, streams())
    own = noise_chain(anchor, streams(), others=(views(6, 1), views(6, 2), anchor))
    assert own.names == shared.names
    assert torch.equal(own.query, shared.query)
    assert torch.equal(own.mixed, shared.mixed)
    assert not torch.equal(own.first, shared.first)
    same = noise_chain(anchor, streams(), others=(anchor.clone(), anchor.clone(), anchor.clone()))
    for view in ("query", "first", "second", "mixed"):
        assert torch.equal(getattr(same, view), getattr(shared, view))


def test_x_mix_mixes_a_chain_on_its_own_view() -> None:
    anchor, second = views(), views(6, 2)
    on_second = noise_chain(anchor, streams(), others=(views(6, 1), second, second))
    assert torch.equal(on_second.mixed, noise_chain(second, streams()).mixed)
    assert torch.equal(on_second.second, noise_chain(second, streams()).second)
    assert torch.equal(on_second.query, noise_chain(anchor, streams()).query)


def test_repeated_corruption_stops_after_none_to_three_links_of_the_chain() -> None:
    pictures = views(24)
    chain = noise_chain(pictures, streams(24))
    stages = (pictures, chain.query, chain.first, chain.second)
    corrupted = corrupt_repeatedly(pictures, streams(24))
    counts = [next(n for n, stage in enumerate(stages) if torch.equal(corrupted[row], stage[row])) for row in range(24)]
    assert counts == streams(24).fork("times").integers(4).tolist()
    assert set(counts) == {0, 1, 2, 3}


def test_chunks_change_nothing_and_mistakes_are_named() -> None:
    anchor = views()
    whole, parts = noise_chain(anchor, streams()), noise_chain(anchor, streams(), chunk=2)
    assert whole.names == parts.names
    assert ((whole.mixed - parts.mixed).abs() < 1e-2).float().mean() > 0.999
    with pytest.raises(UsageError, match="three different"):
        noise_chain(anchor, streams(), names=("fog", "fog", "snow"))
    with pytest.raises(UsageError, match="range"):
        noise_chain(anchor, streams(), severities=(3, 6))
