"""The identity sampler: composition, resuming, splitting over processes, even use."""

from collections import Counter

import pytest

from dapg.core.errors import UsageError
from dapg.core.types import Modality, Record
from dapg.data.identity_sampler import CrossModalSampler
from dapg.data.samplers import LocalBatches, Sampler


def people(persons: int = 12, visible: int = 6, infrared: int = 5) -> list[Record]:
    records = [Record(f"v{p}_{n}", p, 1, Modality.VISIBLE) for p in range(persons) for n in range(visible)]
    records += [Record(f"t{p}_{n}", p, 3, Modality.INFRARED) for p in range(persons) for n in range(infrared)]
    return [*records, Record("unknown")]


def test_cross_modal_batch_holds_persons_in_both_lights() -> None:
    records = people()
    sampler = CrossModalSampler(records, persons=8, images=4, seed=3)
    assert isinstance(sampler, Sampler)
    batch = [records[number] for number in sampler.batch(5)]
    assert len(batch) == sampler.batch_size == 64
    assert len({record.person for record in batch}) == 8
    for start in range(0, 64, 8):
        part = batch[start : start + 8]
        assert len({record.person for record in part}) == 1
        assert [record.modality for record in part] == [Modality.VISIBLE] * 4 + [Modality.INFRARED] * 4


def test_pictures_are_drawn_with_replacement_like_agw() -> None:
    """Four of six with replacement: all different in 6·5·4·3 / 6^4 = 27.8 % of the draws."""
    sampler = CrossModalSampler(people(), persons=8, images=4, seed=0)
    draws = [tuple(batch[start : start + 4]) for step in range(200) for batch in [sampler.batch(step)]
             for start in range(0, 64, 8)]  # fmt: skip
    share = sum(len(set(draw)) == 4 for draw in draws) / len(draws)
    assert share == pytest.approx(360 / 1296, abs=0.04)


def test_published_epoch_length() -> None:
    """SYSU-MM01: floor(22,258 / 32) + 1 = 696 batches; RegDB: floor(2,060 / 32) + 1 = 65."""
    records = [Record(f"v{n}", n % 395, 1) for n in range(22_258)]
    records += [Record(f"t{n}", n % 395, 3, Modality.INFRARED) for n in range(11_909)]
    assert CrossModalSampler(records).steps_per_epoch == 696
    records = [Record(f"{m}{n}", n % 206, 1, m) for m in Modality for n in range(2060)]
    assert CrossModalSampler(records).steps_per_epoch == 65


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again, other = (CrossModalSampler(people(), 4, 2, seed) for seed in (1, 1, 2))
    assert first.batch(7) == again.batch(7)  # without having drawn steps 0 ... 6
    assert first.batch(7) != first.batch(8)
    assert first.batch(7) != other.batch(7)


def test_processes_get_whole_persons() -> None:
    records = people()
    sampler = CrossModalSampler(records, 8, 2, 0)
    parts = [next(iter(LocalBatches(sampler, 3, 4, rank, 4))) for rank in range(4)]
    assert [number for part in parts for number in part] == sampler.batch(3)
    persons = [{records[number].person for number in part} for part in parts]
    assert [len(some) for some in persons] == [2] * 4
    assert len(set().union(*persons)) == 8


def test_every_person_is_drawn_about_equally_often() -> None:
    records = people(persons=20, visible=3, infrared=3)
    sampler = CrossModalSampler(records, 5, 2, 0)
    counts = Counter(records[number].person for step in range(1600) for number in sampler.batch(step))
    assert len(counts) == 20
    assert max(counts.values()) / min(counts.values()) < 1.4
    assert sampler.steps_per_epoch == 7


def test_too_few_persons_are_refused() -> None:
    with pytest.raises(UsageError, match="there are 12"):
        CrossModalSampler(people(), 13, 2, 0)
    only_visible = [record for record in people() if record.modality == Modality.VISIBLE]
    with pytest.raises(UsageError, match="persons with visible and infrared images; there are 0"):
        CrossModalSampler(only_visible)
