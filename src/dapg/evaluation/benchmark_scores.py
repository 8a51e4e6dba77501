"""The benchmark's numbers from features alone: scores of every test set, a few numbers of the grid, open set, drift."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import JsonObject, Record, Trial
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.evaluation.benchmark_sets import (
    CLEAN_SET,
    FeatureFolder,
    cell_name,
    damaged_by,
    mixture_name,
    sets_of,
    with_infrared,
)
from dapg.evaluation.corrupted_sets import CorruptionPolicy
from dapg.features.extract import trial_records
from dapg.scoring import open_set, robustness
from dapg.scoring.bootstrap import MEASURES, intervals, spread, trial_means
from dapg.scoring.labels import Labels, TrialRows
from dapg.scoring.metrics import QueryScores, Scores, score_trials

RATES = (0.1, 0.01)
"""FPIR and FAR that misses are read at; the first is also the threshold that drifts."""
_CELL_REPLICATES = 500
"""Bootstrap replicates of an interval of one cell; what is printed alone has the usual 2,000."""


@dataclass(frozen=True)
class Test:
    """What is scored: a data set's trials and everything about them that does not depend on the model."""

    __test__ = False

    dataset: Dataset
    trials: Sequence[Trial]
    repeats: int

    def records(self) -> list[Record]:
        """Every image of the trials, once."""
        return trial_records(self.trials)


@dataclass(frozen=True)
class _Frame:
    """Trials as rows of [clean features; corrupted features], and who is left out where."""

    rows: Sequence[TrialRows]
    count: int
    left_out: Sequence[Bool[np.ndarray, "Q G"]]
    splits: Sequence[frozenset[int]]
    """Known persons of each split; empty where persons cannot be split."""
    galleries: int
    """Trials that the splits take turns with: all that test the same persons as the first."""

    def placed(self, query: bool, gallery: bool) -> list[TrialRows]:
        """The trials with one side or both corrupted."""
        down = self.count
        return [TrialRows(rows.query + down * query, rows.gallery + down * gallery, rows.labels) for rows in self.rows]


def score_protocols(folder: FeatureFolder, test: Test, policies: Mapping[str, CorruptionPolicy]) -> JsonObject:
    """Everything that the result says of a model.

    Args:
        folder: its features of every test set of ``sets_of``.
        test: what is scored.
        policies: protocols by name.

    Returns:
        ``clean``, and ``protocols``: name -> ``mean`` of the grid, ``summary``, ``mixture``, ``cells``, ``open_set``.

    Raises:
        DataError: features that are not there, or that are none.
    """
    records = test.records()
    clean = folder.read(CLEAN_SET, records)
    frame = _frame(test, records)
    nothing = _scored(torch.cat([clean, clean]), frame.rows)
    thresholds, open_clean = _open_clean(torch.cat([clean, clean]), frame)
    row_of = {record: row for row, record in enumerate(records)}
    result: JsonObject = {
        "clean": {**_means(nothing), "intervals": _intervals([nothing]), "open_set": open_clean},
        "protocols": {},
    }
    for name, policy in policies.items():
        placed = frame.placed(policy.side in ("both", "query"), policy.side in ("both", "gallery"))
        grid = _Grid(test, records, row_of, clean, folder, policy)
        scored: dict[str, list[Scores]] = {}
        cells = []
        for kind, severity in grid.cells():
            key = cell_name(kind, severity)
            features = grid.features(key, 0)
            scored[key] = _scored(features, placed)
            drift = _drift(features, dataclasses.replace(frame, rows=placed), thresholds)
            family = library.get(kind).family
            cells.append({"type": kind, "family": family, "severity": severity, **_means(scored[key]), **drift})
        mixtures = [_scored(grid.features(mixture_name(policy, n), n), placed) for n in range(test.repeats)]
        first = grid.features(mixture_name(policy, 0), 0)
        result["protocols"][name] = {
            "rule": {key: getattr(policy, key) for key in ("modality", "side", "weather")},
            "summary": _summary(cells, scored, nothing),
            "mixture": _mixture(mixtures),
            "open_set": _open_set(first, dataclasses.replace(frame, rows=placed)),
            "cells": cells,
        }
    return result


