"""Run one finished cell again from nothing and compare: does this code on this machine still get what is stored?

On the same machine with the same torch the scores must come out equal to the last bit. Elsewhere sums are rounded
differently and a training takes another path, so that at worst the network is as far from the stored one as one of
another seed; the tolerance is taken from how far those lie apart.
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
from dapg.corruptions.library import DRAWS
from dapg.experiment.cell import run_cell
from dapg.experiment.matrix import Cell
from dapg.experiment.plan import Experiment, Say
from dapg.experiment.store import CellResult, Stored, read_cells

DEVIATIONS = {10: 4.0, 4: 7.0}
"""Degrees of freedom -> standard deviations of the difference of two seeds, sqrt(2) times that of one, that a score may
be off. Student's t is beyond them once in 400 draws; two dozen scores are looked at."""
FREEDOM = min(DEVIATIONS)
"""From fewer seeds the deviations would be a guess."""


@dataclass(frozen=True)
class Verdict:
    """What running a cell again showed."""

    cell: str
    equal: bool
    """Every compared score and the network's weights, to the last bit."""
    same_machine: bool
    """Device, cores, threads, platform and torch."""
    gap: float
    """Of the score that is farthest off, measured by its tolerance: mAP in points, again less stored."""
    tolerance: float
    """Of that score."""
    score: str
    """Its name: mode/condition."""
    left_out: str = ""
    """Why corrupted images were not compared; empty: they were."""

    @property
    def passed(self) -> bool:
        """Within the tolerance."""
        return abs(self.gap) <= self.tolerance

    def __str__(self) -> str:
        """One line."""
        without = f"; clean images only: {self.left_out}" if self.left_out else ""
        if self.equal:
            return f"{self.cell}: equal to the last bit{without}"
        where = "on the same machine and torch, where it should be" if self.same_machine else "on another machine"
        outcome = "within" if self.passed else "OUTSIDE"
        return (
            f"{self.cell}: {outcome} the tolerance, not equal bit by bit {where}; "
            f"farthest off: mAP of {self.score} by {self.gap:+.2f} points, tolerance {self.tolerance:.2f}{without}"
        )


class NothingToCheck(UsageError):
    """No stored cell can be compared with; no fault, while an experiment is young."""


def recheck(experiment: Experiment, word: str, say: Say) -> Verdict:
    """Draw a cheap finished cell by ``word``, run it in a folder of its own, and compare.

    Raises:
        NothingToCheck: no finished cell has the settings of now, or there are too few seeds to take a tolerance from.
    """
    stored = read_cells(experiment.folder)
    name = draw(experiment.cells(), stored, word)
    result = stored[name]
    allowed = tolerances(stored, result)
    took = f"{result.training_seconds / 60:.1f} min to train and {result.scoring_seconds / 60:.1f} min to score"
    say(f"{name}: took {took} when it was run")
    before = torch.get_num_threads()
    torch.set_num_threads(result.machine.threads)  # how sums are split decides over last bits
    try:
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = replace(experiment, runs=Path(folder), repeats=result.repeats)
            (cell,) = [cell for cell in elsewhere.cells() if cell.name == name]
            again = run_cell(elsewhere, cell, {})
    finally:
        torch.set_num_threads(before)
    return compare(name, result, again, allowed)


def draw(cells: Sequence[Cell], stored: Stored, word: str) -> str:
    """A random one of the finished cells with the settings of now: of the tenth (at least three) that train fastest.

    Scoring takes about the same time for all. Cells with the random draws of now are preferred.

    Raises:
        NothingToCheck: there is none, or there are too few seeds of its kind to say what it may be off.
    """
    finished = [cell for cell in cells if cell.name in stored]
    current = [cell for cell in finished if stored[cell.name].unchanged(cell)]
    if not current:
        raise NothingToCheck(f"of {len(finished)} finished cells none has the settings of now: nothing can be compared")
    current = [cell for cell in current if stored[cell.name].draws == DRAWS] or current
    usable = [cell for cell in current if _freedom(_seeds(stored, stored[cell.name])) >= FREEDOM]
    if not usable:
        raise NothingToCheck(f"a tolerance is taken from how far seeds lie apart: {FREEDOM} beyond the first of an arm")
    ranked = sorted(usable, key=lambda cell: (stored[cell.name].training_seconds, cell.name))
    cheap = ranked[: max(3, -(-len(ranked) // 10))]
    return cheap[derive_seed("recheck", word) % len(cheap)].name


def tolerances(stored: Stored, result: CellResult) -> dict[str, float]:
    """Score (mode/condition) -> points of mAP that it may be off.

    Seeds spread about their own arm's mean; the arms of the same data set, start and fine-tuning are pooled.
    """
    seeds = _seeds(stored, result)
    freedom = _freedom(seeds)
    deviations = DEVIATIONS[max((least for least in DEVIATIONS if least <= freedom), default=FREEDOM)]
    allowed = {}
    for name in result.scores:
        squares = 0.0
        for results in seeds:
            values = [100 * other.scores[name]["mAP"] for other in results]
            squares += sum((value - statistics.fmean(values)) ** 2 for value in values)
        allowed[name] = deviations * math.sqrt(2 * squares / freedom)
    return allowed


def _seeds(stored: Stored, result: CellResult) -> list[list[CellResult]]:
    """The seeds of each arm that has several, of the data set, start and fine-tuning of a cell."""
    arms: dict[str, list[CellResult]] = {}
    for other in stored.values():
        if (other.data, other.start, other.finetuning) == (result.data, result.start, result.finetuning):
            arms.setdefault(other.arm, []).append(other)
    return [results for results in arms.values() if len(results) > 1]


def _freedom(seeds: Sequence[Sequence[CellResult]]) -> int:
    return sum(len(results) - 1 for results in seeds)


def compare(name: str, stored: CellResult, again: CellResult, allowed: Mapping[str, float]) -> Verdict:
    """What differs between a stored cell and the same cell run again.

    By other random draws, the test images are corrupted differently: then only the scores of clean ones are compared.

    Raises:
        UsageError: they hold different scores, or are fine-tuned on different data.
    """
    data = [result.trainings[-1].data.get("hash") for result in (stored, again)]
    if data[0] != data[1]:
        raise UsageError(f"{name} was fine-tuned on data {data[0]}, this is {data[1]}: nothing can be compared")
    if set(stored.scores) != set(again.scores):
        odd = sorted(set(stored.scores) ^ set(again.scores))
        raise UsageError(f"{name} is scored in other modes or conditions than when it was stored: {', '.join(odd)}")
    left_out = _other_images(stored, again)
    scores = [score for score in stored.scores if not left_out or score.endswith("/clean")]
    gaps = {score: 100 * (again.scores[score]["mAP"] - stored.scores[score]["mAP"]) for score in scores}
    worst = max(gaps, key=lambda score: abs(gaps[score]) / max(allowed[score], 1e-12))
    return Verdict(
        cell=name,
        equal=all(stored.scores[score] == again.scores[score] for score in scores)
        and stored.trainings[-1].weights == again.trainings[-1].weights,
        same_machine=stored.machine == again.machine,
        gap=gaps[worst],
        tolerance=allowed[worst],
        score=worst,
        left_out=left_out,
    )


def _other_images(stored: CellResult, again: CellResult) -> str:
    """Why corrupted images are not the same; empty: they are."""
    if stored.draws != again.draws:
        return f"random draws version {stored.draws} there, {again.draws} now"
    return "" if stored.corruptions == again.corruptions else "they were corrupted by another list"
