"""Scores on corrupted test pictures beside those on clean ones: seen and unseen corruptions, families, severities.

Each number comes from test sets of its own: for *seen* every picture gets one of the 15 types that stage 1 may draw,
for *blur* one of that family, for *severity 3* any type at that severity. A repeat gives every picture another type,
severity and noise; its spread is told apart from that of the trials (galleries). Clean pictures are encoded once.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.types import Record, Trial
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.data.source import list_hash
from dapg.evaluation.corrupted_sets import CLEAN, CorruptedDataset, CorruptionPolicy
from dapg.features.encoders import Encoder
from dapg.features.extract import CENTRED, encode_batches, trial_features, trial_rows, with_centred
from dapg.scoring.bootstrap import (
    MEASURES,
    intervals,
    read_query_scores,
    spread,
    trial_means,
    write_query_scores,
)
from dapg.scoring.labels import row_numbers
from dapg.scoring.metrics import QueryScores, Scores, score_trials

Detail = Literal["lists", "groups", "grid"]
Batches = dict[tuple[object, ...], list[Batch]]
Look = Callable[[CorruptedDataset, dict[str, Tensor], dict[Record, int]], None]
"""Takes a test set, the raw named features of its pictures, and the row of each record."""


@dataclass(frozen=True)
class CorruptionSettings(CorruptionPolicy):
    """Corrupted test pictures, scored beside the clean ones; ``--corruption cil`` is the published SYSU-C, RegDB-C."""

    types: tuple[str, ...] = ()
    """Corruptions, families (noise, blur, weather, digital, extra) or groups (all, seen, unseen); empty: clean only."""
    repeats: int = 10
    """Test sets with other types, severities and noise that are scored (CIL: 10)."""
    detail: Detail = "groups"
    """lists: all, seen, unseen; groups: each family and each severity, too; grid: each type at each severity, once."""

    def __post_init__(self) -> None:
        """Refuse settings that would score nothing.

        Raises:
            UsageError: what is wrong.
        """
        super().__post_init__()
        if self.repeats < 1:
            raise UsageError(f"corrupted pictures are scored at least once, not {self.repeats} times")
        if self.detail not in ("lists", "groups", "grid"):
            raise UsageError(f"detail is lists, groups or grid, not {self.detail!r}")


@dataclass(frozen=True)
class CorruptedSet:
    """Test pictures under one policy."""

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
    """What a model scored on the clean pictures, or on one kind of test set."""

    scores: dict[str, list[list[QueryScores]]]
    """Feature -> repeats -> trials."""
    test_set: CorruptedSet | None = None
    """None: clean pictures."""

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
    *,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    kept: Batches | None = None,
    show_progress: bool = False,
) -> dict[str, dict[str, SetScores]]:
    """Scores in each mode under ``clean``, ``all``, ``seen``, ``unseen``, ...: what an experiment needs of a model.

    Args:
        encoder: the model.
        dataset: the test data.
        modes: its test modes; a picture that several of them show is encoded once.
        settings: which corruptions, how often, and how much detail (``lists``: all, seen and unseen).
        seed: of the trials.
        batch_size: pictures encoded at once.
        workers: loader processes; the corrupting happens there.
        kept: as for ``score_corrupted``.
        show_progress: draw progress bars.

    Raises:
        DataError: a picture cannot be read, or is too small to be corrupted.

    Example:
        >>> import torch
        >>> from dapg.data.sets.synthetic import Synthetic
        >>> from dapg.features.encoders import HistogramEncoder
        >>> settings = CorruptionSettings(types=("contrast", "saturate"), repeats=1, detail="lists")
        >>> model = HistogramEncoder((32, 16), torch.device("cpu"))
        >>> found = clean_and_corrupted(model, Synthetic(), ["indoor"], settings)["indoor"]
        >>> list(found), sorted(found["unseen"].means("histogram"))
        (['clean', 'all', 'seen', 'unseen'], ['mAP', 'mINP', 'rank-1'])
    """
    trials = {mode: dataset.trials(mode, seed) for mode in modes}
    every = [trial for part in trials.values() for trial in part]
    clean = trial_features(encoder, dataset, every, batch_size, workers, show_progress)
    raw = {name: values for name, values in clean[0].items() if not name.endswith(CENTRED)}
    scores = {mode: {"clean": [_per_query(_score(raw, clean[1], part))]} for mode, part in trials.items()}
    wanted = sets_to_score(settings)
    for test_set, view in _views(wanted, dataset, show_progress):
        marked = {mode: [view.mark(trial) for trial in part] for mode, part in trials.items()}
        every = [trial for part in marked.values() for trial in part]
        features, rows = _features(encoder, view, every, clean, batch_size, workers, kept)
        for mode, part in marked.items():
            scores[mode].setdefault(test_set.name, []).append(_per_query(_score(features, rows, part)))
    sets = {test_set.name: test_set for test_set in wanted}
    return {
        mode: {name: SetScores(_by_feature(repeats), sets.get(name)) for name, repeats in found.items()}
        for mode, found in scores.items()
    }


def score_corrupted(
    encoder: Encoder,
    dataset: Dataset,
    trials: Sequence[Trial],
    settings: CorruptionSettings,
    clean: tuple[Mapping[str, Float[Tensor, "N D"]], Mapping[Record, int]],
    *,
    batch_size: int = 64,
    workers: int = 0,
    folder: Path | None = None,
    kept: Batches | None = None,
    look: Look | None = None,
    show_progress: bool = False,
) -> dict[str, SetScores]:
    """Scores of each test set of ``sets_to_score``, by its name.

    Args:
        encoder: the model.
        dataset: where the clean pictures are read.
        trials: trials of one mode.
        settings: which corruptions, and how often.
        clean: named features of the clean pictures and the row of each record, as ``trial_features`` gives them.
        batch_size: pictures encoded at once.
        workers: loader processes; the corrupting happens there.
        folder: scores of each test set are written here as they are made, and taken from here after a kill.
        kept: an (at first empty) dictionary that keeps the corrupted pictures in memory for the next encoder of the
            same input size; a picture of 128 x 64 takes 25 kB.
        look: is called with the first test set (all types, first repeat) when it is encoded, before its scores are
            stored in ``folder``.
        show_progress: draw a progress bar.

    Raises:
        DataError: a picture cannot be read, or is too small to be corrupted.
    """
    wanted = sets_to_score(settings)
    made: dict[str, list[dict[str, list[QueryScores]]]] = {}
    for test_set, view in _views(wanted, dataset, show_progress):
        path = folder / test_set.file(view.repeat) if folder is not None else None
        repeats = made.setdefault(test_set.name, [])
        if path is not None and path.exists():
            repeats.append(read_query_scores(path))
            continue
        marked = [view.mark(trial) for trial in trials]
        features, rows = _features(encoder, view, marked, clean, batch_size, workers, kept)
        scores = _score(features, rows, marked)
        if look is not None and test_set is wanted[0] and view.repeat == 0:
            look(view, features, rows)
        if path is not None:
            write_query_scores(path, scores)
        repeats.append(_per_query(scores))
    return {test_set.name: SetScores(_by_feature(made[test_set.name]), test_set) for test_set in wanted}


def _views(
    wanted: Sequence[CorruptedSet], dataset: Dataset, show_progress: bool
) -> Iterator[tuple[CorruptedSet, CorruptedDataset]]:
    """Every repeat of every test set, with a progress bar."""
    total = sum(test_set.repeats for test_set in wanted)
    with tqdm(total=total, desc="corrupted test sets", unit="set", disable=None if show_progress else True) as bar:
        for test_set in wanted:
            for repeat in range(test_set.repeats):
                yield test_set, CorruptedDataset(dataset, test_set.policy, repeat)
                bar.update()


def _features(
    encoder: Encoder,
    view: CorruptedDataset,
    marked: Sequence[Trial],
    clean: tuple[Mapping[str, Float[Tensor, "N D"]], Mapping[Record, int]],
    batch_size: int,
    workers: int,
    kept: Batches | None,
) -> tuple[dict[str, Float[Tensor, "M D"]], dict[Record, int]]:
    """Encode what is corrupted and take the rest from the clean features; raw features and the row of each record."""
    rows = trial_rows(marked)
    damaged = [record for record in rows if view.assignment(record) != CLEAN]
    clean_features, clean_rows = clean
    source = row_numbers(clean_rows, [view.original(record) for record in rows])
    features = {name: values[source] for name, values in clean_features.items() if not name.endswith(CENTRED)}
    if damaged:
        batches = _batches(view, damaged, encoder, batch_size, workers, kept)
        places = row_numbers(rows, damaged)
        for name, values in encode_batches(encoder, batches, len(damaged), show_progress=False).items():
            features[name][places] = values
    return features, rows


def _score(
    features: Mapping[str, Float[Tensor, "N D"]], rows: Mapping[Record, int], trials: Sequence[Trial]
) -> dict[str, list[Scores]]:
    """Scores of each trial, raw and centred per camera over the pictures of these trials alone."""
    own = trial_rows(trials)
    places = row_numbers(rows, list(own))
    mine = with_centred({name: values[places] for name, values in features.items()}, list(own))
    return {name: score_trials(values, own, trials) for name, values in mine.items()}


def _per_query(scores: Mapping[str, Sequence[Scores]]) -> dict[str, list[QueryScores]]:
    return {name: [trial.per_query for trial in made] for name, made in scores.items()}


def _by_feature(repeats: Sequence[Mapping[str, list[QueryScores]]]) -> dict[str, list[list[QueryScores]]]:
    return {name: [repeat[name] for repeat in repeats] for name in repeats[0]}


def _batches(
    view: CorruptedDataset,
    records: list[Record],
    encoder: Encoder,
    batch_size: int,
    workers: int,
    kept: Batches | None,
) -> Iterable[Batch]:
    """The corrupted pictures, from memory where they are kept."""
    height, width = encoder.input_size
    config = LoaderConfig(height=height, width=width, workers=workers)
    made = ordered_batches(view, records, batch_size, config, encoder.device.type == "cuda")
    if kept is None:
        return made
    key = (view.dataset.title, str(view.dataset.root), view.policy, view.repeat, list_hash(records), height, width)
    if key not in kept:
        kept[key] = list(made)
    return kept[key]


def summary(
    clean: SetScores, corrupted: Mapping[str, SetScores], feature: str, files: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Rows for result.json: each test set's scores, their spread by cause, and their share of the clean ones.

    Args:
        clean: scores on the clean pictures.
        corrupted: scores of each test set.
        feature: the reported feature, which gets intervals.
        files: the files of each test set's query scores.
    """
    rows = []
    for name, found in corrupted.items():
        assert found.test_set is not None
        scores = {}
        for each in found.scores:
            means, reference = found.means(each), clean.means(each)
            relative = {m: means[m] / reference[m] if reference[m] > 0 else None for m in MEASURES}
            scores[each] = {**means, "relative": relative, "spread": found.spread(each)}
        rows.append(
            {
                "name": name,
                "group": found.test_set.group,
                "types": list(found.test_set.policy.types),
                "severities": list(found.test_set.policy.severities),
                "repeats": found.test_set.repeats,
                "scores": scores,
                "intervals": {m: asdict(value) for m, value in intervals([found.pooled(feature)]).items()},
                "per_query": list(files[name]),
            }
        )
    return rows
