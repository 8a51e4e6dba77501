"""Where an experiment's numbers come from: commits, commands, machines and hours."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dapg.experiment.matrix import TABLES
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CONDITIONS, CellResult, Stored
from dapg.report.experiment_page import Table
from dapg.report.score_tables import Row

_SUMS = ("cells", "trainings", "training", "scoring")


def costs(experiment: Experiment, stored: Stored, seconds_of_images: float) -> Table:
    """Hours by machine and commit, for the page's foot."""
    old = [cell.name for cell in experiment.cells() if cell.name in stored and not stored[cell.name].unchanged(cell)]
    stale = f" By other settings than those of now: {', '.join(old)}." if old else ""
    others = f" Heat maps and ranked lists took another {seconds_of_images / 3600:.2f} h." if seconds_of_images else ""
    return Table(
        "Hours by machine and commit",
        spent(stored.values()),
        f"Made by `{command(experiment)}`. A training that several cells share counts once. Hours by the clock, "
        f"whatever else the machine was doing.{others}{stale}",
    )


def command(experiment: Experiment, table: str = "") -> str:
    """What runs a table, or all tables of the experiment; where a data set lies is the reader's matter."""
    tables = experiment.tables
    name = table or ("all" if tables == TABLES else tables[0])
    options = {
        "scale": experiment.scale,
        "data": ",".join(f"{source.name}=PATH" if source.root else source.name for source in experiment.sources),
        "starts": ",".join(experiment.starts),
        "seeds": experiment.seeds,
        "repeats": experiment.repeats,
        **({"test": Path(experiment.test).name} if experiment.test else {}),
    }
    return shlex.join(["dapg", "reproduce", "run", name, *(f"--{key}={value}" for key, value in options.items())])


def origin(results: Sequence[CellResult]) -> str:
    """One line about some cells: how many, hours, machines, commits."""
    if not results:
        return "Nothing has run yet."
    rows = spent(results)
    machines = dict.fromkeys(row["machine"] for row in rows[:-1])
    commits = dict.fromkeys(row["commit"] for row in rows[:-1])
    return f"{len(results)} cells, {rows[-1]['hours']} h on {'; '.join(machines)}, commits {', '.join(commits)}."


def cell_rows(stored: Stored) -> list[Row]:
    """Each finished cell: its mAP in per cent by condition in the first mode, what it took, and where it comes from."""
    return [
        {
            "cell": name,
            **_scores(result),
            "minutes training": f"{result.training_seconds / 60:.1f}",
            "minutes scoring": f"{result.scoring_seconds / 60:.1f}",
            "machine": result.machine.kind,
            "commit": _short(result.commit),
            "draws": str(result.draws),
            "corrupted list": result.corruptions,
            "run": result.trainings[-1].run,
        }
        for name, result in sorted(stored.items())
    ]


def _scores(result: CellResult) -> Row:
    mode = modes_of(result.data)[0]
    scores = {condition: result.scores.get(f"{mode}/{condition}") for condition in CONDITIONS}
    return {f"mAP {name}": f"{100 * measured['mAP']:.2f}" if measured else "" for name, measured in scores.items()}


def spent(results: Iterable[CellResult]) -> list[Row]:
    """A row for each machine and commit, and their sum last; hours of trainings count once."""
    sums: dict[tuple[str, str], dict[str, float]] = {}
    seen: set[str] = set()
    for result in results:
        place = result.machine.kind, _short(result.commit)
        here = sums.setdefault(place, dict.fromkeys(_SUMS, 0.0))
        here["cells"] += 1
        here["scoring"] += result.scoring_seconds
        for training in result.trainings:
            if training.run not in seen:
                seen.add(training.run)
                here["trainings"] += 1
                here["training"] += training.seconds
    rows = [_spent(machine, commit, here) for (machine, commit), here in sums.items()]
    if not rows:
        return []
    total = {name: sum(here[name] for here in sums.values()) for name in _SUMS}
    return [*rows, _spent("all", "", total)]


def _spent(machine: str, commit: str, sums: Mapping[str, float]) -> Row:
    return {
        "machine": machine,
        "commit": commit,
        "cells": f"{sums['cells']:.0f}",
        "trainings": f"{sums['trainings']:.0f}",
        "hours training": f"{sums['training'] / 3600:.2f}",
        "hours scoring": f"{sums['scoring'] / 3600:.2f}",
        "hours": f"{(sums['training'] + sums['scoring']) / 3600:.2f}",
    }


def _short(commit: str | None) -> str:
    """The first digits, and whether the tree had changes."""
    if commit is None:
        return "unknown"
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
