"""Intervals against numbers known in closed form, pairing, seeds and partitions, and the file of query scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from dapg.core.errors import UsageError
from dapg.core.types import Protocol
from dapg.scoring import bootstrap
from dapg.scoring.bootstrap import (
    compare,
    equivalence,
    holm,
    intervals,
    read_query_scores,
    spread,
    trial_means,
    write_query_scores,
)
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import QueryScores, score


def queries(persons: ArrayLike, precision: ArrayLike, valid: list[bool] | None = None) -> QueryScores:
    precision = torch.as_tensor(precision, dtype=torch.float64)
    counted = torch.ones(len(precision), dtype=torch.bool) if valid is None else torch.tensor(valid)
    return QueryScores(
        persons=np.asarray(persons),
        average_precision=precision.masked_fill(~counted, torch.nan).numpy(),
        inverse_negative_penalty=(precision / 2).masked_fill(~counted, torch.nan).numpy(),
        first_match=torch.where(counted, torch.where(precision > 0.5, 1, 7), 0).numpy(),
        valid=counted.numpy(),
    )


def coins(persons: int = 400, per_person: int = 1, share: float = 0.5, seed: int = 0) -> QueryScores:
    generator = torch.Generator().manual_seed(seed)
    hits = (torch.rand(persons, generator=generator) < share).double().repeat_interleave(per_person)
    return queries(torch.arange(persons).repeat_interleave(per_person), hits)


def test_width_is_that_of_a_binomial_share() -> None:
    found = intervals([[coins()]])["mAP"]
    assert found.value == pytest.approx(float(coins().average_precision.mean()))
    expected = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)
    assert found.low < found.value < found.high


def test_queries_of_a_person_are_drawn_together() -> None:
    """Nine copies of each query say nothing new."""
    once, often = intervals([[coins()]])["mAP"], intervals([[coins(per_person=9)]])["mAP"]
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_ten_galleries_of_a_model_are_not_ten_replicates() -> None:
    once, often = intervals([[coins()]])["mAP"], intervals([[coins()] * 10])["mAP"]
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_the_same_people_in_every_seed_do_not_shrink_the_interval() -> None:
    once, often = intervals([[coins()]])["mAP"], intervals([[coins()]] * 5)["mAP"]
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.seeds == 5


def test_differences_between_seeds_widen_the_interval() -> None:
    seeds = [[queries(range(50), np.full(50, level))] for level in (0.2, 0.5, 0.8)]
    found = intervals(seeds)["mAP"]
    assert found.value == pytest.approx(0.5)
    # Persons are all alike here: what is left is the bootstrap of three numbers, 0.2 ... 0.8 with sd 0.2449 / sqrt 3.
    assert found.low == pytest.approx(0.2, abs=0.07)
    assert found.high == pytest.approx(0.8, abs=0.07)


def test_invalid_queries_do_not_count() -> None:
    found = intervals([[queries([1, 1, 2, 2], [0.2, 0.9, 0.4, 0.9], [True, False, True, False])]])
    assert found["mAP"].value == pytest.approx(0.3)
    assert found["mINP"].value == pytest.approx(0.15)
    assert found["rank-1"].value == 0


def test_value_is_the_mean_of_the_scores() -> None:
    generator = torch.Generator().manual_seed(1)
    persons, gallery = torch.randint(0, 9, (70,), generator=generator), torch.randint(0, 9, (40,), generator=generator)
    labels = Labels(persons, gallery, None, None, Protocol("p"))
    trials = [score(torch.rand(70, 40, generator=generator), labels) for _ in "ab"]
    found = intervals([[trial.per_query for trial in trials]])
    assert found["mAP"].value == pytest.approx((trials[0].mAP + trials[1].mAP) / 2)
    assert found["rank-1"].value == pytest.approx((trials[0].cmc[0] + trials[1].cmc[0]) / 2)


def test_paired_difference_is_surer_than_two_intervals() -> None:
    base = torch.rand(300, generator=torch.Generator().manual_seed(2)).double() * 0.9
    first, second = queries(range(300), base), queries(range(300), base + 0.01)
    found = compare([[first]], [[second]])["mAP"]
    assert (found.value, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))
    alone = intervals([[first]])["mAP"]
    assert alone.high - alone.low > 0.05
    back = compare([[second]], [[first]])["mAP"]
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_different_queries_are_not_compared() -> None:
    with pytest.raises(UsageError, match="different persons"):
        compare([[queries([1, 2], [0.1, 0.2])]], [[queries([1, 3], [0.1, 0.2])]])
    with pytest.raises(UsageError, match="different queries"):
        compare([[queries([1, 2], [0.1, 0.2])]], [[queries([2, 1], [0.1, 0.2])]])


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [[coins(seed=1)], [coins(seed=2)]]
    whole = intervals(seeds)
    monkeypatch.setattr(bootstrap, "_BLOCK", 400 * 7)
    assert intervals(seeds) == whole


def test_spread_by_cause() -> None:
    observations = [
        ({"seed": seed, "gallery": gallery}, 10.0 * seed + gallery) for seed in (0, 1) for gallery in (0, 1, 2)
    ]
    found = spread(observations)
    assert found["seed"] == {"levels": 2, "std": pytest.approx(np.std([1, 11], ddof=1))}
    assert found["gallery"] == {"levels": 3, "std": pytest.approx(np.std([5, 6, 7], ddof=1))}
    assert spread([({"seed": 0}, 0.5)])["seed"]["std"] == 0
    with pytest.raises(UsageError, match="same causes"):
        spread([({"seed": 0}, 0.5), ({"gallery": 0}, 0.5)])


def test_partitions_of_one_model_may_have_other_people() -> None:
    """A model that was trained on none of them, such as ImageNet's, is tested on all of RegDB's partitions."""
    found = intervals([[queries([1, 2], [0.2, 0.4]), queries([2, 3], [0.6, 0.8])]])["mAP"]
    assert found.value == pytest.approx(0.5)
    assert found.persons == 3


def test_p_value_is_small_for_a_sure_difference_and_large_for_none() -> None:
    noise = torch.randn(200, generator=torch.Generator().manual_seed(5)).double() * 0.1
    first = queries(range(200), torch.full((200,), 0.5).double())
    sure = compare([[first]], [[queries(range(200), 0.55 + noise)]])["mAP"]
    none = compare([[first]], [[queries(range(200), 0.5 + noise - noise.mean())]])["mAP"]
    assert sure.p == pytest.approx(2 / 2001)
    assert sure.low > 0
    assert none.p > 0.8
    assert compare([[first]], [[first]])["mAP"].p == 1


def level(persons: range, score: float) -> list[QueryScores]:
    return [queries(persons, np.full(len(persons), score))]


def test_partitions_are_averaged_first_and_drawn_first() -> None:
    """Two partitions with three models and one: each counts half, whatever its number of models."""
    models = [level(range(30), score) for score in (0.2, 0.2, 0.2)] + [level(range(20, 50), 0.8)]
    measured = intervals(models, partitions=[1, 1, 1, 2])["mAP"]
    assert measured.value == pytest.approx(0.5)
    assert measured.partitions == 2
    # Persons and seeds are all alike, so only the partitions move: both the first, both the second, or one of each.
    assert [measured.low, measured.high] == pytest.approx([0.2, 0.8])
    assert intervals(models)["mAP"].value == pytest.approx(0.35)


def test_partitions_are_paired_in_a_comparison() -> None:
    """Partitions differ by 0.6, the two methods by 0.1 in each: drawn apart, the interval would span it all."""
    first = [level(range(30), 0.1), level(range(30), 0.7)]
    second = [level(range(30), 0.2), level(range(30), 0.8)]
    apart = compare(first, second)["mAP"]
    paired = compare(first, second, partitions=(["a", "b"], ["a", "b"]))["mAP"]
    assert (paired.low, paired.value, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (paired.seeds, paired.partitions) == (1, 2)
    assert apart.low == pytest.approx(-0.5)
    with pytest.raises(UsageError, match="different partitions"):
        compare(first, second, partitions=(["a", "b"], ["a", "c"]))


def test_not_lower_needs_more_than_no_significant_difference() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 40).clip(-0.4, 0.4)
    noise -= noise.mean()
    first, second = [level(range(40), 0.5)], [[queries(range(40), 0.5 + noise)]]
    test = equivalence(first, second, margin=0.02)["mAP"]
    difference = compare(first, second)["mAP"]
    assert difference.low < 0 < difference.high
    assert not test.not_lower  # 40 persons cannot tell: the bound is 1.645 standard errors below
    assert test.low == pytest.approx(-1.645 * noise.std() / np.sqrt(40), rel=0.1)
    assert test.p_lower > 0.05
    wide = equivalence(first, second, margin=0.2)["mAP"]
    assert wide.not_lower
    assert wide.high < wide.margin
    assert wide.p_lower == pytest.approx(1 / 2001)
    better = equivalence([level(range(40), 0.5)], [level(range(40), 0.6)], margin=0.02)["mAP"]
    assert better.not_lower
    assert better.high > better.margin
    with pytest.raises(UsageError, match="margin"):
        equivalence(first, second, margin=0.0)


def test_what_is_detectable_is_more_than_the_precision() -> None:
    measured = intervals([[coins()]])["mAP"]
    assert measured.precision == pytest.approx(1.96 * 0.025, rel=0.1)
    # Normal quantiles of 97.5 % and 80 %.
    assert measured.detectable() == pytest.approx(measured.precision * (1.959964 + 0.841621) / 1.959964)
    assert measured.detectable(0.5) == pytest.approx(measured.precision)


def test_holm_by_hand() -> None:
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.4 x 1; monotone
    assert holm([0.02, 0.4, 0.01, 0.03]) == pytest.approx([0.06, 0.4, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_query_scores_are_read_back(tmp_path: Path) -> None:
    labels = Labels(torch.tensor([1, 2]), torch.tensor([1, 2, 3]), None, None, Protocol("plain"))
    trial = score(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.2, 0.3]]), labels)
    write_query_scores(tmp_path / "a.npz", {"after BN": [trial, trial], "other": [trial]})
    stored = read_query_scores(tmp_path / "a.npz")
    assert list(stored) == ["after BN", "other"]
    assert len(stored["after BN"]) == 2
    assert np.array_equal(stored["after BN"][1].average_precision, trial.per_query.average_precision)
    assert trial_means(stored["other"][0])["mAP"] == pytest.approx(trial.mAP)


def test_sums_by_person_give_the_same_intervals_and_comparisons() -> None:
    generator = torch.Generator().manual_seed(5)

    def model() -> list[QueryScores]:
        precision = torch.rand(36, generator=generator).numpy()
        first = torch.randint(1, 4, (36,), generator=generator).numpy()
        return [QueryScores(np.arange(12).repeat(3), precision, precision / 2, first, np.ones(36, dtype=bool))]

    one, other = [model(), model()], [model(), model()]
    summed = [[bootstrap.person_scores(trials) for trials in side] for side in (one, other)]
    assert bootstrap.intervals(summed[0]) == bootstrap.intervals(one)
    assert bootstrap.compare(summed[0], summed[1]) == bootstrap.compare(one, other)
    fewer = [bootstrap.PersonScores(scores.persons, scores.sums * 2) for scores in summed[1]]
    with pytest.raises(UsageError, match="different queries"):
        bootstrap.compare(summed[0], fewer)
