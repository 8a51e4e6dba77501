"""How sure is a score: intervals by resampling persons and seeds, paired differences, and spread by its cause.

Ten galleries of one model are not ten replicates: they ask the same model about the same people. So a query's values
are first averaged over galleries; then *persons* are drawn with replacement, all queries of a person together, and
*seeds* (trained models), where there are several. A person keeps its weight in every seed that tests it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path, read_json
from dapg.core.rng import derive_seed
from dapg.evaluation.metrics import QueryScores, Scores

MEASURES = ("rank-1", "mAP", "mINP")
REPLICATES = 2000
LEVEL = 0.95
_ARRAYS = ("persons", "average_precision", "inverse_negative_penalty", "first_match", "valid")


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


def intervals(
    seeds: Sequence[Sequence[QueryScores]], replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Interval]:
    """Interval of each measure.

    Args:
        seeds: for each trained model, the query scores of each of its galleries (or corruption repeats). Galleries of
            one model must have the same queries.
        replicates: bootstrap draws.
        seed: of the draws.

    Raises:
        UsageError: nothing to resample, or galleries of one model with different queries.
    """
    draws = _Draws.make(_all_persons([seeds]), [len(seeds)], replicates, seed)
    found = {}
    for measure in MEASURES:
        value, replicated = _resampled(
            _sums(seeds, measure, draws.persons), draws.person_weights, draws.seed_weights[0]
        )
        found[measure] = _interval(value, replicated, draws, len(seeds))
    return found


def compare(
    first: Sequence[Sequence[QueryScores]],
    second: Sequence[Sequence[QueryScores]],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Difference ``second - first`` of each measure, persons paired, seeds of the two drawn apart.

    An interval that does not hold 0 says that the difference is not luck of the drawn persons (and of the seeds, where
    each side has several).

    Raises:
        UsageError: the two were not tested on the same queries.
    """
    if sorted(_all_persons([first])) != sorted(_all_persons([second])):
        raise UsageError("the two results test different persons; only results of the same trials can be compared")
    if len(first) == len(second):
        for left, right in zip(first, second, strict=True):
            if not torch.equal(left[0].persons, right[0].persons):
                raise UsageError("the two results have different queries; only results of the same trials compare")
    draws = _Draws.make(_all_persons([first]), [len(first), len(second)], replicates, seed)
    found = {}
    for measure in MEASURES:
        values, rows = zip(
            *(
                _resampled(_sums(side, measure, draws.persons), draws.person_weights, weights)
                for side, weights in zip((first, second), draws.seed_weights, strict=True)
            ),
            strict=True,
        )
        found[measure] = _interval(values[1] - values[0], rows[1] - rows[0], draws, min(len(first), len(second)))
    return found


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
    found = {}
    for cause in causes:
        by_level: dict[int | str, list[float]] = {}
        for levels, value in observations:
            by_level.setdefault(levels[cause], []).append(value)
        means = [statistics.fmean(values) for values in by_level.values()]
        found[cause] = {"levels": len(means), "std": statistics.stdev(means) if len(means) > 1 else 0.0}
    return found


def write_query_scores(path: Path | str, features: Mapping[str, Sequence[Scores]]) -> None:
    """Store the per-query arrays of each feature's trials in an ``.npz`` file, for intervals and comparisons.

    Raises:
        UsageError: a feature without trials.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for feature, trials in features.items():
        if not trials:
            raise UsageError(f"feature {feature!r} has no trial to store")
        for number, trial in enumerate(trials):
            for name in _ARRAYS:
                arrays[f"{feature}/{number}/{name}"] = getattr(trial.per_query, name).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def read_query_scores(path: Path | str) -> dict[str, list[QueryScores]]:
    """Feature -> query scores of each trial, as ``write_query_scores`` stored them.

    Raises:
        DataError: no such file, or not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: query scores cannot be read ({error})") from error
    found: dict[str, list[QueryScores]] = {}
    for key in arrays:
        feature, number, name = key.rsplit("/", 2) if key.count("/") >= 2 else ("", "", "")
        if name != _ARRAYS[0]:
            continue
        if int(number) != len(found.setdefault(feature, [])):
            raise DataError(f"{path}: trials of {feature!r} are not in order")
        fields = {name: torch.from_numpy(arrays[f"{feature}/{number}/{name}"]) for name in _ARRAYS}
        found[feature].append(QueryScores(**fields))
    if not found:
        raise DataError(f"{path} holds no query scores")
    return found


