"""All of ``dapg reproduce --show``: tables as files, and one page with all that is stored; byte-equal each time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dapg.experiment import claims, paper
from dapg.experiment.heat_maps import read_pictures
from dapg.experiment.matrix import ARMS
from dapg.experiment.plan import Experiment
from dapg.experiment.provenance import costs
from dapg.experiment.tables import (
    TITLES,
    Line,
    Stored,
    by_mode,
    groups,
    lines,
    modes_of,
    note,
    read_cells,
    rows_of,
    write_tables,
)
from dapg.report.experiment_page import Curves, ExperimentPage, Table, write_experiment

PAGE = "report.html"
_WORDS = {"pretrain": "pre-training", "align": "alignment"}
_WITHOUT = (
    "Not stored. `dapg reproduce TABLE --pictures` makes them as long as the folder of the trainings (--runs) holds "
    "the networks of a finished cell of DAPG and of another arm."
)


def write_report(experiment: Experiment) -> str:
    """Write the tables' files and the page below the results; returns the tables as Markdown."""
    stored = read_cells(experiment)
    every = lines(experiment, stored)
    text = write_tables(experiment, stored, every)
    pictures = read_pictures(experiment)
    checked = claims.checks(experiment, stored)
    page = ExperimentPage(
        title=f"dapg reproduce, scale {experiment.scale}",
        notes=[
            f"{len(stored)} cells are done. Per cent, 95 % interval by bootstrap over test persons nested in seeds.",
            "What synthetic people show is no claim about SYSU-MM01 or RegDB.",
            f"Fig. 1 of the paper: {paper.FIGURE_1}.",
        ],
        points=_points(stored),
        tables=_tables(experiment, every, stored),
        checks=checked,
        curves=_curves(stored),
        costs=costs(experiment, stored, pictures),
        pictures=pictures,
        without_pictures=_WITHOUT,
    )
    write_experiment(experiment.folder / "tables" / PAGE, page)
    return f"{text}\n{claims.markdown(checked)}"


def _tables(experiment: Experiment, every: Sequence[Line], stored: Stored) -> list[Table]:
    """A table for each group of each of the experiment's tables, or one for each mode where one would be too wide."""
    found = []
    for table in experiment.tables:
        part = [line for line in every if line.table == table]
        for group, arms in groups(part).items():
            data, start, finetuning = group
            heading = f"{TITLES[table]} ({finetuning} on {data}, first weights {start})"
            about = note(experiment, table, group, arms, stored)
            parts = by_mode(arms)
            for each in parts:
                mode = next(iter(each.values()))[0].mode
                found.append(Table(f"{heading}, {mode}" if len(parts) > 1 else heading, rows_of(each), about))
                about = ""
    return found


def _points(stored: Stored) -> dict[str, list[tuple[str, float, float]]]:
    """Panel (fine-tuning, data, start, mode) -> arms with mAP on clean and on corrupted pictures."""
    means: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for result in stored.values():
        cell = result["cell"]
        for mode in modes_of(cell["data"]):
            panel = f"{cell['finetuning']}, {cell['data'].split('-')[0]} {mode}, from {cell['start']}"
            pair = tuple(100 * result["scores"][f"{mode}/{condition}"]["mAP"] for condition in ("clean", "all"))
            means.setdefault(panel, {}).setdefault(cell["arm"], []).append((pair[0], pair[1]))
    found: dict[str, list[tuple[str, float, float]]] = {}
    for panel, arms in sorted(means.items()):
        for arm, pairs in arms.items():
            clean, corrupted = np.mean(pairs, axis=0).tolist()
            found.setdefault(panel, []).append((ARMS[arm].title, clean, corrupted))
    return found


def _curves(stored: Stored) -> Curves:
    """A panel for each pre-training or alignment and start, and for each group of fine-tunings; each run once."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for result in stored.values():
        cell = result["cell"]
        for training in result["trainings"]:
            if not training.get("curve"):
                continue
            if training["stage"] == "finetune":
                panel = f"{cell['finetuning']} on {cell['data'].split('-')[0]}, from {cell['start']}"
            else:
                panel = f"{_WORDS[training['stage']]} {training['method']}, from {cell['start']}"
            arm = found.setdefault(panel, {}).setdefault(ARMS[cell["arm"]].title, {})
            arm[training["run"]] = training["curve"]
    return {panel: {arm: list(runs.values()) for arm, runs in arms.items()} for panel, arms in sorted(found.items())}
