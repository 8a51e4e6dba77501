"""Open-set measures: worked by hand, against scikit-learn, and weights against repeated persons."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from dapg.core.errors import UsageError
from dapg.scoring import open_set
from dapg.scoring.open_set import Trials

GENERATOR = np.random.default_rng(3)
MATED, NON_MATED = GENERATOR.normal(1.0, 1, 300).round(1), GENERATOR.normal(0, 1, 500).round(1)  # with many ties


def passed(scores: np.ndarray, threshold: float) -> float:
    """Share of the scores that reach the threshold, in double precision."""
    return float((scores.astype(np.float64) >= threshold).mean())


def area(mated: np.ndarray, non_mated: np.ndarray) -> float | None:
    """AUROC, each trial of a person of its own."""
    return open_set.separation([people(mated.tolist(), non_mated.tolist())], replicates=1).value


def people(mated: list[float], non_mated: list[float]) -> Trials:
    """Each trial of a person of its own."""
    count = len(mated) + len(non_mated)
    persons = np.arange(count)
    return Trials(np.array(mated), persons[: len(mated)], np.array(non_mated), persons[len(mated) :], len(mated))


def test_curve_and_area_are_scikit_learns() -> None:
    labels, scores = np.repeat([1, 0], [len(MATED), len(NON_MATED)]), np.concatenate([MATED, NON_MATED])
    assert area(MATED, NON_MATED) == pytest.approx(oracle.roc_auc_score(labels, scores))
    curve = open_set.det(MATED, NON_MATED)
    passed, hit, thresholds = oracle.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.false_positive, passed)
    np.testing.assert_allclose(1 - curve.false_negative, hit)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.29, 0.5, 1.0])
def test_no_lower_threshold_keeps_the_rate(rate: float) -> None:
    threshold = open_set.threshold_at(NON_MATED, rate)
    assert passed(NON_MATED, threshold) <= rate
    lower = NON_MATED[threshold > NON_MATED]
    if len(lower):
        assert passed(NON_MATED, float(lower.max())) > rate
    trials = Trials(MATED, np.arange(300), NON_MATED, np.arange(300, 800), 300)
    if rate >= 3 / 500:
        missed = open_set.miss_rate([trials], rate, replicates=1)
        assert missed.value == pytest.approx(1 - passed(MATED, threshold))
    else:
        assert "non-mated persons" in open_set.miss_rate([trials], 0.001).reason


def test_equal_scores_are_refused_together() -> None:
    scores = np.array([4.0, 3, 3, 1])  # two of four may pass, but the second and third are equal
    assert passed(scores, open_set.threshold_at(scores, 0.5)) == 0.25
    assert open_set.threshold_at(np.array([1.0, 2]), 1.0) == -math.inf


def test_scores_in_single_precision_are_judged_as_in_double() -> None:
    """Five scores, at most one of which may pass: the threshold lies between two of them, too close for float32."""
    scores = np.array([0.9, 0.7, 0.7, 0.3, 0.1], dtype=np.float32)
    threshold = open_set.threshold_at(scores, 0.2)
    trials = Trials(scores, np.arange(5), scores, np.arange(5, 10), 5)
    assert open_set.passed_at([trials], [threshold], replicates=1).value == 0.2
    assert open_set.missed_at([trials], [threshold], replicates=1).value == 0.8


def test_searches_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.2, 0.3], [0.3, 0.5, 0.6, 0.1], [0.1, 0.4, 0.2, 0.7], [0.2, 0.2, 0.8, 0.1]])
    gallery, queries = np.array([5, 5, 2, 9]), np.array([5, 2, 9, 7])
    left_out = np.zeros((4, 4), dtype=bool)
    left_out[0, 0] = True
    persons, best = open_set.best_by_person(similarity, gallery, left_out)
    assert persons.tolist() == [2, 5, 9]
    assert best.tolist() == [[0.2, 0.1, 0.3], [0.6, 0.5, 0.1], [0.2, 0.4, 0.7], [0.8, 0.2, 0.1]]

    everybody = open_set.searches(best, persons, queries)
    assert everybody.mated.tolist() == [0.1, 0.6, 0.7]
    assert everybody.non_mated.tolist() == [0.8]  # person 7 is not enrolled
    first = open_set.searches(best, persons, queries, rank=1)
    assert first.mated.tolist() == [-math.inf, 0.6, 0.7]  # two others are nearer than person 5's only image left
    without_9 = open_set.searches(best, persons, queries, unknown=[9])
    assert (without_9.mated.tolist(), without_9.non_mated.tolist()) == ([0.1, 0.6], [0.4, 0.8])
    assert (without_9.enrolled, without_9.non_mated_persons.tolist()) == (2, [9, 7])
    with pytest.raises(UsageError, match="nobody"):
        open_set.searches(best, persons, queries, unknown=[2, 5, 9])

    pairs = open_set.comparisons(best, persons, queries)
    assert pairs.mated.tolist() == [0.1, 0.6, 0.7]
    assert pairs.non_mated_others is not None
    assert pairs.non_mated_persons.tolist() == [5, 5, 2, 2, 9, 9, 7, 7, 7]
    assert pairs.non_mated_others.tolist() == [2, 9, 5, 9, 2, 5, 2, 5, 9]


def test_a_query_of_which_the_protocol_leaves_nothing_and_one_without_label_count_nowhere() -> None:
    best = np.array([[-np.inf, 0.5], [0.4, 0.2], [0.1, 0.3], [0.3, 0.9]])
    trials = open_set.searches(best, np.array([1, 2]), np.array([1, 1, -1, 8]))
    assert (trials.mated.tolist(), trials.non_mated.tolist()) == ([0.4], [0.9])


def test_weights_are_repetitions() -> None:
    """A person drawn twice counts as two: statistics under whole weights equal those of repeated arrays."""
    generator = np.random.default_rng(0)
    trials = people(generator.normal(1, 1, 20).round(1).tolist(), generator.normal(0, 1, 30).round(1).tolist())
    weights = generator.multinomial(50, np.full(50, 0.02), size=5).astype(np.float64)
    mated, non_mated = weights[:, :20], weights[:, 20:]
    areas = open_set._separation(trials.mated, trials.non_mated, mated, non_mated)
    ordered = open_set._Ordered(trials, np.arange(50))
    missed = open_set._missed(ordered, weights, 0.1, 1.0)
    assert open_set._missed(ordered, weights, 0.1, 0.01).tolist() == missed.tolist()  # looks further until it is enough
    for row in range(5):
        more = np.repeat(trials.mated, mated[row].astype(int))
        others = np.repeat(trials.non_mated, non_mated[row].astype(int))
        assert areas[row] == pytest.approx(area(more, others))
        assert missed[row] == pytest.approx(1 - passed(more, open_set.threshold_at(others, 0.1)), abs=1e-12)


def test_the_interval_is_the_binomials_and_draws_persons() -> None:
    trials = people([0.0] * 60 + [1.0] * 140, [0.5] * 100)
    measured = open_set.missed_at([trials], [0.5])
    assert measured.value == 0.3
    assert measured.low is not None
    assert measured.high is not None
    assert measured.high - measured.low == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 200), rel=0.1)
    # Each person's ten trials alike: ten times the trials, not one person more.
    mated, persons = np.repeat(trials.mated, 10), np.repeat(trials.mated_persons, 10)
    ten = Trials(mated, persons, trials.non_mated, trials.non_mated_persons, 200)
    wide = open_set.missed_at([ten], [0.5])
    assert (wide.low, wide.high) == (measured.low, measured.high)


def test_comparisons_draw_both_persons() -> None:
    """An interval over probes alone would be narrower: here every error has to do with one enrolled person."""
    best = np.zeros((40, 40))
    best[:, 0] = 1.0
    np.fill_diagonal(best, 2.0)
    persons = np.arange(40)
    pairs = open_set.comparisons(best, persons, persons)
    probes = Trials(pairs.mated, pairs.mated_persons, pairs.non_mated, pairs.non_mated_persons, 40)
    both, narrow = (open_set.passed_at([trials], [0.5]) for trials in (pairs, probes))
    assert both.value == pytest.approx(1 / 40)
    assert both.low == 0.0  # person 0 is in some draws not there at all
    assert narrow.low is not None
    assert narrow.low > 0.02


def test_what_is_not_measurable_says_so() -> None:
    trials = people([1.0] * 99 + [0.0], [0.0] * 50)
    low = open_set.missed_at([trials], [0.5])
    assert low.value == pytest.approx(0.01)
    assert str(low) == "not measurable: below 3/n = 3.0 % of 100 persons"
    assert str(open_set.miss_rate([trials], 0.01)) == (
        "not measurable: a rate of 1 % needs 300 non-mated persons, there are 50"
    )
    enough = people([1.0] * 10, [0.0] * 300)
    assert "needs" not in open_set.miss_rate([enough], 0.01, replicates=1).reason


def test_splits_are_halves_and_stay_what_they_are() -> None:
    splits = open_set.person_splits(range(20))
    assert all(len(split) == 10 for split in splits)
    assert len(set(splits)) == 10
    assert open_set.person_splits([*range(20), 3], count=1) == splits[:1]
    assert open_set.person_splits(range(4), count=3) == [{1, 2}, {0, 3}, {0, 2}]  # stored scores depend on it
    best = np.random.default_rng(0).random((40, 21))
    trials = open_set.split_searches(best, np.arange(21), np.arange(40) % 20, splits)
    assert {split.enrolled for split in trials} == {11}  # person 20, whom nobody queries, is always there
    assert set(trials[3].mated_persons.tolist()) == splits[3]
    with pytest.raises(UsageError, match="cannot be split"):
        open_set.person_splits([1])


def test_several_splits_are_averaged_under_one_draw() -> None:
    first, second = people([1.0, 0.0] * 20, [0.0] * 40), people([1.0, 1.0, 0.0, 1.0] * 10, [0.0] * 40)
    measured = open_set.missed_at([first, second], [0.5, 0.5])
    assert measured.value == pytest.approx((0.5 + 0.25) / 2)
    again = open_set.missed_at([first, second], [0.5, 0.5])
    assert measured == again
