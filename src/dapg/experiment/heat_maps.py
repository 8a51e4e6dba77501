"""What the page shows beside tables and needs networks for: heat maps by corruption and severity, ranked lists.

A step of its own (``dapg reproduce show TABLE --pictures``), as long as the networks are at hand. Each group of
cells (data set, start, fine-tuning) leaves one file beside the page, thumbnails inside, about the median seed of our
arm and of the strongest arm that is no part of ours. The page is made from these files; git keeps neither.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from dapg.core.device import resolve_device
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import write_json
from dapg.core.results import Picture
from dapg.core.rng import generator_from
from dapg.core.run_folder import RESULT, commit
from dapg.core.runtime import Runtime
from dapg.core.schema import read_json
from dapg.core.types import Trial
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.source import open_dataset
from dapg.evaluation.benchmark_scores import Test, grid_of, score_protocols
from dapg.evaluation.benchmark_sets import FeatureFolder, Maker, sets_of
from dapg.evaluation.corrupted_sets import CorruptedDataset, CorruptionPolicy
from dapg.evaluation.evaluate import untrained_trials
from dapg.evaluation.image_cache import ImageCache
from dapg.experiment.figures import OURS
from dapg.experiment.matrix import Cell, Group, arm_called
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment, Say
from dapg.experiment.store import CellResult, Stored, read_cells, refuse_mixed, this_machine
from dapg.features.build_encoder import build_encoder
from dapg.features.encoders import Encoder
from dapg.features.extract import extract
from dapg.features.ranked_lists import answers_of, describe_lists, thumbnail_texts
from dapg.scoring.labels import Labels
from dapg.scoring.ranking import rank


class _Severities(TypedDict):
    names: list[str]
    levels: list[int]
    clean: dict[str, float]
    mAP: dict[str, list[list[float]]]


class _Disagreement(TypedDict):
    query: Picture
    ours: list[Picture]
    other: list[Picture]


class _Disagreements(TypedDict):
    counts: dict[str, int]
    lists: list[_Disagreement]
    pictures: dict[str, str]


class _Drawn(TypedDict):
    """A group's file."""

    heading: str
    titles: dict[str, str]
    severities: _Severities
    disagreements: _Disagreements


NAMES, LEVELS = library.expand(("all",)), library.SEVERITIES
"""Corruptions and severities of the heat maps."""
LISTS, ANSWERS = 2, 10
"""Queries shown that one of the two alone gets right, and answers of each."""
_THUMBNAIL, _QUALITY = (96, 48), 75
_CACHE = 8 * 10**9
"""Bytes of corrupted images that the second network finds."""


def write_pictures(experiment: Experiment, say: Say) -> list[Path]:
    """Make what is not there yet; groups whose networks are not at hand are named and left out.

    Raises:
        UsageError: no group has cells of our arm and of another one, or they cannot be compared.
    """
    stored = read_cells(experiment.folder)
    refuse_mixed(stored)
    chosen = pairs(experiment, stored)
    if not chosen:
        raise UsageError("images need a finished cell of DAPG and one of another arm: same data, start, fine-tuning")
    written = []
    for group, cells in chosen.items():
        path = file(experiment, group)
        named = {who: _named(cell, stored) for who, cell in cells.items()}
        if path.exists() and read_json(path).get("cells") == named:
            say(f"is there: {path}")
            continue
        try:
            networks = {who: _network(experiment, stored[cell.name]) for who, cell in cells.items()}
            say(f"{', '.join(group)}: {cells['ours'].name} and {cells['other'].name}")
            write_json(path, {"cells": named, **_made(experiment, group, cells, networks)})
        except DapgError as error:
            say(f"left out: {', '.join(group)}: {error}")
            continue
        written.append(path)
    return written


def file(experiment: Experiment, group: Group) -> Path:
    """Where a group's images are."""
    data, start, finetuning = group
    return experiment.page.parent / f"{finetuning}-{data}-{start}.json"


