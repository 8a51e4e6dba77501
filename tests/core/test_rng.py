"""Randomness as an argument: published values, independence of rows, and the shapes of the distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapg.core import rng
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.seeds import derive_seed

MASK = 2**64 - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator in plain whole numbers (Steele, Lea, Flood 2014)."""
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        value = seed
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(value ^ (value >> 31))
    return outputs


def mix(value: int) -> int:
    """The mixing function alone: the first output for the seed one increment before ``value``."""
    return splitmix64((value - 0x9E3779B97F4A7C15) & MASK, 1)[0]


def unsigned(values: torch.Tensor) -> list[int]:
    return [value & MASK for value in values.flatten().tolist()]


DRAWS = {
    "bits": lambda g: g.bits(3, 2),
    "uniform": lambda g: g.uniform(5, low=-1.0, high=2.0),
    "normal": lambda g: g.normal(4),
    "field": lambda g: g.field(3, 7, 5),
    "uniform_field": lambda g: g.uniform_field(3, 7, 5),
    "normal_field": lambda g: g.normal_field(3, 7, 5),
    "integers": lambda g: g.integers(9, 6, low=-3),
    "bernoulli": lambda g: g.bernoulli(0.4, 8),
    "permutation": lambda g: g.permutation(7),
    "exponential": lambda g: g.exponential(3),
}


def test_plain_splitmix64_gives_the_published_values() -> None:
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**63, MASK])
def test_the_tensor_mixer_is_splitmix64s(seed: int) -> None:
    states = [(seed + step * 0x9E3779B97F4A7C15) & MASK for step in range(1, 6)]
    mixed = rng._mix(torch.tensor([rng._signed(state) for state in states]))
    assert unsigned(mixed) == splitmix64(seed, 5)


def test_bits_is_splitmix64_from_a_mixed_seed_and_draw_number() -> None:
    """Element n of draw d of seed s is output n of the generator that starts at mix(s + d increments)."""
    generator = SampleGenerator(torch.tensor([5, -7]))
    for draw in (1, 2):
        rows = generator.bits(4)
        for row, seed in zip(rows, (5, -7), strict=True):
            key = mix((seed + draw * 0x9E3779B97F4A7C15) & MASK)
            assert unsigned(row) == splitmix64(key, 4)


def test_the_32_bit_field_equals_plain_whole_numbers() -> None:
    seed, low = 11, 0xFFFFFFFF
    key = mix((seed + 0x9E3779B97F4A7C15) & MASK)
    expected = []
    for counter in range(1, 40):
        value = (counter * 0x9E3779B9 & low) ^ (key & low)
        value = ((value ^ (value >> 16)) * 0x7FEB352D) & low
        value ^= value >> 15
        value = ((value + (key >> 32)) * 0x846CA68B) & low
        expected.append(value ^ (value >> 16))
    drawn = SampleGenerator(torch.tensor([seed])).field(39)
    assert [value & low for value in drawn[0].tolist()] == expected


@pytest.mark.parametrize("name", DRAWS)
def test_a_row_hangs_on_its_own_seed_alone(name: str) -> None:
    draw = DRAWS[name]
    seeds = torch.tensor([8, 3, -4, 2**62, 3])
    together = draw(SampleGenerator(seeds))
    for row, seed in enumerate(seeds):
        assert torch.equal(draw(SampleGenerator(seed[None]))[0], together[row])
    order = torch.tensor([4, 0, 3, 1, 2])
    assert torch.equal(draw(SampleGenerator(seeds[order])), together[order])
    assert torch.equal(together[1], together[4]), "equal seeds, equal rows"
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", ["field", "uniform_field", "normal_field"])
def test_fields_larger_than_the_cache_chunk_agree_with_single_rows(name: str) -> None:
    """70,000 elements: one row a chunk; the buffer is reused from row to row."""
    seeds = torch.tensor([1, 2, 3])
    whole = getattr(SampleGenerator(seeds), name)(70_000)
    for row in range(3):
        assert torch.equal(getattr(SampleGenerator(seeds[row : row + 1]), name)(70_000)[0], whole[row])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6), split=st.integers(1, 7))
def test_two_processes_draw_what_one_draws(seed: int, step: int, split: int) -> None:
    whole = SampleGenerator.for_step(seed, step, torch.arange(8)).uniform(3)
    first = SampleGenerator.for_step(seed, step, torch.arange(split)).uniform(3)
    second = SampleGenerator.for_step(seed, step, torch.arange(split, 8)).uniform(3)
    assert torch.equal(torch.cat([first, second]), whole)


def test_steps_seeds_and_indices_are_all_told_apart() -> None:
    seeds = [
        SampleGenerator.for_step(seed, step, torch.arange(50)).seeds for seed in (0, 1, 2) for step in (0, 1, 2, 1000)
    ]
    assert len(set(torch.cat(seeds).tolist())) == 600


def test_a_fork_stands_apart_from_draws_and_from_other_forks() -> None:
    plain, used = SampleGenerator(torch.tensor([1, 2])), SampleGenerator(torch.tensor([1, 2]))
    used.uniform(100)
    before = used.bits(2)
    assert torch.equal(plain.fork("crop").bits(4), used.fork("crop").bits(4)), "draws made before do not matter"
    assert not torch.equal(plain.fork("crop").bits(4), plain.fork("flip").bits(4))
    assert not torch.equal(plain.fork("crop").bits(4), SampleGenerator(torch.tensor([1, 2])).bits(4))
    again = SampleGenerator(torch.tensor([1, 2]))
    again.uniform(100)
    again.fork("extra").normal(50)
    assert torch.equal(again.bits(2), before), "a draw in a fork moves nothing outside"


