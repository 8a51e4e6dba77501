"""Every figure of the paper's tables from stored cells: ours beside the printed value, with intervals and differences.

Intervals are 95 % by bootstrap over test persons crossed with seeds. Comparisons are paired over persons; the
p-values of one table are corrected together by Holm's rule.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dapg.experiment import paper
from dapg.experiment.matrix import Cell, Group, arm_called
from dapg.experiment.plan import Experiment
from dapg.experiment.store import MIXTURE_CONDITIONS, CellResult, Stored
from dapg.scoring.bootstrap import REPLICATES, Difference, Interval, compare, holm, intervals

OURS = ("dapg", "dapg-1-mixed-outside", "dapg-1")
"""Arms that comparisons are made for, the whole method first: the one with the most cells is taken."""
PAPERS = ("sysu", "regdb")
"""Data sets of the paper, on which ours minus the printed value means something."""
APART = ("stage1", "stage2")
"""Tables that take a stage apart and also search within the visible cameras."""
_CONDITIONS = {
    "primary": ("clean", "all"),
    "table1": ("clean",),
    "table2": ("all",),
    "table3": ("all",),
    "fig1": ("clean", "all"),
    "beyond": ("clean", "seen", "unseen"),
    "finetuners": ("clean", "seen", "unseen"),
    "stage1": ("clean", "seen", "unseen"),
    "stage2": ("clean", "all"),
    "images": ("clean", "all"),
    "labels": ("clean", "all"),
}
WITHIN = ("visible-100 centred", "frozen visible-100 centred")
"""Modes of the embedded people that only ``APART`` show: within the visible cameras, centred per camera, by the
fine-tuned network and by the one that fine-tuning started from; on ``store.MIXTURE_CONDITIONS`` alone."""
_RESAMPLES = 20_000
"""Bootstrap replicates of a comparison: enough that Holm's correction of a hundred can still call one significant."""
Column = tuple[str, str, str]
"""Mode, condition, measure."""


@dataclass(frozen=True)
class Line:
    """One figure of one table. Scores in per cent."""

    table: str
    data: str
    start: str
    finetuning: str
    arm: str
    title: str
    mode: str
    condition: str
    measure: str
    seeds: int
    value: float | None
    """None where no cell has run; ``state`` says why."""
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    """The printed value; on other data than the paper's it is shown for orientation only."""
    difference: float | None = None
    """Ours minus the printed value, in points; on the paper's data alone."""
    state: str = ""
    """not run, or what is missing; empty where there is a value."""

    @property
    def column(self) -> Column:
        """Its place in its row."""
        return self.mode, self.condition, self.measure

    @property
    def group(self) -> Group:
        """Data set, start and fine-tuning."""
        return self.data, self.start, self.finetuning


def spread_of(results: Sequence[CellResult], score: str) -> dict[str, Interval]:
    """Intervals of a score over test persons crossed with seeds, RegDB's partitions drawn first."""
    parts = [result.data for result in results]
    return intervals([result.persons[score] for result in results], partitions=parts if len(set(parts)) > 1 else None)


def seeds_of(results: Sequence[CellResult]) -> int:
    """How many seeds an arm has; RegDB's partitions of one seed are one."""
    return len({result.seed for result in results})


def in_common(first: Sequence[CellResult], second: Sequence[CellResult]) -> set[str]:
    """Data sets, of RegDB partitions, that both sides have run on."""
    return {result.data for result in first} & {result.data for result in second}


def difference(
    first: Sequence[CellResult], second: Sequence[CellResult], score: str, replicates: int = REPLICATES
) -> dict[str, Difference]:
    """Second minus first, paired over test persons and over the RegDB partitions that both sides have run on.

    Raises:
        UsageError: they were tested on different persons, such as two sides that have no partition in common.
    """
    both = in_common(first, second)
    sides = [[result for result in side if result.data in both] for side in (first, second)]
    before, after = ([result.persons[score] for result in side] for side in sides)
    parts = [[result.data for result in side] for side in sides]
    return compare(before, after, replicates, partitions=(parts[0], parts[1]) if len(both) > 1 else None)


def lines(experiment: Experiment, stored: Stored) -> list[Line]:
    """Every figure of the experiment's tables, those without a value among them."""
    return [
        line
        for table in experiment.tables
        for (group, arm), members in rows_of_cells(experiment, table).items()
        for mode, condition in _shown(experiment, table, members[0].data)
        for line in _figures(
            Line(table, *group, arm, _title(arm), mode, condition, "", 0, None, state=members[0].missing or "not run"),
            [stored[cell.name] for cell in members if cell.name in stored],
        )
    ]


def rows_of_cells(experiment: Experiment, table: str) -> dict[tuple[Group, str], list[Cell]]:
    """(group, arm) -> the cells that are its seeds (and partitions)."""
    rows: dict[tuple[Group, str], list[Cell]] = {}
    for cell in replace(experiment, tables=(table,), only="*").cells():
        rows.setdefault((cell.group, cell.arm), []).append(cell)
    return rows