def read_pictures(experiment: Experiment) -> list[dict[str, Any]]:
    """What is stored of the experiment's groups, in the order of its cells."""
    groups = dict.fromkeys(cell.group for cell in experiment.cells())
    return [read_json(file(experiment, group), _Drawn) for group in groups if file(experiment, group).exists()]


def pairs(experiment: Experiment, stored: Stored) -> dict[Group, dict[str, Cell]]:
    """Group -> ``ours`` and ``other``: the middle seed of our arm and of the strongest arm that is no part of it.

    Strength is mAP on corrupted images (all types) in the data set's first mode, the mean over seeds; of an even
    number of seeds the lower of the two in the middle is taken. Both cells are of the same partition.
    """
    by_group: dict[Group, dict[str, list[Cell]]] = {}
    for cell in experiment.cells():
        if cell.name in stored:
            by_group.setdefault(cell.group, {}).setdefault(cell.arm, []).append(cell)
    chosen = {}
    for group, arms in by_group.items():
        ours = next((arm for arm in OURS if arm in arms), "")
        others = [arm for arm in arms if not arm.startswith("dapg")]
        if not ours or not others:
            continue
        strength = {cell.name: _strength(stored[cell.name]) for cells in arms.values() for cell in cells}
        mine = _middle(arms[ours], strength)
        best = max(others, key=lambda arm: sum(strength[cell.name] for cell in arms[arm]) / len(arms[arm]))
        same = [cell for cell in arms[best] if cell.data == mine.data]
        if same:
            chosen[group] = {"ours": mine, "other": _middle(same, strength)}
    return chosen


def _strength(result: CellResult) -> float:
    return result.scores[f"{modes_of(result.data)[0]}/all"]["mAP"]