def compare_results(first: Sequence[Path | str], second: Sequence[Path | str], seed: int = 0) -> dict[str, Any]:
    """Compare result files: each side one or several JSON results (seeds) with their query scores beside them.

    A result names its feature (``feature``), its protocol (``protocol``), the hash of its test list (``data.hash``) and
    the file of its query scores (``per_query``, relative to the JSON file).

    Raises:
        UsageError: results of different protocols or test lists.
        DataError: a file is missing or damaged.
    """
    sides = [[_read_result(Path(path)) for path in side] for side in (first, second)]
    keys = {(result["protocol"], result["data"]["hash"]) for side in sides for result, _ in side}
    if len({protocol for protocol, _ in keys}) > 1:
        raise UsageError(f"different protocols cannot be compared: {', '.join(sorted(p for p, _ in keys))}")
    if len(keys) > 1 and not _same_lists(sides):
        raise UsageError("the results were made on different test lists; only equal lists can be compared")
    differences = compare([scores for _, scores in sides[0]], [scores for _, scores in sides[1]], seed=seed)
    return {
        "first": [str(path) for path in first],
        "second": [str(path) for path in second],
        "features": [sorted({result["feature"] for result, _ in side}) for side in sides],
        "protocol": next(iter(keys))[0],
        "differences": {measure: asdict(interval) for measure, interval in differences.items()},
        "replicates": REPLICATES,
        "level": LEVEL,
    }


def _same_lists(sides: Sequence[Sequence[tuple[Mapping[str, Any], list[QueryScores]]]]) -> bool:
    """Several lists are fine where they are the same ones, in order, on both sides (RegDB: one a partition)."""
    hashes = [[result["data"]["hash"] for result, _ in side] for side in sides]
    return hashes[0] == hashes[1]


def _read_result(path: Path) -> tuple[Mapping[str, Any], list[QueryScores]]:
    result = read_json(path)
    missing = [key for key in ("feature", "protocol", "data", "per_query") if key not in result]
    if missing:
        raise DataError(f"{path} is not a result with query scores: it has no {', '.join(missing)}")
    scores = read_query_scores(path.parent / result["per_query"])
    if result["feature"] not in scores:
        raise DataError(f"{path.parent / result['per_query']} has no scores of feature {result['feature']!r}")
    return result, scores[result["feature"]]


def _all_persons(sides: Sequence[Sequence[Sequence[QueryScores]]]) -> list[int]:
    """Every person that is a query somewhere, once."""
    persons = {int(p) for side in sides for trials in side for trial in trials for p in trial.persons.tolist()}
    if not persons:
        raise UsageError("no query scores to resample")
    return sorted(persons)


@dataclass(frozen=True)
class _Draws:
    """One set of bootstrap draws, shared by all measures and both sides of a comparison."""

    persons: list[int]
    person_weights: NDArray[np.float64]
    """(replicates, persons): how often each person was drawn."""
    seed_weights: list[NDArray[np.float64]]
    """For each side (replicates, seeds): share of each seed."""

    @classmethod
    def make(cls, persons: list[int], seeds: Sequence[int], replicates: int, seed: int) -> "_Draws":
        generator = np.random.default_rng(derive_seed("bootstrap", seed))
        count = len(persons)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=replicates).astype(np.float64)
        shares = [
            generator.multinomial(number, np.full(number, 1 / number), size=replicates).astype(np.float64) / number
            for number in seeds
        ]
        return cls(persons, weights, shares)


def _sums(
    seeds: Sequence[Sequence[QueryScores]], measure: str, persons: list[int]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each seed and person, the sum of the measure over queries (averaged over galleries) and the valid queries."""
    place = {person: number for number, person in enumerate(persons)}
    found = []
    for trials in seeds:
        if any(not torch.equal(trial.persons, trials[0].persons) for trial in trials):
            raise UsageError("the galleries of one model must be searched by the same queries")
        values = np.stack([_values(trial, measure) for trial in trials])
        valid = np.stack([trial.valid.numpy() for trial in trials])
        rows = np.array([place[person] for person in trials[0].persons.tolist()])
        sums = np.bincount(rows, np.where(valid, values, 0).mean(axis=0), minlength=len(persons))
        weights = np.bincount(rows, valid.mean(axis=0), minlength=len(persons))
        found.append((sums.astype(np.float64), weights.astype(np.float64)))
    return found


def _values(trial: QueryScores, measure: str) -> NDArray[np.float64]:
    if measure == "rank-1":
        return (trial.first_match == 1).numpy().astype(np.float64)
    chosen = trial.average_precision if measure == "mAP" else trial.inverse_negative_penalty
    return chosen.double().numpy()


def _resampled(
    sums: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    person_weights: NDArray[np.float64],
    seed_weights: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64]]:
    """The score itself and its replicates. A replicate that drew no valid query of a seed counts the seed's score."""
    own = np.array([total.sum() / weight.sum() for total, weight in sums])
    drawn = np.empty((len(person_weights), len(sums)))
    for number, (total, weight) in enumerate(sums):
        count = person_weights @ weight
        drawn[:, number] = np.where(count > 0, person_weights @ total / np.where(count > 0, count, 1), own[number])
    return float(own.mean()), (drawn * seed_weights).sum(axis=1)


def _interval(value: float, replicated: NDArray[np.float64], draws: _Draws, seeds: int) -> Interval:
    low, high = np.quantile(replicated, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), len(draws.persons), seeds)