def grid_of(protocol: JsonObject, measure: str) -> tuple[list[str], list[int], Float[np.ndarray, "T S"]]:
    """Types, severities and the scores of one measure of a stored protocol's cells."""
    types = list(dict.fromkeys(cell["type"] for cell in protocol["cells"]))
    severities = sorted({cell["severity"] for cell in protocol["cells"]})
    values = np.full((len(types), len(severities)), np.nan)
    for cell in protocol["cells"]:
        values[types.index(cell["type"]), severities.index(cell["severity"])] = cell[measure]
    return types, severities, values


def relative_errors(result: JsonObject, reference: JsonObject | None, why_not: str) -> None:
    """Write mCE and relative mCE of every protocol into a result; without a reference they are null and say why.

    Args:
        result: of ``score_protocols``; changed.
        reference: the same of the reference model on the same test, or None.
        why_not: said where there is none.
    """
    for name, protocol in result["protocols"].items():
        other = (reference or {"protocols": {}})["protocols"].get(name)
        measured: JsonObject = {"mCE": None, "relative_mCE": None, "mCE_by_type": None, "mCE_missing": why_not}
        if reference is not None and other is None:
            measured["mCE_missing"] = f"the reference was not scored by protocol {name}"
        if reference is not None and other is not None:
            types, _, scores = grid_of(protocol, "mAP")
            _, _, others = grid_of(other, "mAP")
            clean, other_clean = 1 - result["clean"]["mAP"], 1 - reference["clean"]["mAP"]
            errors, base = 1 - scores, 1 - others
            measured["mCE_missing"] = ""
            try:
                measured["mCE"] = robustness.mean_corruption_error(errors, base)
                measured["mCE_by_type"] = dict(zip(types, errors.sum(axis=1) / base.sum(axis=1), strict=True))
                measured["relative_mCE"] = robustness.relative_corruption_error(errors, clean, base, other_clean)
            except UsageError as error:
                measured["mCE_missing"] = str(error)
        protocol["summary"] |= measured


class _Grid:
    """Features of a protocol's test sets: clean ones above, corrupted ones below, image by image."""

    def __init__(
        self,
        test: Test,
        records: Sequence[Record],
        row_of: Mapping[Record, int],
        clean: Float[Tensor, "N D"],
        folder: FeatureFolder,
        policy: CorruptionPolicy,
    ) -> None:
        self.test, self.records, self.row_of, self.clean = test, records, row_of, clean
        self.folder, self.policy = folder, policy
        self.sets = {test_set.name: test_set for test_set in sets_of([policy], test.repeats)}

    def cells(self) -> list[tuple[str, int]]:
        """Types and severities."""
        return [(kind, level) for kind in library.expand(self.policy.types) for level in self.policy.severities]

    def features(self, name: str, repeat: int) -> Float[Tensor, "M D"]:
        """[clean; corrupted]; an image that the protocol leaves clean is clean in both."""
        below = self.clean.clone()
        for file in (name, with_infrared(name)):
            if file in self.sets:
                damaged = [r for r, _ in damaged_by(self.sets[file], self.test.dataset, self.records)]
                if damaged:
                    below[[self.row_of[record] for record in damaged]] = self.folder.read(file, damaged)
        return torch.cat([self.clean, below])


