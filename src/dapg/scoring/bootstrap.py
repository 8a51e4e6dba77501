"""How sure is a score: intervals by resampling persons and seeds, paired differences, and spread by its cause.

Ten galleries of one model are not ten replicates: they ask the same model about the same people. So a query's values
are first averaged over galleries; then *persons* are drawn with replacement, all queries of a person together, and
*seeds* (trained models), where there are several. The two are crossed: a person keeps its weight in every seed that
tests it. *Partitions* (RegDB's ten) are a level of their own: they are drawn first, then the seeds within each.
"""

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DataError, UsageError
from dapg.core.files import write_arrays
from dapg.core.schema import REMEDY, read_arrays
from dapg.core.seeds import derive_seed
from dapg.scoring.metrics import QueryScores, Scores

MEASURES = ("rank-1", "mAP", "mINP")
REPLICATES = 2000
LEVEL = 0.95
_ONE_SIDED = 0.05
"""Level of each of the two tests of ``equivalence``."""
_BLOCK = 10_000_000
"""How often persons were drawn, at a time."""
_KEPT = 5 * _BLOCK
"""Draws up to this size are kept: the scores of one table are all resampled by the same ones."""
_ARRAYS = {
    "persons": "iu",
    "average_precision": "f",
    "inverse_negative_penalty": "f",
    "first_match": "iu",
    "valid": "b",
}
"""Arrays of a trial, and their kinds as numpy writes them."""


@dataclass(frozen=True)
class Interval:
    """A score in [0, 1] (or a difference of two) with its bootstrap percentile interval."""

    value: float
    low: float
    high: float
    persons: int
    """Test persons resampled."""
    seeds: int
    """Trained models resampled; with 1 the interval says nothing about training luck."""
    partitions: int
    """Partitions resampled, each with models of its own."""

    @property
    def precision(self) -> float:
        """Half the interval: how far the value may be luck."""
        return (self.high - self.low) / 2

    def detectable(self, power: float = 0.8) -> float:
        """The true difference that an equal study would call significant with a chance of ``power``.

        More than the precision, which a true difference of that size passes only half of the time: at 80 % it is
        (1.960 + 0.842) / 1.960 = 1.43 times as much.
        """
        normal = statistics.NormalDist()
        beyond = normal.inv_cdf((1 + LEVEL) / 2)
        return self.precision * (beyond + normal.inv_cdf(power)) / beyond


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two scores, with the answer to: could it be none?"""

    p: float
    """Two-sided bootstrap p-value of no difference; never below 2 / (replicates + 1)."""


@dataclass(frozen=True)
class Equivalence:
    """A difference of two scores with a margin that was named before: two one-sided tests at 5 % (Schuirmann, 1987)."""

    value: float
    low: float
    high: float
    """The 90 % interval: each end is the bound of one of the tests."""
    margin: float
    p_lower: float
    """One-sided bootstrap p-value of "lower by the margin or more"."""
    p_higher: float

    @property
    def not_lower(self) -> bool:
        """Lower by less than the margin (non-inferiority). Not the same as "no significant difference"."""
        return self.low > -self.margin


@dataclass(frozen=True)
class PersonScores:
    """All that intervals need of one model: its query scores, summed over each person's queries. Some kilobytes."""

    persons: tuple[int, ...]
    """Ascending."""
    sums: NDArray[np.float64]
    """(persons, 4): sums of rank-1, mAP and mINP over a person's queries, averaged over trials; last, valid queries."""


def person_scores(trials: Sequence[QueryScores]) -> PersonScores:
    """Query scores of one model's trials, summed person by person.

    Raises:
        UsageError: no query at all.
    """
    persons = sorted({int(person) for trial in trials for person in trial.persons.tolist()})
    if not persons:
        raise UsageError("no query scores to resample")
    return PersonScores(tuple(persons), _totals(trials, persons))


Model = Sequence[QueryScores] | PersonScores
"""One trained model's scores: the queries of each trial, or their sums by person."""


Partitions = Sequence[int | str]
"""The partition of each model of a side."""


def intervals(
    seeds: Sequence[Model], replicates: int = REPLICATES, seed: int = 0, partitions: Partitions | None = None
) -> dict[str, Interval]:
    """Interval of each measure.

    Args:
        seeds: for each trained model, the query scores of each of its trials: galleries, corruption repeats, or (of a
            model that was not trained on any of them) partitions.
        replicates: bootstrap draws.
        seed: of the draws.
        partitions: of the models, where each partition has models of its own; their scores are averaged over the
            models of a partition first.

    Raises:
        UsageError: nothing to resample.
    """
    persons = _all_persons([seeds])
    parts = _parts([seeds], None if partitions is None else [partitions])
    (side,) = _resample([seeds], persons, parts, replicates, seed)
    sizes = len(persons), len(seeds) // len(set(parts[0])), len(set(parts[0]))
    return {measure: _interval(*side[measure], *sizes) for measure in MEASURES}


