"""Where an experiment's numbers come from: commits, commands, machines, hours, and how good its estimates were."""

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dapg.experiment.estimates import Estimate, Result, estimates, machine_words
from dapg.experiment.matrix import TABLES
from dapg.experiment.plan import Experiment, unchanged
from dapg.report.experiment_page import Table
from dapg.report.score_tables import Row

_SUMS = ("cells", "trainings", "training", "scoring")
NEAR = 0.3
"""An estimate within 30 % is a good one."""


def costs(experiment: Experiment, stored: Mapping[str, Result], pictures: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tables for the page's foot."""
    old = [cell.name for cell in experiment.cells() if cell.name in stored and not unchanged(cell, stored[cell.name])]
    stale = f" By other settings than those of now: {', '.join(old)}." if old else ""
    drawn = sum(each["seconds"] for each in pictures)
    others = f" Heat maps and ranked lists took {drawn / 3600:.2f} h besides." if pictures else ""
    return [
        Table(
            "Hours by machine and commit",
            spent(stored.values()),
            f"Made by `{command(experiment)}`. A training that several cells share counts once. Hours by the clock, "
            f"whatever else the machine was doing.{others}{stale}",
        ),
        Table(
            "Estimated and actual minutes",
            estimate_rows(stored),
            "What `--dry-run` would have said of each finished cell from the other cells on such machines, without the "
            "trainings that it shares with them, beside what it took.",
        ),
    ]


def command(experiment: Experiment, table: str = "", **options: Any) -> str:
    """What runs a table, or all tables of the experiment; where a data set lies is the reader's matter."""
    tables = experiment.tables
    name = table or ("all" if tables == TABLES else tables[0])
    data = ",".join(f"{source.name}=PATH" if source.root else source.name for source in experiment.sources)
    options = {
        "scale": experiment.scale,
        "data": data,
        "starts": ",".join(experiment.starts),
        "seeds": experiment.seeds,
        "repeats": experiment.repeats,
        **options,
    }
    return shlex.join(["dapg", "reproduce", name, *(f"--{key}={value}" for key, value in options.items())])


def origin(results: Sequence[Result]) -> str:
    """One line about some cells: how many, hours, machines, commits."""
    if not results:
        return "Nothing has run yet."
    rows = spent(results)
    parts = [f"{len(results)} cells", f"{rows[-1]['hours']} h"]
    machines = dict.fromkeys(row["machine"] for row in rows[:-1])
    commits = dict.fromkeys(row["commit"] for row in rows[:-1])
    return f"{', '.join(parts)} on {'; '.join(machines)}, commits {', '.join(commits)}."


def cell_rows(experiment: Experiment, stored: Mapping[str, Result]) -> list[Row]:
    """Each finished cell: seconds, machine, commit and the command that runs it alone."""
    return [
        {
            "cell": name,
            "seconds training": f"{sum(training['seconds'] for training in result['trainings']):.1f}",
            "seconds scoring": f"{result['scoring_seconds']:.1f}",
            "machine": machine_words(result["machine"]),
            "commit": _short(result["commit"]),
            "command": command(experiment, result["tables"][0], cell=name),
        }
        for name, result in sorted(stored.items())
    ]


def spent(results: Iterable[Result]) -> list[Row]:
    """A row for each machine and commit, and their sum last; hours of trainings count once."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    seen: set[str] = set()
    for result in results:
        key = machine_words(result["machine"]), _short(result["commit"])
        sums = found.setdefault(key, dict.fromkeys(_SUMS, 0.0))
        sums["cells"] += 1
        sums["scoring"] += result["scoring_seconds"]
        for training in result["trainings"]:
            if training["run"] not in seen:
                seen.add(training["run"])
                sums["trainings"] += 1
                sums["training"] += training["seconds"]
    rows = [_spent(machine, commit, sums) for (machine, commit), sums in found.items()]
    if not rows:
        return []
    total = {name: sum(sums[name] for sums in found.values()) for name in _SUMS}
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


def estimate_rows(stored: Mapping[str, Result]) -> list[Row]:
    """A row for each start and fine-tuning, and one for all."""
    groups: dict[str, list[Estimate]] = {}
    every = estimates(stored)
    for each in every:
        cell = stored[each.cell]["cell"]
        groups.setdefault(f"{cell['finetuning']}, from {cell['start']}", []).append(each)
    if len(groups) > 1:
        groups["all"] = every
    return [
        {
            "cells of": name,
            "number": str(len(part)),
            "estimated": f"{sum(each.estimated for each in part) / 60:.1f}",
            "actual": f"{sum(each.actual for each in part) / 60:.1f}",
            "median error": f"{100 * statistics.median(abs(each.error) for each in part):.0f} %",
            "within 30 %": f"{sum(abs(each.error) <= NEAR for each in part)}",
        }
        for name, part in groups.items()
    ]