def test_draws_after_each_other_differ_and_are_counted_not_measured() -> None:
    one, other = SampleGenerator(torch.tensor([1])), SampleGenerator(torch.tensor([1]))
    first = one.bits(4)
    other.bits(400)
    assert not torch.equal(first, one.bits(4))
    one = SampleGenerator(torch.tensor([1]))
    one.bits(4)
    assert torch.equal(one.bits(3), other.bits(3)), "the size of an earlier draw does not move later ones"


def test_rows_go_on_where_the_batch_is() -> None:
    generator = SampleGenerator(torch.tensor([5, 6, 7]))
    generator.uniform(2)
    chosen = generator.rows(torch.tensor([True, False, True]))
    assert torch.equal(chosen.bits(3), generator.bits(3)[[0, 2]])


def test_no_rows_and_no_elements() -> None:
    empty = SampleGenerator(torch.tensor([], dtype=torch.int64))
    assert empty.uniform(3).shape == (0, 3)
    assert empty.normal_field(3, 4).shape == (0, 3, 4)
    assert SampleGenerator(torch.tensor([1, 2])).uniform().shape == (2,)
    assert SampleGenerator(torch.tensor([1, 2])).uniform_field(0, 4).shape == (2, 0, 4)


N = 200_000


@pytest.mark.parametrize("name", ["uniform", "uniform_field"])
def test_uniform_statistics(name: str) -> None:
    """Mean and share per twentieth within six standard errors; never 1."""
    values = getattr(SampleGenerator(torch.arange(4)), name)(N // 4).flatten()
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    assert abs(float(values.mean()) - 0.5) < 6 * math.sqrt(1 / 12 / N)
    share = torch.histc(values, 20, 0, 1) / N
    assert float((share - 0.05).abs().max()) < 6 * math.sqrt(0.05 * 0.95 / N)


@pytest.mark.parametrize("name", ["normal", "normal_field"])
def test_normal_statistics(name: str) -> None:
    """Moments, tails, and no correlation between neighbours, between the two halves of a row, or between rows."""
    rows = getattr(SampleGenerator(torch.arange(4)), name)(N // 4)
    values = rows.flatten()
    assert bool(values.isfinite().all())
    error = 6 / math.sqrt(N)
    assert abs(float(values.mean())) < error
    assert abs(float(values.var()) - 1) < error * math.sqrt(2)
    assert abs(float((values**3).mean())) < error * math.sqrt(15)
    assert abs(float((values**4).mean()) - 3) < error * math.sqrt(96)
    assert abs(float((values.abs() > 1.96).float().mean()) - 0.05) < error * math.sqrt(0.05)
    half = N // 8
    pairs = [(rows[:, 1:], rows[:, :-1]), (rows[:, :half], rows[:, half:]), (rows[0], rows[1]), (rows[1], rows[3])]
    for a, b in pairs:
        assert abs(float((a * b).mean())) < 6 / math.sqrt(a.numel())


def test_consecutive_sample_indices_are_uncorrelated() -> None:
    """Column 0 over 50,000 neighbouring indices: what crops and flips of one batch are made of."""
    values = SampleGenerator.for_step(0, 3, torch.arange(50_000)).uniform(2) - 0.5
    bound = 6 * (1 / 12) / math.sqrt(50_000)
    assert abs(float((values[1:, 0] * values[:-1, 0]).mean())) < bound
    assert abs(float((values[:, 0] * values[:, 1]).mean())) < bound


def test_integers_bernoulli_exponential_statistics() -> None:
    generator = SampleGenerator(torch.arange(4))
    counts = torch.bincount(generator.integers(5, N // 4, low=-2).flatten() + 2)
    assert len(counts) == 7
    assert float((counts / N - 1 / 7).abs().max()) < 6 * math.sqrt(1 / 7 / N)
    assert abs(float(generator.bernoulli(0.3, N // 4).float().mean()) - 0.3) < 6 * math.sqrt(0.21 / N)
    assert not generator.bernoulli(0.0, N // 4).any()
    assert bool(generator.bernoulli(1.0, N // 4).all())
    waits = generator.exponential(N // 4)
    assert float(waits.min()) >= 0
    assert abs(float(waits.mean()) - 1) < 6 / math.sqrt(N)
    wide = generator.integers(2**31, 1000)
    assert int(wide.min()) >= 0
    assert int(wide.max()) > 2**30


def test_permutation_is_one_and_uniform() -> None:
    orders = SampleGenerator(torch.arange(24_000)).permutation(4)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(24_000, 4))
    codes = torch.bincount(orders @ torch.tensor([64, 16, 4, 1]))
    codes = codes[codes > 0]
    assert len(codes) == 24
    assert float((codes - 1000).abs().max()) < 6 * math.sqrt(1000)


def test_uniform_stays_below_high_where_rounding_would_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 + (1 - 2^-24) is no float32; rounded to even it would be 2, one past the last index of a two-entry table."""
    monkeypatch.setattr(SampleGenerator, "bits", lambda self, *size: torch.full((len(self), *size), -1))
    values = SampleGenerator(torch.tensor([1])).uniform(3, low=1.0, high=2.0)
    assert float(values.max()) < 2.0
    assert float(values.max()) > 1.9999


def test_derive_seed_is_fixed_for_ever() -> None:
    """By hand: BLAKE2b-64 of the typed parts, little-endian, without the lowest bit. Stored results hang on it."""
    import hashlib

    digest = hashlib.blake2b(b"str:step\x1fint:3\x1fint:14", digest_size=8).digest()
    assert derive_seed("step", 3, 14) == int.from_bytes(digest, "little") // 2
    assert derive_seed("3") != derive_seed(3)
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert 0 <= derive_seed("x") < 2**63


def test_generator_from_repeats() -> None:
    one, same, other = (torch.rand(5, generator=generator_from("x", number)) for number in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