def compare(
    first: Sequence[Model],
    second: Sequence[Model],
    replicates: int = REPLICATES,
    seed: int = 0,
    partitions: tuple[Partitions, Partitions] | None = None,
) -> dict[str, Difference]:
    """Difference ``second - first`` of each measure, persons (and partitions) paired, seeds of the two drawn apart.

    An interval that does not hold 0 says that the difference is not luck of the drawn persons (and of the seeds, where
    each side has several).

    Args:
        first: models, as ``intervals`` takes them.
        second: models, tested on the same queries.
        replicates: bootstrap draws.
        seed: of the draws.
        partitions: of the models of each side; both sides have the same ones.

    Raises:
        UsageError: the two were not tested on the same queries, or have other partitions.
    """
    persons, parts, drawn = _differences(first, second, replicates, seed, partitions)
    levels = len(set(parts[0]))
    sizes = len(persons), min(len(first), len(second)) // levels, levels
    return {
        measure: Difference(**vars(_interval(value, replicated, *sizes)), p=_p_value(replicated))
        for measure, (value, replicated) in drawn.items()
    }


def equivalence(
    first: Sequence[Model],
    second: Sequence[Model],
    margin: float,
    replicates: int = REPLICATES,
    partitions: tuple[Partitions, Partitions] | None = None,
) -> dict[str, Equivalence]:
    """Is the second not lower than the first, or even the same, up to a margin? Drawn as ``compare`` draws.

    "No significant difference" does not answer this: a small study finds none whatever the truth.

    Args:
        first: models, as ``intervals`` takes them.
        second: models, tested on the same queries.
        margin: the smallest difference that would matter, a fraction such as 0.02, named before the scores are seen.
        replicates: bootstrap draws.
        partitions: of the models of each side.

    Raises:
        UsageError: no margin above 0, or as ``compare``.
    """
    if not margin > 0:
        raise UsageError(f"a margin is the smallest difference that would matter, above 0, not {margin}")
    tests = {}
    for measure, (value, drawn) in _differences(first, second, replicates, 0, partitions)[2].items():
        low, high = (float(bound) for bound in np.quantile(drawn, [_ONE_SIDED, 1 - _ONE_SIDED]))
        tails = int((drawn <= -margin).sum()), int((drawn >= margin).sum())
        p_values = ((tail + 1) / (replicates + 1) for tail in tails)
        tests[measure] = Equivalence(value, low, high, margin, *p_values)
    return tests


def _differences(
    first: Sequence[Model],
    second: Sequence[Model],
    replicates: int,
    seed: int,
    partitions: tuple[Partitions, Partitions] | None,
) -> tuple[list[int], "list[Partitions]", "_Resampled"]:
    """Persons, partitions, and of each measure ``second - first`` with its replicates."""
    if _all_persons([first]) != _all_persons([second]):
        raise UsageError("the two results test different persons; only results of the same trials can be compared")
    if _queries(first) != _queries(second):
        raise UsageError("the two results have different queries; only results of the same trials can be compared")
    persons, parts = _all_persons([first]), _parts([first, second], partitions)
    before, after = _resample([first, second], persons, parts, replicates, seed)
    drawn = {
        measure: (after[measure][0] - before[measure][0], after[measure][1] - before[measure][1])
        for measure in MEASURES
    }
    return persons, parts, drawn


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for having asked several questions (Holm, Scandinavian Journal of Statistics, 1979).

    The i-th smallest of m is multiplied by m - i (i from 0), never falls below a smaller one's, and stays at most 1.
    Calling significant what stays below a level keeps the chance of *any* wrong call below that level.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def spread(observations: Sequence[tuple[Mapping[str, int | str], float]]) -> dict[str, dict[str, int | float]]:
    """Spread of a score by its cause: seed, gallery, corruption repeat, partition, each apart.

    Args:
        observations: (levels, value) pairs, such as ``({"seed": 0, "gallery": 3}, 0.47)``; all name the same causes.

    Returns:
        For each cause the number of its levels and the sample standard deviation of the level means, where a level mean
        averages over all other causes (0 for a cause with one level).

    Raises:
        UsageError: no observation, or observations that name different causes.
    """
    if not observations:
        raise UsageError("no observation to take the spread of")
    causes = list(observations[0][0])
    if any(list(levels) != causes for levels, _ in observations):
        raise UsageError(f"all observations must name the same causes: {', '.join(causes)}")
    by_cause = {}
    for cause in causes:
        by_level: dict[int | str, list[float]] = {}
        for levels, value in observations:
            by_level.setdefault(levels[cause], []).append(value)
        means = [statistics.fmean(values) for values in by_level.values()]
        by_cause[cause] = {"levels": len(means), "std": statistics.stdev(means) if len(means) > 1 else 0.0}
    return by_cause


