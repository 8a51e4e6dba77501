"""What was decided before its cells ran: the primary comparison, kept in ``results/registration.yaml``.

Each cell notes the hash of the file that was in force when it ran, so that a comparison counts only cells that ran
after it was written down, and none after it was changed. Whatever is not registered is exploratory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.files import sha256
from dapg.core.settings import from_dict, read_yaml
from dapg.experiment.matrix import Cell, arm_called
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult, Stored, read_cells
from dapg.report.experiment_page import Table
from dapg.report.score_tables import Row, to_markdown
from dapg.scoring.bootstrap import PersonScores, compare, equivalence, holm

FILE = "registration.yaml"
_REPLICATES, _LEVEL, _POWER = 20_000, 1.959964, 0.841621
"""Bootstrap draws; quantiles of the normal distribution at 97.5 % and 80 %."""
EXPLORATORY = "Nothing is registered for these cells: every comparison here is exploratory."


@dataclass(frozen=True)
class Registration:
    """The primary comparison: mAP of ``arm`` minus that of ``baseline``, once for each fine-tuning."""

    written: str
    """Day."""
    arm: str
    baseline: str
    """The arm that was best on validation persons."""
    reason: str
    """Why these two, in a sentence: which search on which persons came before."""
    finetunings: tuple[str, ...]
    """One test each; their p-values are corrected together by Holm's rule."""
    start: str
    """First weights."""
    scale: str
    test: str
    """Name of the set whose test persons are scored (docs/reference/synthetic.md)."""
    tested: str
    """Its version: how the hash of its archive begins."""
    mode: str
    condition: str
    """clean, all, seen or unseen."""
    smallest_effect: float
    """The smallest gain that would matter, in points of mAP."""
    detectable: float
    """The gain found in 80 of 100 such experiments if it is true (``detectable_gain``), from validation persons."""
    margin: float
    """On clean images the arm may be lower by less than this, in points of mAP."""
    seeds: int
    repeats: int


def read(experiment: Experiment) -> Registration | None:
    """The registration that an experiment falls under; None where there is no file, or it is about other cells.

    Raises:
        UsageError: a file that is no registration.
    """
    path = experiment.results / FILE
    if not path.exists():
        return None
    stated = from_dict(Registration, read_yaml(path), f"{path}: ")
    for arm in (stated.arm, stated.baseline):
        arm_called(arm)
    if stated.smallest_effect <= 0 or stated.margin <= 0:
        raise UsageError(f"{path}: smallest_effect and margin are above 0")
    ours = stated.scale == experiment.scale and stated.test == Path(experiment.test).name
    return stated if ours else None


def registered(experiment: Experiment, cell: Cell) -> str:
    """Hash of the registration that a cell runs under; empty where it is not part of it.

    Raises:
        UsageError: the cell is registered with another number of repeats.
    """
    stated = read(experiment)
    if stated is None or not _is_part(stated, cell):
        return ""
    if experiment.repeats != stated.repeats:
        raise UsageError(f"{cell.name} is registered with --repeats {stated.repeats}, not {experiment.repeats}")
    return sha256(experiment.results / FILE)[:16]


def _is_part(stated: Registration, cell: Cell) -> bool:
    return (
        cell.arm in (stated.arm, stated.baseline)
        and cell.finetuning in stated.finetunings
        and (cell.data, cell.start) == ("synthetic", stated.start)
        and cell.seed < stated.seeds
    )


def statement(experiment: Experiment) -> str:
    """What is registered, in words."""
    stated = read(experiment)
    if stated is None:
        return EXPLORATORY
    return (
        f"Registered on {stated.written} ({FILE} {sha256(experiment.results / FILE)[:16]}), before its cells ran: the "
        f"mAP after “{arm_called(stated.arm).title}” minus that after “{arm_called(stated.baseline).title}”, mode "
        f"{stated.mode}, condition {stated.condition}, under {' and '.join(stated.finetunings)} from {stated.start}, "
        f"with {stated.seeds} seeds on {stated.test}. It holds where the difference is above 0 after Holm's "
        f"correction. The smallest difference that would matter is {stated.smallest_effect:.1f} points; 80 of 100 such "
        f"experiments would find one of {stated.detectable:.1f}. On clean images the arm may be at most "
        f"{stated.margin:.1f} lower. {stated.reason} Everything else is exploratory."
    )


def summary(results: Path) -> str:
    """What is registered below a folder of results, and its verdicts so far, in words."""
    path = results / FILE
    if not path.exists():
        return "No comparison is registered here, so nothing is known about which start is better."
    stated = from_dict(Registration, read_yaml(path), f"{path}: ")
    experiment = Experiment(scale=stated.scale, test=stated.test, results=results)
    table = report(experiment, read_cells(experiment.folder, with_persons=True))
    verdicts = [
        f"under {row['fine-tuning']} {', '.join(filter(None, (row['difference'], row['verdict'])))}"
        for row in table.rows
    ]
    arm, baseline = arm_called(stated.arm).title, arm_called(stated.baseline).title
    return (
        f"The registered comparison ({stated.seeds} seeds, other persons, {stated.test}), mAP in condition "
        f"{stated.condition} after “{arm}” minus that after “{baseline}”: {'; '.join(verdicts)}. The smallest "
        f"difference that would matter is {stated.smallest_effect:.1f} points."
    )


