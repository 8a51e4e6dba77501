"""Run one finished cell again from nothing and compare: does this code on this machine still get what is stored?

On the same machine with the same torch the scores must come out equal to the last bit. Elsewhere sums are rounded
otherwise and a training walks another way, so that at worst the network is as far from the stored one as one of another
seed; the tolerance is taken from how far those lie apart.
"""

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dapg.core.errors import UsageError
from dapg.core.seeds import derive_seed
from dapg.experiment.cell import run_cell
from dapg.experiment.estimates import Result, seconds
from dapg.experiment.matrix import Cell
from dapg.experiment.plan import Experiment, Say, unchanged
from dapg.experiment.tables import Stored, read_cells

DEVIATIONS = 4.0
"""Standard deviations of the difference of two seeds, sqrt(2) times that of one, that a score may be off: two dozen
scores are looked at."""
FREEDOM = 10
"""Least degrees of freedom of those deviations: from fewer seeds they would be a guess."""


@dataclass(frozen=True)
class Verdict:
    """What running a cell again showed."""

    cell: str
    equal: bool
    """Every score and the network's weights, to the last bit."""
    same_machine: bool
    """Device, cores, threads, platform and torch."""
    gap: float
    """Of the score that is farthest off, measured by its tolerance: mAP in points, again less stored."""
    tolerance: float
    """Of that score."""
    score: str
    """Its name: mode/condition."""

    @property
    def passed(self) -> bool:
        """Within the tolerance."""
        return abs(self.gap) <= self.tolerance

    def __str__(self) -> str:
        """One line."""
        if self.equal:
            return f"{self.cell}: equal to the last bit"
        where = "on the same machine and torch, where it should be" if self.same_machine else "on another machine"
        outcome = "within" if self.passed else "OUTSIDE"
        return (
            f"{self.cell}: {outcome} the tolerance, not equal bit by bit {where}; "
            f"farthest off: mAP of {self.score} by {self.gap:+.2f} points, tolerance {self.tolerance:.2f}"
        )


def recheck(experiment: Experiment, word: str, say: Say) -> Verdict:
    """Draw a cheap finished cell by ``word``, run it in a folder of its own, and compare.

    Raises:
        UsageError: no finished cell has the settings of now, or there are too few seeds to take a tolerance from.
    """
    stored = read_cells(experiment)
    name = draw(experiment.cells(), stored, word)
    allowed = tolerances(stored, stored[name])
    say(f"{name}: took {seconds(stored[name]) / 60:.1f} min when it was run")
    before = torch.get_num_threads()
    torch.set_num_threads(stored[name]["machine"]["threads"])  # how sums are split decides over last bits
    try:
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = replace(experiment, runs=Path(folder), repeats=stored[name]["repeats"])
            (cell,) = [cell for cell in elsewhere.cells() if cell.name == name]
            again = run_cell(elsewhere, cell, {})
    finally:
        torch.set_num_threads(before)
    return compare(name, stored[name], again, allowed)


def draw(cells: Sequence[Cell], stored: Stored, word: str) -> str:
    """A random one of the cheapest tenth of the finished cells whose settings are those of now.

    Raises:
        UsageError: there is none, or there are too few seeds of its kind to say what it may be off.
    """
    finished = [cell for cell in cells if cell.name in stored]
    current = [cell for cell in finished if unchanged(cell, stored[cell.name])]
    if not current:
        raise UsageError(f"of {len(finished)} finished cells none has the settings of now: nothing can be compared")
    usable = [cell for cell in current if _freedom(_seeds(stored, stored[cell.name])) >= FREEDOM]
    if not usable:
        raise UsageError(f"a tolerance is taken from how far seeds lie apart: {FREEDOM} beyond the first of an arm")
    ranked = sorted(usable, key=lambda cell: (seconds(stored[cell.name]), cell.name))
    cheap = ranked[: -(-len(ranked) // 10)]
    return cheap[derive_seed("recheck", word) % len(cheap)].name


def tolerances(stored: Stored, result: Result) -> dict[str, float]:
    """Score (mode/condition) -> points of mAP that it may be off.

    Seeds spread about their own arm's mean; the arms of the same data set, start and fine-tuning are pooled.
    """
    several = _seeds(stored, result)
    found = {}
    for name in result["scores"]:
        squares = 0.0
        for results in several:
            values = [100 * each["scores"][name]["mAP"] for each in results]
            squares += sum((value - statistics.fmean(values)) ** 2 for value in values)
        found[name] = DEVIATIONS * math.sqrt(2 * squares / _freedom(several))
    return found


def _seeds(stored: Stored, result: Result) -> list[list[Result]]:
    """The seeds of each arm that has several, of the data set, start and fine-tuning of a cell."""
    arms: dict[str, list[Result]] = {}
    for other in stored.values():
        if all(other["cell"][key] == result["cell"][key] for key in ("data", "start", "finetuning")):
            arms.setdefault(other["cell"]["arm"], []).append(other)
    return [results for results in arms.values() if len(results) > 1]


def _freedom(seeds: Sequence[Sequence[Result]]) -> int:
    return sum(len(results) - 1 for results in seeds)


def compare(name: str, stored: Result, again: Result, allowed: Mapping[str, float]) -> Verdict:
    """What differs between a stored cell and the same cell run again.

    Raises:
        UsageError: they hold different scores.
    """
    if set(stored["scores"]) != set(again["scores"]):
        odd = sorted(set(stored["scores"]) ^ set(again["scores"]))
        raise UsageError(f"{name} is scored in other modes or conditions than when it was stored: {', '.join(odd)}")
    gaps = {key: 100 * (again["scores"][key]["mAP"] - stored["scores"][key]["mAP"]) for key in stored["scores"]}
    worst = max(gaps, key=lambda key: abs(gaps[key]) / max(allowed[key], 1e-12))
    weights = [result["trainings"][-1]["weights"] for result in (stored, again)]
    return Verdict(
        cell=name,
        equal=stored["scores"] == again["scores"] and weights[0] == weights[1],
        same_machine=stored["machine"] == again["machine"],
        gap=gaps[worst],
        tolerance=allowed[worst],
        score=worst,
    )