def write_query_scores(path: Path | str, features: Mapping[str, Sequence[Scores]]) -> None:
    """Store the per-query arrays of each feature's trials in an ``.npz`` file, for intervals and comparisons.

    Raises:
        UsageError: a feature without trials.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for feature, trials in features.items():
        if not trials:
            raise UsageError(f"feature {feature!r} has no trial to store")
        for number, trial in enumerate(trials):
            for name in _ARRAYS:
                arrays[f"{feature}/{number}/{name}"] = getattr(trial.per_query, name)
    write_arrays(path, arrays)


def read_query_scores(path: Path | str) -> dict[str, list[QueryScores]]:
    """Feature -> query scores of each trial, as ``write_query_scores`` stored them.

    Raises:
        DataError: no such file, or not one of ours.
    """
    arrays = read_arrays(path)
    by_feature: dict[str, list[QueryScores]] = {}
    for key in arrays:
        feature, number, name = key.rsplit("/", 2) if key.count("/") >= 2 else ("", "", "")
        if name != "persons":
            continue
        if number != str(len(by_feature.setdefault(feature, []))):
            raise DataError(f"{path}: trials of {feature!r} are not in order; {REMEDY}")
        count = len(arrays[key]) if arrays[key].ndim else None
        fields = {}
        for name, kinds in _ARRAYS.items():
            array = arrays.get(f"{feature}/{number}/{name}")
            if array is None or array.dtype.kind not in kinds or array.shape != (count,):
                raise DataError(f"{path}: {name} of trial {number} of {feature!r} is no column of scores; {REMEDY}")
            fields[name] = array
        by_feature[feature].append(QueryScores(**fields))
    if not by_feature:
        raise DataError(f"{path} holds no query scores")
    return by_feature


def _queries(side: Sequence[Model]) -> set[bytes]:
    """What tells one list of queries from another: the persons in order, or how many queries each person has."""
    keys: set[bytes] = set()
    for model in side:
        if isinstance(model, PersonScores):
            keys.add(np.asarray(model.persons).tobytes() + model.sums[:, -1].tobytes())
        else:
            keys |= {trial.persons.tobytes() for trial in model}
    return keys


def _all_persons(sides: Sequence[Sequence[Model]]) -> list[int]:
    """Every person that is a query somewhere, once, ascending."""
    persons: set[int] = set()
    for model in (model for side in sides for model in side):
        if isinstance(model, PersonScores):
            persons.update(model.persons)
        else:
            persons.update(int(person) for trial in model for person in trial.persons.tolist())
    if not persons:
        raise UsageError("no query scores to resample")
    return sorted(persons)


_Resampled = dict[str, tuple[float, NDArray[np.float64]]]
"""Measure -> the score itself and its replicates."""


def _parts(sides: Sequence[Sequence[Model]], partitions: Sequence[Partitions] | None) -> list[Partitions]:
    """The partition of each model of each side; a single one where none are given."""
    if partitions is None:
        return [[0] * len(side) for side in sides]
    for side, own in zip(sides, partitions, strict=True):
        if len(side) != len(own):
            raise UsageError(f"{len(side)} models need as many partitions, not {len(own)}")
    if len({frozenset(own) for own in partitions}) > 1:
        raise UsageError("the two results have models of different partitions; give both the same ones")
    return list(partitions)


def _resample(
    sides: Sequence[Sequence[Model]],
    persons: list[int],
    partitions: Sequence[Partitions],
    replicates: int,
    seed: int,
) -> list[_Resampled]:
    """Every measure of every side under the same draws of persons and partitions, and each side's own of seeds."""
    totals = [[_rows(model, persons) for model in side] for side in sides]
    table = np.concatenate([total for side in totals for total in side], axis=1)  # (persons, columns)
    drawn = _draw_persons(table, replicates, seed)
    generator = np.random.default_rng(derive_seed("bootstrap seeds", seed))
    names = sorted(set(partitions[0]), key=str)
    copies = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    if len(names) == 1:
        generator = np.random.default_rng(derive_seed("bootstrap seeds", seed))  # as if there were no partitions
    width = len(MEASURES) + 1
    measures, first = [], 0
    for side, labels in zip(totals, partitions, strict=True):
        shares = np.zeros((replicates, len(side)))
        for number, name in enumerate(names):
            members = [place for place, label in enumerate(labels) if label == name]
            even = np.full(len(members), 1 / len(members))
            drawn_seeds = generator.multinomial(copies[:, number] * len(members), even)
            shares[:, members] = drawn_seeds / (len(members) * len(names))
        weights = np.array([1 / (list(labels).count(label) * len(names)) for label in labels])
        own = np.stack([total.sum(axis=0) for total in side])  # (seeds, width)
        blocks = drawn[:, first : first + width * len(side)].reshape(replicates, len(side), width)
        first += width * len(side)
        measures.append(_measures(own, blocks, shares, weights))
    return measures


