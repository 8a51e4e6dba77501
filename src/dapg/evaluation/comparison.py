"""Result files beside each other: differences between models, and what several seeds or partitions say together.

A result names its feature (``feature``), its protocol (``protocol``), the hash of its test list (``data.hash``) and the
file of its query scores (``per_query``, relative to the JSON file).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from dapg.core.errors import DataError, UsageError
from dapg.core.results import TestData, Trial
from dapg.core.run_folder import RESULT
from dapg.core.schema import read_json
from dapg.core.types import JsonObject
from dapg.scoring.bootstrap import (
    LEVEL,
    MEASURES,
    REPLICATES,
    compare,
    holm,
    intervals,
    read_query_scores,
    spread,
    trial_means,
)
from dapg.scoring.metrics import QueryScores


class _Row(TypedDict):
    name: str
    per_query: list[str]


class _Data(TestData):
    hash: str


class _Scored(TypedDict):
    feature: str
    protocol: str
    data: _Data
    trials: list[Trial]
    per_query: str
    precision: NotRequired[str | None]
    model_seed: NotRequired[int | None]
    comparable: NotRequired[bool | None]
    corrupted: NotRequired[list[_Row] | None]


@dataclass(frozen=True)
class _Result:
    """One result file with the query scores of its reported feature."""

    path: Path
    content: JsonObject
    trials: list[QueryScores]

    @property
    def test(self) -> tuple[str, str]:
        """Protocol and hash of the test list."""
        return self.content["protocol"], self.content["data"]["hash"]


def compare_results(
    first: Sequence[Path | str], *others: Sequence[Path | str], seed: int = 0, corrupted: str = ""
) -> list[JsonObject]:
    """Differences between the results of one method (seeds, partitions) and those of each other: other minus first.

    Args:
        first: result files, or folders that hold one; several are the seeds or partitions of one method.
        others: the same of each method to compare it with.
        seed: of the bootstrap.
        corrupted: name of the corrupted test set whose scores are compared, such as ``all``; empty: clean images.

    Returns:
        For each of ``others`` the differences of ``bootstrap.MEASURES``, each with ``p_holm``, which counts every
        comparison of that measure made here.

    Raises:
        UsageError: results of different protocols or test lists, of models trained in different precision, without
            the corrupted test set, or with one of other images.
        DataError: a file is missing or damaged.
    """
    start, *ends = ([_read(path) for path in side] for side in (first, *others))
    _refuse_mixed_precision([result for side in (start, *ends) for result in side])
    comparisons = []
    for end in ends:
        _refuse_different_tests(start, end)
        parts = [_partitions([_observed(result) for result in side]) for side in (start, end)]
        paired = (parts[0], parts[1]) if parts[0] and parts[1] else None
        before, after = ([_trials(result, corrupted) for result in side] for side in (start, end))
        if corrupted:
            _refuse_other_images([*start, *end], corrupted)
        differences = compare(before, after, seed=seed, partitions=paired)
        comparisons.append(
            {
                "first": [str(result.path) for result in start],
                "second": [str(result.path) for result in end],
                "features": [sorted({result.content["feature"] for result in side}) for side in (start, end)],
                "protocol": start[0].content["protocol"],
                "differences": {measure: asdict(difference) for measure, difference in differences.items()},
                "replicates": REPLICATES,
                "level": LEVEL,
            }
        )
    for measure in MEASURES:
        rows = [comparison["differences"][measure] for comparison in comparisons]
        for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = adjusted
    return comparisons


def _trials(result: _Result, corrupted: str) -> list[QueryScores]:
    """Query scores on clean images, or of every repeat of a corrupted test set."""
    if not corrupted:
        return result.trials
    if corrupted not in _corrupted(result):
        raise UsageError(f"{result.path} has no scores on the corrupted test set {corrupted!r}")
    return [scores for _, scores in _repeats(result, corrupted, _levels(result, 0))]


def combine_results(paths: Sequence[Path | str]) -> JsonObject:
    """Mean, interval and spread of several models of one method: seeds, RegDB's partitions, or both.

    The interval draws persons crossed with models, RegDB's partitions first and the models within each; the spread is
    told apart by its cause: ``seed``, ``partition``, ``gallery``, and on corrupted images ``repeat`` of the draw. A
    cause with one level has no spread to show.

    Args:
        paths: result files, or folders that hold one.

    Raises:
        UsageError: results of different protocols, modes, test lists, features or precisions, with corrupted test sets
            of one name and other images, or one model twice.
        DataError: a file is missing or damaged.
    """
    results = [_read(path) for path in paths]
    if len({result.path.resolve() for result in results}) < len(results):
        raise UsageError("a result occurs twice; give each model's result once")
    _refuse_mixed_precision(results)
    for what, name in (("protocol", "protocols"), ("feature", "features")):
        values = sorted({str(result.content[what]) for result in results})
        if len(values) > 1:
            raise UsageError(f"results of different {name} have no mean: {', '.join(values)}")
    modes = sorted({f"{result.content['data']['name']}, {result.content['data']['mode']}" for result in results})
    if len(modes) > 1:
        raise UsageError(f"results of different tests have no mean: {'; '.join(modes)}")
    levels = [_levels(result, number) for number, result in enumerate(results)]
    hashes: dict[tuple[object, ...], set[str]] = {}
    for result, own in zip(results, levels, strict=True):
        # Each of RegDB's partitions has a list of its own, and so have galleries that another seed has drawn.
        drawn = (level["partition"] for level in own), (trial.get("drawn", "") for trial in result.content["trials"])
        hashes.setdefault(tuple(itertools.chain(*drawn)), set()).add(result.content["data"]["hash"])
    if any(len(tested) > 1 for tested in hashes.values()):
        raise UsageError("the results were made on different test lists; only those of equal lists have a mean")
    if len({tuple(sorted(level.items())) for trials in levels for level in trials}) < sum(map(len, levels)):
        raise UsageError("a seed and partition occurs twice; give each model's result once")
    everywhere = [name for name in _corrupted(results[0]) if all(name in _corrupted(result) for result in results)]
    for name in everywhere:
        _refuse_other_images(results, name)
    return {
        "results": [str(result.path) for result in results],
        "protocol": results[0].content["protocol"],
        "data": modes[0],
        "feature": results[0].content["feature"],
        "models": len(results),
        "comparable": all(result.content.get("comparable", False) for result in results),
        "clean": _together([_observed(result, number) for number, result in enumerate(results)]),
        "corrupted": {
            name: _together([_repeats(result, name, own) for result, own in zip(results, levels, strict=True)])
            for name in everywhere
        },
    }


_Observed = list[tuple[dict[str, int | str], QueryScores]]
"""One model's trials with the level of each cause."""


