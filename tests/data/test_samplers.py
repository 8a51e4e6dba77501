"""Which images belong to step t: a function of seed and step, whoever asks and in which order."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapg.core.errors import UsageError
from dapg.data.samplers import InfiniteSampler, LocalBatches, Sampler


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 40), seed=st.integers(0, 5))
def test_no_picture_twice_per_epoch_and_few_left_out(count: int, batch: int, seed: int) -> None:
    batch = min(batch, count)
    sampler = InfiniteSampler(count, batch, seed)
    steps = count // batch
    for epoch in range(3):
        seen = list(chain.from_iterable(sampler.batch(epoch * steps + step) for step in range(steps)))
        assert len(seen) == len(set(seen)) == steps * batch
        assert set(seen) <= set(range(count))


def test_pictures_left_out_of_an_epoch_have_their_turn_in_others() -> None:
    sampler = InfiniteSampler(10, 4, seed=0)  # two of ten sit out each epoch
    assert set(chain.from_iterable(sampler.batch(step) for step in range(20))) == set(range(10))


def test_a_batch_is_a_function_of_seed_and_step_only() -> None:
    forwards, backwards = InfiniteSampler(10, 4, seed=3), InfiniteSampler(10, 4, seed=3)
    there = [forwards.batch(step) for step in range(30)]
    back = [backwards.batch(step) for step in reversed(range(30))]
    assert there == back[::-1]
    assert InfiniteSampler(10, 4, seed=3).batch(17) == there[17]
    assert [InfiniteSampler(10, 4, seed=4).batch(step) for step in range(30)] != there


def test_epochs_have_orders_of_their_own() -> None:
    sampler = InfiniteSampler(50, 50, seed=0)
    assert len({tuple(sampler.batch(step)) for step in range(10)}) == 10


def test_the_first_place_is_shared_fairly() -> None:
    """Over 600 epochs each of six images comes first about 100 times (six standard deviations: 55)."""
    firsts = Counter(InfiniteSampler(6, 6, seed).batch(step)[0] for seed in range(6) for step in range(100))
    assert set(firsts) == set(range(6))
    assert max(abs(count - 100) for count in firsts.values()) < 55


def test_too_few_pictures() -> None:
    with pytest.raises(UsageError, match=r"5 images are too few for a batch of 8; lower --train\.batch_size"):
        InfiniteSampler(5, 8, 0)
    assert sorted(InfiniteSampler(8, 8, 0).batch(0)) == list(range(8))


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 3)])
def test_processes_and_parts_together_are_the_one_process_batch(processes: int, parts: int) -> None:
    sampler = InfiniteSampler(100, 24, seed=1)
    shards = [
        list(LocalBatches(sampler, 2, 6, rank=rank, world_size=processes, accumulation=parts))
        for rank in range(processes)
    ]
    for place, step in enumerate(range(2, 6)):
        pieces = [shards[rank][place * parts + part] for part in range(parts) for rank in range(processes)]
        assert [len(piece) for piece in pieces] == [24 // processes // parts] * len(pieces)
        assert list(chain.from_iterable(pieces)) == sampler.batch(step)


def test_first_position_says_where_a_slice_begins() -> None:
    sampler = InfiniteSampler(100, 24, seed=1)
    for rank in range(2):
        batches = LocalBatches(sampler, 0, 1, rank=rank, world_size=2, accumulation=3)
        assert batches.local_size == 4
        assert len(batches) == 3
        for part, piece in enumerate(batches):
            first = batches.first_position(part)
            assert piece == sampler.batch(0)[first : first + 4]


def test_resuming_is_a_number() -> None:
    sampler = InfiniteSampler(30, 6, seed=0)
    assert list(LocalBatches(sampler, 0, 10))[7:] == list(LocalBatches(sampler, 7, 10))
    assert list(LocalBatches(sampler, 10, 10)) == []


def test_uneven_split_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 10 cannot be split evenly over 2 processes x 3 accumulated"):
        LocalBatches(InfiniteSampler(30, 10, 0), 0, 1, world_size=2, accumulation=3)


def test_it_is_a_sampler() -> None:
    assert isinstance(InfiniteSampler(2, 1, 0), Sampler)