def _frame(test: Test, records: Sequence[Record]) -> _Frame:
    row_of = {record: row for row, record in enumerate(records)}
    rows = [
        TrialRows(
            torch.tensor([row_of[record] for record in trial.query]),
            torch.tensor([row_of[record] for record in trial.gallery]),
            Labels.of(trial),
        )
        for trial in test.trials
    ]
    left_out = [np.stack([trial.labels.left_out(n) for n in range(len(trial.query))]) for trial in rows]
    persons = frozenset(rows[0].labels.query_persons.tolist()) & frozenset(rows[0].labels.gallery_persons.tolist())
    try:
        splits = open_set.person_splits(sorted(person for person in persons if person >= 0))
    except UsageError:
        splits = []
    people = [frozenset(trial.labels.gallery_persons.tolist()) for trial in rows]
    return _Frame(rows, len(records), left_out, splits, len(rows) if len(set(people)) == 1 else 1)


def _scored(features: Float[Tensor, "M D"], rows: Sequence[TrialRows]) -> list[Scores]:
    return score_trials(features, rows)


def _means(trials: Sequence[Scores]) -> dict[str, float]:
    """rank-1, mAP and mINP, the mean over trials."""
    of_trials = [trial_means(trial.per_query) for trial in trials]
    return {measure: float(np.mean([means[measure] for means in of_trials])) for measure in MEASURES}


def _intervals(sets: Sequence[Sequence[Scores]]) -> JsonObject:
    """Over persons, of the mean over test sets."""
    pooled = [trial.per_query for trials in sets for trial in trials]
    return {measure: asdict(interval) for measure, interval in intervals([pooled]).items()}


def _mixture(repeats: Sequence[Sequence[Scores]]) -> JsonObject:
    """Mean over repeats, its interval over persons, and the spread over repeats apart from that over trials."""
    levels = [
        ({"repeat": repeat, "trial": trial}, trial_means(scores.per_query))
        for repeat, trials in enumerate(repeats)
        for trial, scores in enumerate(trials)
    ]
    means = [_means(trials) for trials in repeats]
    return {
        **{measure: float(np.mean([mean[measure] for mean in means])) for measure in MEASURES},
        "intervals": _intervals(repeats),
        "spread": {measure: spread([(level, mean[measure]) for level, mean in levels]) for measure in MEASURES},
        "repeats": len(repeats),
    }


def _summary(cells: Sequence[JsonObject], scored: Mapping[str, list[Scores]], clean: list[Scores]) -> JsonObject:
    """The grid in a few numbers."""
    stored = {"cells": cells}
    reference = _means(clean)
    types, severities, scores = grid_of(stored, "mAP")
    worst = robustness.worst(scores)
    lowest = [[types[row], severities[column]] for row, column in np.argwhere(worst.tenth).tolist()]
    families = {
        family: float(scores[[types.index(name) for name in members if name in types]].mean())
        for family, members in library.families().items()
        if any(name in types for name in members)
    }
    lists = {"seen": library.SEEN, "unseen": library.UNSEEN}
    plain, beyond = _overlaps(types, severities, scored, clean)
    return {
        "mean": {measure: float(grid_of(stored, measure)[2].mean()) for measure in MEASURES},
        "intervals": _intervals(list(scored.values())),
        "retention": {m: robustness.retention(grid_of(stored, m)[2], reference[m]) for m in MEASURES},
        "worst_type": {"type": types[worst.type], "mAP": worst.type_score},
        "worst_tenth": {"mAP": worst.tenth_score, "cells": lowest},
        "types": dict(zip(types, scores.mean(axis=1).tolist(), strict=True)),
        "families": families,
        "severities": dict(zip(map(str, severities), scores.mean(axis=0).tolist(), strict=True)),
        "lists": {
            name: float(scores[[types.index(kind) for kind in members if kind in types]].mean())
            for name, members in lists.items()
            if any(kind in types for kind in members)
        },
        "overlap": plain,
        "overlap_beyond_clean": beyond,
    }


def _overlaps(
    types: Sequence[str], severities: Sequence[int], scored: Mapping[str, list[Scores]], clean: list[Scores]
) -> tuple[float, float]:
    """Mean correlation between types of the errors of each query, and of what of them is beyond the clean error."""
    before = _errors(clean)
    table = np.stack(
        [np.mean([_errors(scored[cell_name(kind, level)]) for level in severities], axis=0) for kind in types]
    )
    return robustness.overlap(table)[1], robustness.overlap(table - before)[1]


