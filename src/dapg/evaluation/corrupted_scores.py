"""Scores on corrupted test images beside those on clean ones: seen and unseen corruptions, families, severities.

Each number comes from test sets of its own: for *seen* every image gets one of the 15 types that stage 1 may draw,
for *blur* one of that family, for *severity 3* any type at that severity. A repeat gives every image another type,
severity and noise; its spread is told apart from that of the trials (galleries). Clean images are encoded once.
"""

import itertools
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from dapg.core.batch import Batch
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count
from dapg.core.runtime import Runtime
from dapg.core.types import JsonObject, Record, Trial
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.data.source import list_hash
from dapg.data.verify import unseen_trials
from dapg.evaluation.corrupted_sets import CLEAN, CorruptedDataset, CorruptionPolicy
from dapg.features.encoders import Encoder
from dapg.features.extract import encode_batches, trial_features, trial_records
from dapg.features.table import FeatureTable
from dapg.scoring.bootstrap import (
    MEASURES,
    intervals,
    read_query_scores,
    spread,
    trial_means,
    write_query_scores,
)
from dapg.scoring.metrics import QueryScores, Scores, score_trials

Detail = Literal["mixture", "lists", "groups", "grid"]


@dataclass(frozen=True)
class CorruptionSettings(CorruptionPolicy):
    """Corrupted test images, scored beside the clean ones; ``--corruption cil`` is the published SYSU-C, RegDB-C."""

    types: tuple[str, ...] = ()
    """Corruptions, families (noise, blur, weather, digital, extra) or groups (all, seen, unseen); empty: clean only."""
    repeats: Count = 10
    """Test sets with other types, severities and noise that are scored (CIL: 10)."""
    detail: Detail = "groups"
    """mixture: all types together; lists: seen and unseen apart too; groups: each family and each severity, too; grid:
    each type at each severity, once."""


@dataclass(frozen=True)
class CorruptedSet:
    """Test images under one policy."""

    name: str
    """all, seen, unseen, a family, ``severity 3`` or ``fog 3``."""
    group: Literal["all", "list", "family", "severity", "cell"]
    policy: CorruptionPolicy
    repeats: int

    def file(self, repeat: int) -> str:
        """Name of the file that keeps the query scores of a repeat."""
        return f"{self.name.replace(' ', '-')}-{repeat}.npz"


@dataclass(frozen=True)
class SetScores:
    """What a model scored on the clean images, or on one kind of test set."""

    scores: dict[str, list[list[QueryScores]]]
    """Feature -> repeats -> trials."""
    test_set: CorruptedSet | None = None
    """None: clean images."""

    def means(self, feature: str) -> dict[str, float]:
        """rank-1, mAP and mINP as fractions: the mean over repeats and trials."""
        trials = [trial_means(trial) for repeat in self.scores[feature] for trial in repeat]
        return {measure: statistics.fmean(trial[measure] for trial in trials) for measure in MEASURES}

    def spread(self, feature: str) -> dict[str, dict[str, dict[str, int | float]]]:
        """Measure -> cause (repeat, trial) -> its levels and the standard deviation of their means."""
        levels = [
            ({"repeat": repeat, "trial": trial}, trial_means(scores))
            for repeat, trials in enumerate(self.scores[feature])
            for trial, scores in enumerate(trials)
        ]
        return {measure: spread([(level, means[measure]) for level, means in levels]) for measure in MEASURES}

    def files(self) -> list[str]:
        """Names of the files that keep the query scores, one a repeat."""
        return [] if self.test_set is None else [self.test_set.file(n) for n in range(self.test_set.repeats)]

    def pooled(self, feature: str) -> list[QueryScores]:
        """All repeats and trials in a row, as ``bootstrap.intervals`` and ``bootstrap.compare`` take one model's."""
        return [trial for repeat in self.scores[feature] for trial in repeat]


def sets_to_score(settings: CorruptionSettings) -> list[CorruptedSet]:
    """What is scored, the mixture of all types first.

    Seen and unseen are told apart where a policy has both; so are families and severities.
    """
    policy = CorruptionPolicy(**{field.name: getattr(settings, field.name) for field in fields(CorruptionPolicy)})
    names = tuple(name for name in library.expand(settings.types) if name != library.NONE)
    sets = [CorruptedSet("all", "all", policy, settings.repeats)]
    if settings.detail == "mixture":
        return sets

    def add(name: str, group: Literal["list", "family"], chosen: Sequence[str]) -> None:
        if chosen and len(chosen) < len(names):
            sets.append(CorruptedSet(name, group, replace(policy, types=tuple(chosen)), settings.repeats))

    add("seen", "list", [name for name in names if name in library.SEEN])
    add("unseen", "list", [name for name in names if name not in library.SEEN])
    if settings.detail == "lists":
        return sets
    for family, members in library.families().items():
        add(family, "family", [name for name in names if name in members])
    if len(settings.severities) > 1:
        for level in settings.severities:
            at_level = replace(policy, severities=(level,))
            sets.append(CorruptedSet(f"severity {level}", "severity", at_level, settings.repeats))
    if settings.detail == "grid":
        for name in names:
            for level in settings.severities:
                cell = replace(policy, types=(name,), severities=(level,))
                sets.append(CorruptedSet(f"{name} {level}", "cell", cell, 1))
    return sets