def _rows(model: Model, persons: list[int]) -> NDArray[np.float64]:
    """(persons, measures + 1) sums of one model; zeros for persons whom it was not tested on."""
    if not isinstance(model, PersonScores):
        return _totals(model, persons)
    totals = np.zeros((len(persons), len(MEASURES) + 1))
    totals[np.searchsorted(persons, model.persons)] = model.sums
    return totals


def _totals(trials: Sequence[QueryScores], persons: list[int]) -> NDArray[np.float64]:
    """(persons, measures + 1): sums over a person's queries, averaged over trials; last, its valid queries."""
    totals = np.zeros((len(persons), len(MEASURES) + 1))
    for trial in trials:
        rows, valid = np.searchsorted(persons, trial.persons), trial.valid
        columns = [*(np.where(valid, _values(trial, measure), 0) for measure in MEASURES), valid]
        totals += np.stack([np.bincount(rows, column, minlength=len(persons)) for column in columns], axis=1)
    return totals / len(trials)


def trial_means(trial: QueryScores) -> dict[str, float]:
    """rank-1, mAP and mINP of one trial: means over the queries with a match."""
    return {measure: float(_values(trial, measure)[trial.valid].mean()) for measure in MEASURES}


def _values(trial: QueryScores, measure: str) -> NDArray[np.float64]:
    columns = {
        "rank-1": trial.first_match == 1,
        "mAP": trial.average_precision,
        "mINP": trial.inverse_negative_penalty,
    }
    return np.asarray(columns[measure], dtype=np.float64)


def _draw_persons(table: NDArray[np.float64], replicates: int, seed: int) -> NDArray[np.float64]:
    """(replicates, columns): column sums with as many persons drawn with replacement as there are."""
    draw = _kept_draws if len(table) * replicates <= _KEPT else _draws
    return np.concatenate([block.astype(np.float64) @ table for block in draw(len(table), replicates, seed)])


def _draws(persons: int, replicates: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    """Blocks of (replicates, persons): how often each person was drawn."""
    generator = np.random.default_rng(derive_seed("bootstrap persons", seed))
    even = np.full(persons, 1 / persons)
    step = max(1, _BLOCK // persons)
    for start in range(0, replicates, step):
        yield generator.multinomial(persons, even, size=min(step, replicates - start)).astype(np.uint16)


@functools.lru_cache(maxsize=2)
def _kept_draws(persons: int, replicates: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    return tuple(_draws(persons, replicates, seed))


def _measures(
    own: NDArray[np.float64], drawn: NDArray[np.float64], shares: NDArray[np.float64], weights: NDArray[np.float64]
) -> _Resampled:
    """Scores from sums: own (seeds, width), drawn (replicates, seeds, width), shares (replicates, seeds), weights.

    A replicate that drew no valid query of a seed counts that seed's own score.
    """
    scores = own[:, :-1] / own[:, -1:]
    counts = drawn[:, :, -1:]
    replicated = np.where(counts > 0, drawn[:, :, :-1] / np.where(counts > 0, counts, 1), scores)
    mixed = np.einsum("rs,rsm->rm", shares, replicated)
    plain = len(set(weights.tolist())) == 1
    values = [float(column.mean() if plain else weights @ column) for column in scores.T]
    return {measure: (values[n], mixed[:, n]) for n, measure in enumerate(MEASURES)}


def _p_value(differences: NDArray[np.float64]) -> float:
    """Twice the smaller tail beyond 0, the observed result counted as one more replicate."""
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def _interval(value: float, replicated: NDArray[np.float64], persons: int, seeds: int, partitions: int = 1) -> Interval:
    low, high = np.quantile(replicated, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), persons, seeds, partitions)