def _middle(cells: list[Cell], strength: Mapping[str, float]) -> Cell:
    return sorted(cells, key=lambda cell: (strength[cell.name], cell.name))[(len(cells) - 1) // 2]


def _named(cell: Cell, stored: Stored) -> dict[str, Any]:
    """What tells whether stored images are those of a cell's network."""
    return {"name": cell.name, "weights": stored[cell.name].trainings[-1].weights}


def _network(experiment: Experiment, result: CellResult) -> Path:
    """The folder of the network that a cell was scored with.

    Raises:
        UsageError: it is not there, or holds another network.
    """
    last = result.trainings[-1]
    folder = experiment.runs / last.stage / last.run
    if not (folder / RESULT).exists():
        raise UsageError(f"the network is not at hand: there is no {folder / RESULT}; give --runs")
    if read_json(folder / RESULT).get("weights") != last.weights:
        raise UsageError(f"{folder} holds another network than the one that was scored")
    return folder


def _made(
    experiment: Experiment, group: Group, cells: Mapping[str, Cell], networks: Mapping[str, Path]
) -> dict[str, Any]:
    """Everything that the page shows of two networks."""
    started = time.monotonic()
    device = resolve_device(experiment.device)
    last = cells["ours"].chain[-1]
    data = experiment.test_data(cells["ours"])
    dataset = open_dataset(data)
    mode = modes_of(cells["ours"].data)[0]
    trial = untrained_trials(str(networks["ours"]), data, dataset, dataset.trials(mode))[0]
    encoders = {who: build_encoder(str(path), last.backbone, (0, 0), 0, device) for who, path in networks.items()}
    return {
        "heading": f"{group[2]} on {group[0]}, first weights {group[1]}",
        "titles": {who: f"{arm_called(cell.arm).title}, seed {cell.seed}" for who, cell in cells.items()},
        "data": {"title": dataset.title, "licence": dataset.licence},
        "mode": mode,
        "severities": severities(encoders, dataset, trial, experiment.corrupted_at),
        "disagreements": disagreements(encoders, dataset, trial, experiment.corrupted_at),
        "commit": commit(),
        "machine": asdict(this_machine(device)),
        "seconds": round(time.monotonic() - started, 1),
    }


def severities(
    encoders: Mapping[str, Encoder], dataset: Dataset, trial: Trial, size: tuple[int, int]
) -> dict[str, Any]:
    """MAP in per cent of each encoder, clean and by corruption and severity, on one trial, and how a threshold drifts.

    Args:
        encoders: by name.
        dataset: the test data.
        trial: queries and gallery.
        size: height and width at which images are corrupted.

    Returns:
        ``names`` and ``levels``; ``clean``: encoder -> mAP; ``mAP``: encoder -> rows (names) of columns (levels);
        ``cells``: encoder -> the benchmark's cells, with FPIR at the threshold of clean images.
    """
    policy = CorruptionPolicy(NAMES, severities=LEVELS, height=size[0], width=size[1])
    test = Test(dataset, [trial], 1)
    measured: dict[str, Any] = {"names": list(NAMES), "levels": list(LEVELS), "clean": {}, "mAP": {}, "cells": {}}
    with tempfile.TemporaryDirectory() as place:
        cache = ImageCache(Path(place) / "pictures", _CACHE)  # the images are corrupted once for both
        for who, encoder in encoders.items():
            folder = FeatureFolder(Path(place) / who)
            maker = Maker(encoder, encoder.headline, dataset, test.records(), Runtime(progress=True), cache)
            maker.make(sets_of([policy], test.repeats), folder)
            scored = score_protocols(folder, test, {"visible": policy})
            table = grid_of(scored["protocols"]["visible"], "mAP")[2]
            measured["clean"][who] = round(100 * scored["clean"]["mAP"], 2)
            measured["mAP"][who] = (100 * table).round(2).tolist()
            measured["cells"][who] = scored["protocols"]["visible"]["cells"]
    return measured


def disagreements(
    encoders: Mapping[str, Encoder], dataset: Dataset, trial: Trial, size: tuple[int, int], seed: int = 0
) -> dict[str, Any]:
    """Queries whose first answer one of two encoders alone gets right, on corrupted images of any type.

    Args:
        encoders: ``ours`` and ``other``.
        dataset: the test data.
        trial: queries and gallery.
        size: height and width at which images are corrupted.
        seed: of the draw of the queries that are shown, ``LISTS`` for each of the two, or as many as there are.

    Returns:
        ``counts``: queries that both, neither, ours and other get right; ``lists``: query, answers of ours and other;
        ``pictures``: name -> JPEG file in base64.
    """
    view = CorruptedDataset(dataset, CorruptionPolicy(height=size[0], width=size[1]))
    marked = view.mark(trial)
    records = [*marked.query, *marked.gallery]
    rankings = {}
    for who, encoder in encoders.items():
        features = extract(encoder, view, records, Runtime())[encoder.headline]
        query, gallery = features[: len(marked.query)], features[len(marked.query) :]
        rankings[who] = rank(query, gallery, Labels.of(marked), top=ANSWERS)
    right = {who: ranking.matches[:, 0] for who, ranking in rankings.items()}
    cases = {
        "both": right["ours"] & right["other"],
        "neither": ~right["ours"] & ~right["other"],
        "ours": right["ours"] & ~right["other"],
        "other": right["other"] & ~right["ours"],
    }
    lists, shown = [], []
    for case in ("ours", "other"):
        queries = cases[case].nonzero()[:, 0]
        order = torch.randperm(len(queries), generator=generator_from("disagreements", case, seed))
        for number in queries[order[:LISTS]].tolist():
            query = marked.query[number]
            entry: dict[str, Any] = {}
            for who, ranking in rankings.items():
                answers = answers_of(ranking, number, marked.gallery, 3)
                (described,) = describe_lists([(query, answers)])
                entry |= {"query": described["query"], who: described["answers"]}
                shown += [query, *(record for record, *_ in answers)]
            lists.append(entry)
    return {
        "counts": {case: int(chosen.sum()) for case, chosen in cases.items()},
        "lists": lists,
        "pictures": thumbnail_texts(view, shown, _THUMBNAIL, _QUALITY),
    }