def _shown(experiment: Experiment, table: str, data: str) -> list[tuple[str, str]]:
    """Modes and conditions that a table has of a data set."""
    if experiment.test:
        return list(itertools.product(paper.modes_of(data), MIXTURE_CONDITIONS))
    within = WITHIN if table in APART and data == "synthetic" else ()
    return [
        *itertools.product(paper.modes_of(data), _CONDITIONS[table]),
        *itertools.product(within, MIXTURE_CONDITIONS),
    ]


def _title(arm: str) -> str:
    return f"{arm_called(arm).title} (reconstruction)" if arm_called(arm).reconstruction else arm_called(arm).title


def _figures(blank: Line, results: Sequence[CellResult]) -> list[Line]:
    """rank-1 and mAP of one row, mode and condition."""
    spread = spread_of(results, f"{blank.mode}/{blank.condition}") if results else {}
    figures = []
    for place, measure in enumerate(("rank-1", "mAP")):
        printed = _printed(blank, place)
        line = replace(blank, measure=measure, seeds=seeds_of(results), paper=printed)
        if results:
            interval = spread[measure]
            value, low, high = (round(100 * number, 2) for number in (interval.value, interval.low, interval.high))
            gap = None if printed is None or line.data not in PAPERS else round(value - printed, 2)
            line = replace(line, value=value, low=low, high=high, difference=gap, state="")
        figures.append(line)
    return figures


def _printed(line: Line, place: int) -> float | None:
    """What the paper prints for a figure (0: rank-1, 1: mAP); None where it prints nothing."""
    mode = paper.printed_mode(line.mode)
    if line.table == "table3" and line.condition == "all":
        names = {"dapg-1-single": 0, "dapg-1-single-batch": 0, "dapg-2": 1, "dapg-1": 2, "dapg": 3}
        scores = list(paper.TABLE_3.values())[names[line.arm]].get(mode)
        return None if scores is None else scores[place]
    for row in paper.TABLES_1_AND_2:
        if (row.finetuning, row.pretraining) == (line.finetuning, line.arm) and line.condition in ("clean", "all"):
            scores = (row.clean if line.condition == "clean" else row.corrupted).get(mode)
            return None if scores is None or line.table in APART else scores[place]
    return None


# Comparisons


@dataclass(frozen=True)
class Comparison:
    """Ours minus another arm, in percentage points of mAP."""

    table: str
    data: str
    start: str
    finetuning: str
    arm: str
    other: str
    mode: str
    condition: str
    value: float
    low: float
    high: float
    detectable: float
    """The difference that an equal study finds four times in five."""
    p_holm: float
    """Corrected together with all comparisons of the table."""

    @property
    def group(self) -> Group:
        """Data set, start and fine-tuning."""
        return self.data, self.start, self.finetuning


def ours_and_others(arms: Mapping[str, Sequence[CellResult]]) -> tuple[str, list[str]]:
    """Our arm of a group, and those that it can be compared with; none where there is nothing to compare.

    One seed says nothing about the luck of a training, so where ours has several, arms with one are left out.
    """
    ours = max((arm for arm in OURS if arm in arms), key=lambda arm: (seeds_of(arms[arm]), len(arms[arm])), default="")
    few = seeds_of(arms[ours]) < 2 if ours else False
    rivals = [arm for arm, results in arms.items() if arm != ours and (few or seeds_of(results) > 1)] if ours else []
    return ours, [arm for arm in rivals if in_common(arms[arm], arms[ours])]


def comparisons(experiment: Experiment, table: str, stored: Stored) -> list[Comparison]:
    """Our arm against each other one of its group, paired over test persons, corrected by Holm's rule."""
    rows = {
        row: [stored[cell.name] for cell in members if cell.name in stored]
        for row, members in rows_of_cells(experiment, table).items()
    }
    rows = {row: results for row, results in rows.items() if results}
    compared: list[Comparison] = []
    for group in dict.fromkeys(group for group, _ in rows):
        ours, others = ours_and_others({arm: rows[group, arm] for other_group, arm in rows if other_group == group})
        for (mode, condition), other in itertools.product(_shown(experiment, table, group[0]), others):
            score = f"{mode}/{condition}"
            gap = difference(rows[group, other], rows[group, ours], score, _RESAMPLES)["mAP"]
            values = (gap.value, gap.low, gap.high, gap.detectable())
            value, low, high, found = (round(100 * number, 2) for number in values)
            compared.append(Comparison(table, *group, ours, other, mode, condition, value, low, high, found, gap.p))
    corrected = holm([comparison.p_holm for comparison in compared])
    return [replace(comparison, p_holm=round(p, 4)) for comparison, p in zip(compared, corrected, strict=True)]
