"""Open set and thresholds: who is known, how often is a match missed, how often is a stranger taken for somebody?

Definitions of ISO/IEC 19795-1:2021, from arrays of scores (larger is more alike) and person numbers alone. A *mated*
trial has a right answer in the gallery, a *non-mated* one has none; a threshold t accepts scores of at least t.

* Searches (one probe against a whole gallery): FPIR, the share of non-mated searches that return anybody, and FNIR, the
  share of mated ones that do not return the right person; FNIR depends on the number of enrolled persons.
* Comparisons (one probe against one person): FMR, here also FAR, and FNMR; TAR = 1 - FNMR.

Both have one arithmetic, so ``Trials`` holds either. Five strangers and four enrolled persons:

    >>> import numpy as np
    >>> strangers, enrolled = np.array([0.1, 0.2, 0.3, 0.4, 0.9]), np.array([0.35, 0.5, 0.8, 0.95])
    >>> threshold = threshold_at(strangers, 0.2)  # one of five may pass
    >>> float((strangers >= threshold).mean()), float((enrolled < threshold).mean())  # FPIR and FNIR
    (0.2, 0.25)

Intervals draw *persons* with replacement, a probe's trials together, never pairs. A rate below 3 / n of n persons is
not measurable: no error among n bounds a rate only by 3 / n (with 95 % confidence).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from dapg.core.errors import UsageError
from dapg.core.seeds import derive_seed

REPLICATES, LEVEL = 2000, 0.95
SPLITS = 10
_ELEMENTS = 4_000_000
"""Weights held at a time."""

Vector = NDArray[np.float64]


def threshold_at(non_mated: Float[np.ndarray, "N"], rate: float) -> float:
    """The smallest threshold that at most a share ``rate`` of the non-mated scores reaches; equal scores go together.

    Raises:
        UsageError: no score, or a rate outside [0, 1].
    """
    if len(non_mated) == 0 or not 0 <= rate <= 1:
        raise UsageError(f"a threshold at a rate of {rate} needs non-mated scores and a rate in [0, 1]")
    allowed = _allowed(rate, len(non_mated))
    if allowed >= len(non_mated):
        return -math.inf
    return float(np.nextafter(np.sort(non_mated.astype(np.float64))[::-1][allowed], np.inf))


@dataclass(frozen=True)
class Det:
    """Detection error trade-off: both error rates at every threshold that changes one, from the strictest down."""

    thresholds: Float[np.ndarray, "T"]
    """Descending, from infinity (nothing is accepted)."""
    false_positive: Float[np.ndarray, "T"]
    false_negative: Float[np.ndarray, "T"]


def det(mated: Float[np.ndarray, "M"], non_mated: Float[np.ndarray, "N"]) -> Det:
    """The curve of every threshold.

    Raises:
        UsageError: one of the two is empty.
    """
    _refuse_empty(mated, non_mated)
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([mated, non_mated]).astype(np.float64))[::-1]])
    # Scores below a threshold, counted in an ascending list.
    passed = 1 - np.searchsorted(np.sort(non_mated), thresholds) / len(non_mated)
    missed = np.searchsorted(np.sort(mated), thresholds) / len(mated)
    return Det(thresholds, passed, missed)


@dataclass(frozen=True)
class Trials:
    """Searches or comparisons. Scores may be minus infinity (never accepted), but not NaN.

    Raises:
        UsageError: no mated or no non-mated trial, lengths that do not fit, or a NaN.
    """

    mated: Float[np.ndarray, "M"]
    mated_persons: Int[np.ndarray, "M"]
    """Of the probes."""
    non_mated: Float[np.ndarray, "N"]
    non_mated_persons: Int[np.ndarray, "N"]
    """Of the probes."""
    enrolled: int
    """Persons in the gallery."""
    non_mated_others: Int[np.ndarray, "N"] | None = None
    """Of comparisons: the person that the probe was compared with, who is drawn as well."""

    def __post_init__(self) -> None:
        """Check what the annotations cannot."""
        _refuse_empty(self.mated, self.non_mated)
        if np.isnan(self.mated).any() or np.isnan(self.non_mated).any():
            raise UsageError("a score is NaN")


def best_by_person(
    similarity: Float[np.ndarray, "Q G"],
    gallery_persons: Int[np.ndarray, "G"],
    left_out: Bool[np.ndarray, "Q G"] | None = None,
) -> tuple[Int[np.ndarray, "P"], Float[np.ndarray, "Q P"]]:
    """Enrolled persons, ascending, and the similarity of each query to each person's nearest image.

    Args:
        similarity: larger is more alike.
        gallery_persons: of the gallery images.
        left_out: images that the protocol leaves out; a person of whom nothing is left has minus infinity.
    """
    persons, columns = np.unique(gallery_persons, return_inverse=True)
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(len(persons)))
    counted = similarity if left_out is None else np.where(left_out, -np.inf, similarity)
    return persons, np.maximum.reduceat(counted[:, order], starts, axis=1)


def person_splits(
    persons: Sequence[int] | Int[np.ndarray, "P"], count: int = SPLITS, share: float = 0.5, seed: int = 0
) -> list[frozenset[int]]:
    """Known persons of each of ``count`` random splits; the rest is unknown.

    A split takes the persons with the smallest hashes, so it does not depend on the version of a random generator.

    Raises:
        UsageError: a side would have nobody.
    """
    people = sorted({int(person) for person in persons})
    known = round(len(people) * share)
    if not 0 < known < len(people):
        raise UsageError(f"{len(people)} persons cannot be split into known and unknown ones by a share of {share}")
    splits = []
    for split in range(count):
        by_hash = sorted(people, key=functools.partial(derive_seed, "known persons", seed, split))
        splits.append(frozenset(by_hash[:known]))
    return splits


def searches(
    best: Float[np.ndarray, "Q P"],
    gallery_persons: Int[np.ndarray, "P"],
    query_persons: Int[np.ndarray, "Q"],
    unknown: Sequence[int] | frozenset[int] = (),
    rank: int | None = None,
) -> Trials:
    """Every query searches the gallery of all persons but the unknown ones.

    Args:
        best: of ``best_by_person``.
        gallery_persons: persons of its columns, each once; those nobody queries (distractors) stay enrolled.
        query_persons: a query of an enrolled person is mated, and left out where the protocol leaves nothing of that
            person; any other is non-mated; a negative person, who may be anybody, is left out.
        unknown: persons taken out of the gallery.
        rank: also count a mated search as missed unless the right person is among the first ``rank`` persons
            (ISO/IEC 19795-1's R); None: the threshold alone decides.

    Raises:
        UsageError: no mated or no non-mated search is left.
    """
    enrolled = ~np.isin(gallery_persons, list(unknown))
    persons, table = gallery_persons[enrolled], best[:, enrolled].astype(np.float64)
    if len(persons) == 0:
        raise UsageError("nobody is enrolled")
    order = np.argsort(persons)
    places = order[np.searchsorted(persons[order], query_persons).clip(max=len(persons) - 1)]
    mated = persons[places] == query_persons
    own = table[np.arange(len(table)), places]
    enrolled = mated & (own > -np.inf) & (query_persons >= 0)
    if rank is not None:
        # Somebody else who is as near stands before: a tie is no identification.
        before = (table >= own[:, None]).sum(axis=1) - 1
        own = np.where(before >= rank, -np.inf, own)
    strangers = ~mated & (query_persons >= 0)
    return Trials(
        own[enrolled], query_persons[enrolled], table[strangers].max(axis=1), query_persons[strangers], len(persons)
    )


def split_searches(
    best: Float[np.ndarray, "Q P"],
    gallery_persons: Int[np.ndarray, "P"],
    query_persons: Int[np.ndarray, "Q"],
    splits: Sequence[frozenset[int]],
    rank: int | None = None,
) -> list[Trials]:
    """``searches`` of each split of ``person_splits``: its known persons are enrolled, and those nobody queries.

    Raises:
        UsageError: a split leaves no mated or no non-mated search.
    """
    queried = frozenset(query_persons.tolist())
    return [searches(best, gallery_persons, query_persons, queried - known, rank) for known in splits]


def comparisons(
    best: Float[np.ndarray, "Q P"], gallery_persons: Int[np.ndarray, "P"], query_persons: Int[np.ndarray, "Q"]
) -> Trials:
    """Every query is compared with every enrolled person, at that person's nearest image (``best_by_person``).

    Raises:
        UsageError: no mated or no non-mated comparison.
    """
    counted = (best > -np.inf) & (query_persons >= 0)[:, None] & (gallery_persons >= 0)
    same = query_persons[:, None] == gallery_persons
    probes, others = np.broadcast_arrays(query_persons[:, None], gallery_persons)
    mated, non_mated = counted & same, counted & ~same
    return Trials(
        best[mated].astype(np.float64),
        probes[mated],
        best[non_mated].astype(np.float64),
        probes[non_mated],
        len(gallery_persons),
        others[non_mated],
    )


@dataclass(frozen=True)
class Measured:
    """A rate in [0, 1] with its bootstrap percentile interval over persons; all None where nothing can be said."""

    value: float | None
    low: float | None
    high: float | None
    persons: int
    """Persons whose errors are counted; of several splits, the fewest of any."""
    enrolled: int
    """Persons in the gallery; of several splits, the fewest of any."""
    reason: str = ""
    """Why there is no value, or why it is not measurable."""

    def __str__(self) -> str:
        """In per cent, or that it is not measurable."""
        if self.reason or self.value is None or self.low is None or self.high is None:
            return f"not measurable: {self.reason}"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def miss_rate(trials: Sequence[Trials], rate: float, replicates: int = REPLICATES, seed: int = 0) -> Measured:
    """FNIR at an FPIR of ``rate`` (FNMR at FMR of comparisons), the mean over several splits.

    Each split, and each replicate of the bootstrap, has a threshold of its own.

    Args:
        trials: of each split into known and unknown persons, or a single one.
        rate: of non-mated trials that may pass; of n non-mated persons at least 3 / n, 300 persons for 1 %.
        replicates: bootstrap draws.
        seed: of the draws.

    Raises:
        UsageError: no split.
    """
    strangers = _fewest([split.non_mated_persons for split in trials])
    if rate < 3 / strangers - 1e-12:
        few = f"a rate of {100 * rate:g} % needs {math.ceil(3 / rate - 1e-9)} non-mated persons, there are {strangers}"
        return Measured(None, None, None, strangers, _enrolled(trials), few)

    ordered = dict[int, _Ordered]()

    def missed(split: int, drawn: Vector, everybody: NDArray[np.int64]) -> Vector:
        if split not in ordered:
            ordered[split] = _Ordered(trials[split], everybody)
        return _missed(ordered[split], drawn, rate, 1.5 * rate)

    return _measured(trials, missed, _fewest([split.mated_persons for split in trials]), replicates, seed)


def missed_at(
    trials: Sequence[Trials], thresholds: Sequence[float], replicates: int = REPLICATES, seed: int = 0
) -> Measured:
    """FNIR (FNMR) at given thresholds, one a split: set on other persons, or on other images.

    Raises:
        UsageError: no split, or another number of thresholds.
    """
    below = [split.mated.astype(np.float64) < threshold for split, threshold in _with(thresholds, trials)]

    def missed(split: int, drawn: Vector, everybody: NDArray[np.int64]) -> Vector:
        return _share(drawn, np.searchsorted(everybody, trials[split].mated_persons), None, below[split])

    return _measured(trials, missed, _fewest([split.mated_persons for split in trials]), replicates, seed)


def passed_at(
    trials: Sequence[Trials], thresholds: Sequence[float], replicates: int = REPLICATES, seed: int = 0
) -> Measured:
    """FPIR (FMR) at given thresholds, one a split: threshold drift, where they were set on clean images.

    Raises:
        UsageError: no split, or another number of thresholds.
    """
    above = [split.non_mated.astype(np.float64) >= threshold for split, threshold in _with(thresholds, trials)]

    def passed(split: int, drawn: Vector, everybody: NDArray[np.int64]) -> Vector:
        others = trials[split].non_mated_others
        columns = None if others is None else np.searchsorted(everybody, others)
        return _share(drawn, np.searchsorted(everybody, trials[split].non_mated_persons), columns, above[split])

    return _measured(trials, passed, _fewest([split.non_mated_persons for split in trials]), replicates, seed)


def separation(trials: Sequence[Trials], replicates: int = REPLICATES, seed: int = 0) -> Measured:
    """AUROC with its interval, the mean over several splits.

    Of searches it is the area under 1 - FNIR over FPIR: a mated search has the score of the right person, a non-mated
    one that of the likest of all enrolled persons, so that chance is far below one half.

    Raises:
        UsageError: no split.
    """
    persons = _fewest([side for split in trials for side in (split.mated_persons, split.non_mated_persons)])

    def area(split: int, drawn: Vector, everybody: NDArray[np.int64]) -> Vector:
        weights = _weights(trials[split], everybody, drawn)
        return _separation(trials[split].mated, trials[split].non_mated, *weights)

    measured = _measured(trials, area, persons, replicates, seed)
    return Measured(measured.value, measured.low, measured.high, persons, measured.enrolled)


Statistic = Callable[[int, Vector, NDArray[np.int64]], Vector]
"""(R,) values of a split (counted from 0) when each of these persons was drawn (R, persons) times; NaN without any."""


def _measured(trials: Sequence[Trials], statistic: Statistic, persons: int, replicates: int, seed: int) -> Measured:
    """The mean of a statistic over splits, and its percentiles under draws of persons that all splits share."""
    if not trials:
        raise UsageError("there is no split to measure")
    everybody = np.unique(np.concatenate([_everybody(split) for split in trials]))
    count = len(everybody)
    draws = _draws(count, replicates, seed)
    value, total = 0.0, np.zeros(replicates)
    for number, split in enumerate(trials):
        step = max(1, _ELEMENTS // (len(split.mated) + len(split.non_mated)))
        blocks = [np.ones((1, count)), *(draws[start : start + step] for start in range(0, replicates, step))]
        (own,), *parts = (statistic(number, block, everybody) for block in blocks)
        drawn = np.concatenate(parts)
        value += float(own) / len(trials)
        total += np.where(np.isnan(drawn), own, drawn) / len(trials)
    low, high = (float(bound) for bound in np.quantile(total, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    floor = 3 / persons
    reason = f"below 3/n = {100 * floor:.1f} % of {persons} persons" if value < floor else ""
    return Measured(value, low, high, persons, _enrolled(trials), reason)


@functools.lru_cache(maxsize=4)
def _draws(persons: int, replicates: int, seed: int) -> Vector:
    """(replicates, persons) times that each is drawn."""
    generator = np.random.default_rng(derive_seed("open set persons", seed))
    return generator.multinomial(persons, np.full(persons, 1 / persons), size=replicates).astype(np.float64)


def _weights(split: Trials, everybody: NDArray[np.int64], drawn: Vector) -> tuple[Vector, Vector]:
    """(R, M) and (R, N) weights of the trials, from (R, persons) times that each person was drawn."""
    mated, non_mated = (
        drawn[:, np.searchsorted(everybody, side)] for side in (split.mated_persons, split.non_mated_persons)
    )
    if split.non_mated_others is not None:
        non_mated = non_mated * drawn[:, np.searchsorted(everybody, split.non_mated_others)]
    return mated, non_mated


class _Ordered:
    """Scores of a split in order, with the places of their persons among everybody."""

    def __init__(self, split: Trials, everybody: NDArray[np.int64]) -> None:
        falling = np.argsort(-split.non_mated, kind="stable")
        rising = np.argsort(split.mated, kind="stable")
        self.levels = split.non_mated[falling]
        # Up to each level, the mated scores that a threshold just above it misses.
        self.misses = np.searchsorted(split.mated[rising], self.levels, side="right")
        self.mated = np.searchsorted(everybody, split.mated_persons)[rising]
        others, count = split.non_mated_others, len(everybody)
        self.non_mated = np.searchsorted(everybody, split.non_mated_persons)[falling]
        self.others = None if others is None else np.searchsorted(everybody, others)[falling]
        pairs = self.non_mated if self.others is None else self.non_mated * count + self.others
        shape = (count,) if self.others is None else (count, count)
        self._counts = np.bincount(pairs, minlength=math.prod(shape)).reshape(shape).astype(np.float64)

    def total(self, drawn: Vector) -> Vector:
        """(R,) weights of all non-mated scores together."""
        sums: Vector = drawn @ self._counts
        return sums if self.others is None else (sums * drawn).sum(axis=1)


def _missed(scores: _Ordered, drawn: Vector, rate: float, part: float) -> Vector:
    """(R,) weighted miss rates at the threshold that the weighted non-mated scores give: ``threshold_at``, weighted.

    Of the non-mated scores only a ``part``, the largest, is looked at, if the threshold is there; else twice as many.
    """
    most = min(len(scores.levels), 1 + int(part * len(scores.levels)))
    weights = drawn[:, scores.non_mated[:most]]
    if scores.others is not None:
        weights = weights * drawn[:, scores.others[:most]]
    running = np.cumsum(weights, axis=1)
    total = scores.total(drawn)
    budget = rate * total[:, None] * (1 + 1e-12) + 1e-9
    if most < len(scores.levels) and bool((running[:, -1:] <= budget).any()):
        return _missed(scores, drawn, rate, 2 * part)
    first_refused = (running <= budget).sum(axis=1)
    below = np.concatenate([np.zeros((len(drawn), 1)), np.cumsum(drawn[:, scores.mated], axis=1)], axis=1)
    missed = np.where(
        first_refused < len(scores.levels),
        below[np.arange(len(drawn)), scores.misses[first_refused.clip(max=len(scores.levels) - 1)]],
        0,
    )
    return _ratio(missed, np.where(total > 0, below[:, -1], 0))


def _separation(mated_scores: Vector, non_mated_scores: Vector, mated: Vector, non_mated: Vector) -> Vector:
    """(R,) weighted AUROC: for each mated score the weight of non-mated ones below, half of equal ones."""
    rising = np.argsort(non_mated_scores, kind="stable")
    ordered = non_mated_scores[rising]
    running = np.concatenate([np.zeros((len(mated), 1)), np.cumsum(non_mated[:, rising], axis=1)], axis=1)
    below, upto = (np.searchsorted(ordered, mated_scores, side=side) for side in ("left", "right"))
    won = (mated * (running[:, below] + running[:, upto])).sum(axis=1) / 2
    return _ratio(won, mated.sum(axis=1) * running[:, -1])


def _share(
    drawn: Vector, persons: NDArray[np.int64], others: NDArray[np.int64] | None, chosen: Bool[np.ndarray, "_"]
) -> Vector:
    """(R,) weighted shares of the chosen trials, from their sums by person, or by pair of persons."""
    count = drawn.shape[1]
    if others is None:
        sums = (np.bincount(persons, weights, count) for weights in (chosen, None))
        return _ratio(*(drawn @ of_persons for of_persons in sums))
    pairs = (np.bincount(persons * count + others, weights, count * count) for weights in (chosen, None))
    return _ratio(*((drawn @ of_pairs.reshape(count, count) * drawn).sum(axis=1) for of_pairs in pairs))


def _ratio(part: Vector, whole: Vector) -> Vector:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _allowed(rate: float, count: int) -> int:
    """Scores that may pass; 0.29 * 100 is 28.999999999999996 in floating point, and 29 is meant."""
    return int(rate * count * (1 + 1e-12) + 1e-9)


def _with(thresholds: Sequence[float], trials: Sequence[Trials]) -> list[tuple[Trials, float]]:
    if len(thresholds) != len(trials):
        raise UsageError(f"{len(trials)} splits need as many thresholds, not {len(thresholds)}")
    return list(zip(trials, thresholds, strict=True))


def _everybody(split: Trials) -> NDArray[np.int64]:
    others = () if split.non_mated_others is None else (split.non_mated_others,)
    return np.concatenate([split.mated_persons, split.non_mated_persons, *others])


def _enrolled(trials: Sequence[Trials]) -> int:
    return min(split.enrolled for split in trials)


def _fewest(sides: Sequence[NDArray[np.int64]]) -> int:
    if not sides:
        raise UsageError("there is no split to measure")
    return min(len(np.unique(side)) for side in sides)


def _refuse_empty(mated: Float[np.ndarray, "M"], non_mated: Float[np.ndarray, "N"]) -> None:
    if len(mated) == 0 or len(non_mated) == 0:
        raise UsageError(f"error rates need mated and non-mated scores; there are {len(mated)} and {len(non_mated)}")