def clean_and_corrupted(
    encoder: Encoder,
    dataset: Dataset,
    modes: Sequence[str],
    settings: CorruptionSettings,
    runtime: Runtime = Runtime(),
    seed: int = 0,
    training_persons: Collection[int] = (),
) -> dict[str, dict[str, SetScores]]:
    """Scores in each mode under ``clean``, ``all``, ``seen``, ``unseen``, ...: what an experiment needs of a model.

    Args:
        encoder: the model.
        dataset: the test data.
        modes: its test modes; an image that several of them show is encoded once.
        settings: which corruptions, how often, and how much detail (``lists``: all, seen and unseen).
        runtime: batch size, loader processes, progress, and a cache of corrupted images.
        seed: of the trials.
        training_persons: trials that test any of them are left out: all of RegDB's partitions but the model's own.

    Raises:
        DataError: an image cannot be read, or is too small to be corrupted.
        UsageError: every trial of a mode tests training persons.
    """
    trials = {mode: unseen_trials(dataset.trials(mode, seed), training_persons) for mode in modes}
    clean = trial_features(encoder, dataset, list(itertools.chain(*trials.values())), runtime)
    repeats = {mode: {"clean": [_per_query(_score(clean, part))]} for mode, part in trials.items()}
    corrupted_sets = sets_to_score(settings)
    for corrupted_set, view in _views(corrupted_sets, dataset, runtime.progress):
        marked = {mode: [view.mark(trial) for trial in part] for mode, part in trials.items()}
        table = _encode(encoder, view, trial_records(list(itertools.chain(*marked.values()))), clean, runtime)
        for mode, part in marked.items():
            repeats[mode].setdefault(corrupted_set.name, []).append(_per_query(_score(table, part)))
    by_name = {corrupted_set.name: corrupted_set for corrupted_set in corrupted_sets}
    return {
        mode: {name: SetScores(_by_feature(scores), by_name.get(name)) for name, scores in conditions.items()}
        for mode, conditions in repeats.items()
    }


@dataclass(frozen=True)
class Store:
    """Where the scores of each test set are written as soon as there are any, and taken from after a kill."""

    folder: Path
    look: Callable[[CorruptedDataset, FeatureTable], None]
    """Called with the first test set (all types, first repeat) and its features before its scores are stored."""


def score_corrupted(
    encoder: Encoder,
    dataset: Dataset,
    trials: Sequence[Trial],
    settings: CorruptionSettings,
    clean: FeatureTable,
    runtime: Runtime = Runtime(),
    store: Store | None = None,
) -> dict[str, SetScores]:
    """Scores of each test set of ``sets_to_score``, by its name.

    Args:
        encoder: the model.
        dataset: where the clean images are read.
        trials: trials of one mode.
        settings: which corruptions, and how often.
        clean: features of the clean images of the trials.
        runtime: batch size, loader processes, progress, and a cache of corrupted images.
        store: for going on after a kill.

    Raises:
        DataError: an image cannot be read, or is too small to be corrupted.
    """
    corrupted_sets = sets_to_score(settings)
    repeats: dict[str, list[dict[str, list[QueryScores]]]] = {
        corrupted_set.name: [] for corrupted_set in corrupted_sets
    }
    for corrupted_set, view in _views(corrupted_sets, dataset, runtime.progress):
        path = None if store is None else store.folder / corrupted_set.file(view.repeat)
        if path is not None and path.exists():
            repeats[corrupted_set.name].append(read_query_scores(path))
            continue
        marked = [view.mark(trial) for trial in trials]
        table = _encode(encoder, view, trial_records(marked), clean, runtime)
        scores = _score(table, marked)
        if store is not None and path is not None:
            if corrupted_set is corrupted_sets[0] and view.repeat == 0:
                store.look(view, table)
            write_query_scores(path, scores)
        repeats[corrupted_set.name].append(_per_query(scores))
    return {
        corrupted_set.name: SetScores(_by_feature(repeats[corrupted_set.name]), corrupted_set)
        for corrupted_set in corrupted_sets
    }