def report(experiment: Experiment, stored: Stored) -> Table:
    """The registered comparison with its verdicts; no rows where nothing is registered."""
    stated = read(experiment)
    if stated is None:
        return Table("Registered comparison", [], EXPLORATORY)
    digest = sha256(experiment.results / FILE)[:16]
    sides = {
        tuner: [_finished(stated, stored, digest, tuner, arm) for arm in (stated.baseline, stated.arm)]
        for tuner in stated.finetunings
    }
    whole = {tuner: pair for tuner, pair in sides.items() if all(len(side) == stated.seeds for side in pair)}
    rows = [_unfinished(tuner, pair, stated) for tuner, pair in sides.items() if tuner not in whole]
    return Table("Registered comparison", [*_judged(stated, whole), *rows], statement(experiment))


def _finished(stated: Registration, stored: Stored, digest: str, tuner: str, arm: str) -> list[CellResult]:
    """Results of a side by seed that ran under this registration on the registered test persons."""
    chosen = [
        result
        for result in stored.values()
        if (result.arm, result.finetuning) == (arm, tuner)
        and _is_part(stated, result.cell)
        and (result.registration, result.tested) == (digest, stated.tested)
    ]
    return sorted(chosen, key=lambda result: result.seed)


def _unfinished(tuner: str, pair: Sequence[Sequence[CellResult]], stated: Registration) -> Row:
    done = " and ".join(str(len(side)) for side in pair)
    return _row(stated, tuner, verdict=f"not finished: {done} of {stated.seeds} seeds of the two arms")


def _row(stated: Registration, tuner: str, *figures: str, verdict: str, clean: Sequence[str] = ("", "")) -> Row:
    difference, p = figures or ("", "")
    columns = ("fine-tuning", "difference", "p (Holm)", "verdict", "clean", f"not lower by {stated.margin:g}")
    return dict(zip(columns, (tuner, difference, p, verdict, *clean), strict=True))


def _judged(stated: Registration, whole: dict[str, list[list[CellResult]]]) -> list[Row]:
    """A row for each fine-tuning whose cells are all there; the correction waits for no other."""
    name, clean = f"{stated.mode}/{stated.condition}", f"{stated.mode}/clean"
    gaps = {tuner: compare(*_persons(pair, name), _REPLICATES)["mAP"] for tuner, pair in whole.items()}
    missing = [1.0] * (len(stated.finetunings) - len(gaps))
    corrected = holm([*(gap.p for gap in gaps.values()), *missing])
    rows: list[Row] = []
    for (tuner, gap), p in zip(gaps.items(), corrected, strict=False):
        low, high = 100 * gap.low, 100 * gap.high
        cost = equivalence(*_persons(whole[tuner], clean), stated.margin / 100, _REPLICATES)["mAP"]
        difference = f"{100 * gap.value:+.2f} ({low:+.2f} to {high:+.2f})"
        change = f"{100 * cost.value:+.2f} (90 %: {100 * cost.low:+.2f} to {100 * cost.high:+.2f})"
        judged = verdict(p, low, high, stated.smallest_effect)
        on_clean = change, "holds" if cost.not_lower else "not shown"
        rows.append(_row(stated, tuner, difference, f"{p:.4f}", verdict=judged, clean=on_clean))
    return rows


def _persons(pair: Sequence[Sequence[CellResult]], name: str) -> tuple[list[PersonScores], list[PersonScores]]:
    before, after = ([result.persons[name] for result in side] for side in pair)
    return before, after


def verdict(p: float, low: float, high: float, smallest: float) -> str:
    """*Holds here*, *does not* or *cannot be told*, from the corrected p-value and the 95 % interval in points."""
    if p < 0.05 and low > 0:
        return "holds here"
    if high < smallest:
        return "does not"
    return "cannot be told"


def detectable_gain(person_deviation: float, seed_deviation: float, persons: int, seeds: int) -> float:
    """The difference that a two-sided test at 5 % finds with 80 % power.

    Its standard error is sqrt(p² / persons + 2 s² / seeds): persons are paired, the seeds of the two sides are not.

    Args:
        person_deviation: p, standard deviation over persons of the difference of their mean scores.
        seed_deviation: s, standard deviation of one arm's score over seeds.
        persons: test persons.
        seeds: of each arm.

    Example:
        >>> round(detectable_gain(10.0, 1.0, 1000, 10), 2)
        1.53
    """
    return (_LEVEL + _POWER) * math.sqrt(person_deviation**2 / persons + 2 * seed_deviation**2 / seeds)


def markdown(table: Table) -> str:
    """The same as text."""
    heading = f"## {table.heading}\n\n" if table.rows else ""
    return f"{heading}{table.note}\n" + (f"\n{to_markdown(table.rows)}" if table.rows else "")