def _errors(trials: Sequence[Scores]) -> NDArray[np.float64]:
    """1 - AP of every valid query of every trial."""
    return np.concatenate([1 - _valid(trial.per_query) for trial in trials])


def _valid(queries: QueryScores) -> NDArray[np.float64]:
    precision: NDArray[np.float64] = queries.average_precision[queries.valid]
    return precision


# Open set: the splits take turns with the galleries of the trials


def _searches(features: Float[Tensor, "M D"], frame: _Frame) -> list[open_set.Trials]:
    """The searches of each split into known and unknown persons."""
    trials = []
    for number, known in enumerate(frame.splits):
        persons, best, queries = _best(features, frame, number % frame.galleries)
        trials += open_set.split_searches(best, persons, queries, [known])
    return trials


def _best(
    features: Float[Tensor, "M D"], frame: _Frame, trial: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Enrolled persons, the likeness of each query to each, and the persons of the queries."""
    rows = frame.rows[trial]
    likeness = (features[rows.query] @ features[rows.gallery].T).numpy()
    persons, best = open_set.best_by_person(likeness, rows.labels.gallery_persons, frame.left_out[trial])
    return persons, best, rows.labels.query_persons


def _open_clean(features: Float[Tensor, "M D"], frame: _Frame) -> tuple[list[float], JsonObject]:
    """Thresholds of each split at the first of ``RATES``, and everything else; no threshold where it means nothing."""
    described = _open_set(features, frame)
    if "reason" in described or described[f"FNIR at FPIR {RATES[0]:g}"]["value"] is None:
        return [], described
    searches = _searches(features, frame)
    return [open_set.threshold_at(split.non_mated, RATES[0]) for split in searches], described


def _open_set(features: Float[Tensor, "M D"], frame: _Frame) -> JsonObject:
    """FNIR at FPIR, AUROC over the splits; TAR at FAR of the first gallery with everybody enrolled."""
    if not frame.splits:
        return {"reason": "too few persons to split into known and unknown ones"}
    try:
        searches = _searches(features, frame)
        persons, best, queries = _best(features, frame, 0)
        compared = open_set.comparisons(best, persons, queries)
    except UsageError as error:
        return {"reason": str(error)}
    result: JsonObject = {
        "splits": len(searches),
        "known_persons": min(split.enrolled for split in searches),
        "enrolled_persons": len(persons),
        "AUROC": _described(open_set.separation(searches)),
    }
    for rate in RATES:
        result[f"FNIR at FPIR {rate:g}"] = _described(open_set.miss_rate(searches, rate))
        missed = open_set.miss_rate([compared], rate, _CELL_REPLICATES)
        result[f"TAR at FAR {rate:g}"] = _described(_complement(missed))
    return result


def _drift(features: Float[Tensor, "M D"], frame: _Frame, thresholds: Sequence[float]) -> JsonObject:
    """Both error rates of a cell at the thresholds of clean images, and FNIR at thresholds of its own."""
    if not thresholds:
        return {}
    searches = _searches(features, frame)
    own = open_set.miss_rate(searches, RATES[0], _CELL_REPLICATES)
    return {
        "FPIR": _described(open_set.passed_at(searches, thresholds, _CELL_REPLICATES)),
        "FNIR": _described(open_set.missed_at(searches, thresholds, _CELL_REPLICATES)),
        "FNIR_own_threshold": _described(own),
    }


def _complement(missed: open_set.Measured) -> open_set.Measured:
    """TAR of FNMR."""
    if missed.value is None or missed.low is None or missed.high is None:
        return missed
    return dataclasses.replace(missed, value=1 - missed.value, low=1 - missed.high, high=1 - missed.low)


def _described(measured: open_set.Measured) -> JsonObject:
    return {**asdict(measured), "text": str(measured)}