def corrupted_means(
    settings: CorruptionSettings, runtime: Runtime
) -> Callable[[Encoder, Dataset, Sequence[Trial], FeatureTable], dict[str, float]]:
    """What a training scores beside clean images: ``corrupted all mAP`` and so on, of the headline feature.

    The corrupted images stay in memory from one call to the next.
    """
    runtime = replace(runtime, cache={})

    def means(encoder: Encoder, dataset: Dataset, trials: Sequence[Trial], clean: FeatureTable) -> dict[str, float]:
        return {
            f"corrupted {name} {measure}": value
            for name, scores in score_corrupted(encoder, dataset, trials, settings, clean, runtime).items()
            for measure, value in scores.means(encoder.headline).items()
        }

    return means


def _views(
    corrupted_sets: Sequence[CorruptedSet], dataset: Dataset, progress: bool
) -> Iterator[tuple[CorruptedSet, CorruptedDataset]]:
    """Every repeat of every test set, with a progress bar."""
    total = sum(corrupted_set.repeats for corrupted_set in corrupted_sets)
    with progress_bar("corrupted test sets", "set", total, shown=progress) as bar:
        for corrupted_set in corrupted_sets:
            for repeat in range(corrupted_set.repeats):
                yield corrupted_set, CorruptedDataset(dataset, corrupted_set.policy, repeat)
                bar.update()


def _encode(
    encoder: Encoder, view: CorruptedDataset, records: Sequence[Record], clean: FeatureTable, runtime: Runtime
) -> FeatureTable:
    """Encode what is corrupted and take the rest from the clean features; centred over all of ``records``."""
    originals = clean.of([view.original(record) for record in records])
    table = FeatureTable(originals.features, records)
    corrupted = [record for record in records if view.assignment(record) != CLEAN]
    if corrupted:
        rows = table.rows(corrupted)
        batches = _batches(view, corrupted, encoder, runtime)
        for name, values in encode_batches(encoder, batches, corrupted).features.items():
            table[name][rows] = values
    return table.with_centred()


def _score(table: FeatureTable, trials: Sequence[Trial]) -> dict[str, list[Scores]]:
    """Scores of each trial, raw and centred per camera over the images of these trials alone."""
    own = table.of(trial_records(trials)).with_centred()
    rows = own.trials(trials)
    return {name: score_trials(values, rows) for name, values in own.features.items()}


def _per_query(scores: Mapping[str, Sequence[Scores]]) -> dict[str, list[QueryScores]]:
    return {feature: [trial.per_query for trial in trials] for feature, trials in scores.items()}


def _by_feature(repeats: Sequence[Mapping[str, list[QueryScores]]]) -> dict[str, list[list[QueryScores]]]:
    return {feature: [repeat[feature] for repeat in repeats] for feature in repeats[0]}


def _batches(view: CorruptedDataset, records: list[Record], encoder: Encoder, runtime: Runtime) -> Iterable[Batch]:
    """The corrupted images, from memory where there is a cache."""
    height, width = encoder.input_size
    config = LoaderConfig(height=height, width=width, workers=runtime.workers)
    batches = ordered_batches(view, records, runtime.batch_size, config, encoder.device.type == "cuda")
    if runtime.cache is None:
        return batches
    key = (view.dataset.title, str(view.dataset.root), view.policy, view.repeat, list_hash(records), height, width)
    if key not in runtime.cache:
        runtime.cache[key] = list(batches)
    return runtime.cache[key]


def summary(
    clean: SetScores, corrupted: Mapping[str, SetScores], feature: str, files: Mapping[str, Sequence[str]]
) -> list[JsonObject]:
    """Rows for result.json: each test set's scores, their spread by cause, and their share of the clean ones.

    Args:
        clean: scores on the clean images.
        corrupted: scores of each test set.
        feature: the reported feature, which gets intervals.
        files: the files of each test set's query scores.
    """
    rows = []
    for name, set_scores in corrupted.items():
        assert set_scores.test_set is not None
        scores = {}
        for scored in set_scores.scores:
            means, reference = set_scores.means(scored), clean.means(scored)
            relative = {m: means[m] / reference[m] if reference[m] > 0 else None for m in MEASURES}
            scores[scored] = {**means, "relative": relative, "spread": set_scores.spread(scored)}
        rows.append(
            {
                "name": name,
                "group": set_scores.test_set.group,
                "types": list(set_scores.test_set.policy.types),
                "severities": list(set_scores.test_set.policy.severities),
                "repeats": set_scores.test_set.repeats,
                "list": set_scores.test_set.policy.provenance(),
                "scores": scores,
                "intervals": {m: asdict(value) for m, value in intervals([set_scores.pooled(feature)]).items()},
                "per_query": list(files[name]),
            }
        )
    return rows