def _together(models: Sequence[_Observed]) -> JsonObject:
    means = [(level, trial_means(trial)) for model in models for level, trial in model]
    measured = intervals([[trial for _, trial in model] for model in models], partitions=_partitions(models))
    return {
        "scores": {measure: interval.value for measure, interval in measured.items()},
        "intervals": {measure: asdict(interval) for measure, interval in measured.items()},
        "spread": {measure: spread([(level, mean[measure]) for level, mean in means]) for measure in MEASURES},
    }


def _partitions(models: Sequence[_Observed]) -> list[str] | None:
    """The partition of each model; None where a model was tested on several, or none differ."""
    names = [{str(level["partition"]) for level, _ in model} for model in models]
    if any(len(own) > 1 for own in names) or len(set.union(*names)) < 2:
        return None
    return [own.pop() for own in names]


def _levels(result: _Result, number: int) -> list[dict[str, int | str]]:
    """Seed, partition and gallery of each trial; a model that does not know its seed counts as a seed of its own."""
    seed = result.content.get("model_seed")
    levels: list[dict[str, int | str]] = []
    for trial in result.content["trials"]:
        partition = trial["name"] if trial["cause"] == "partition" else "the only one"
        gallery = trial["name"] if trial["cause"] == "gallery" else "the only one"
        levels.append({"seed": f"file {number}" if seed is None else seed, "partition": partition, "gallery": gallery})
    return levels


def _observed(result: _Result, number: int = 0) -> _Observed:
    return list(zip(_levels(result, number), result.trials, strict=True))


def _corrupted(result: _Result) -> dict[str, JsonObject]:
    return {str(row["name"]): row for row in result.content.get("corrupted") or []}


def _repeats(result: _Result, name: str, levels: Sequence[Mapping[str, int | str]]) -> _Observed:
    observed: _Observed = []
    for repeat, file in enumerate(_corrupted(result)[name]["per_query"]):
        trials = _one_per_trial(read_query_scores(result.path.parent / file), result.content, result.path.parent / file)
        observed += [({**level, "repeat": repeat}, trial) for level, trial in zip(levels, trials, strict=True)]
    return observed


def _refuse_different_tests(first: Sequence[_Result], second: Sequence[_Result]) -> None:
    """Several lists are fine where both sides have the same ones (RegDB: one a partition)."""
    tests = [{result.test for result in side} for side in (first, second)]
    if tests[0] == tests[1]:
        return
    protocols = sorted({protocol for side in tests for protocol, _ in side})
    if len(protocols) > 1:
        raise UsageError(f"different protocols cannot be compared: {', '.join(protocols)}")
    raise UsageError("the results were made on different test lists; only equal lists can be compared")


def _refuse_other_images(results: Sequence[_Result], name: str) -> None:
    """Corrupted test sets may have one name and differ in types, severities, size, draws, light or side."""
    if any(_drawn(result, name) != _drawn(results[0], name) for result in results):
        raise UsageError(f"the images of the corrupted test set {name!r} were not corrupted alike in all results")


def _drawn(result: _Result, name: str) -> JsonObject:
    row, policy = _corrupted(result)[name], result.content.get("corruption") or {}
    own = {key: row.get(key) for key in ("types", "severities", "list")}
    return own | {key: policy.get(key) for key in ("modality", "side", "weather")}


def _refuse_mixed_precision(results: Sequence[_Result]) -> None:
    """Of models whose precision is known; a description by hand or weights from elsewhere have none to mix."""
    precisions = {str(result.content["precision"]) for result in results if result.content.get("precision")}
    if len(precisions) > 1:
        raise UsageError(f"models trained in different precision cannot be compared: {', '.join(sorted(precisions))}")


def _read(path: Path | str) -> _Result:
    file = Path(path) / RESULT if Path(path).is_dir() else Path(path)
    content = read_json(file, _Scored, "give results with query scores, as dapg evaluate and dapg score write them")
    scores = read_query_scores(file.parent / content["per_query"])
    if content["feature"] not in scores:
        raise DataError(f"{file.parent / content['per_query']} has no scores of feature {content['feature']!r}")
    return _Result(file, content, _one_per_trial(scores, content, file.parent / content["per_query"]))


def _one_per_trial(scores: Mapping[str, list[QueryScores]], content: JsonObject, path: Path) -> list[QueryScores]:
    trials = scores.get(content["feature"], [])
    if len(trials) != len(content["trials"]):
        raise DataError(
            f"{path} has {len(trials)} trials of {content['feature']!r}, its result {len(content['trials'])}"
        )
    return trials
