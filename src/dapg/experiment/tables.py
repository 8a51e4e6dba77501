"""The paper's tables from stored cells alone: ours beside the printed value, with intervals; byte-equal each time.

Intervals are 95 % by bootstrap over test persons nested in seeds. Comparisons are paired over persons; the p-values of
one table are corrected together by Holm's rule.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from dapg.core.files import atomic_write_text, read_json
from dapg.experiment import paper
from dapg.experiment.matrix import ARMS, Cell, Group
from dapg.experiment.plan import Experiment
from dapg.experiment.provenance import cell_rows, command, origin
from dapg.report.score_tables import Row, to_csv, to_markdown
from dapg.scoring.bootstrap import PersonScores, compare, holm, intervals

OURS = ("dapg", "dapg-1")
"""Arms that comparisons are made for, the whole method first; the first that has cells is taken."""
TITLES = {
    "table1": "Table I: clean pictures",
    "table2": "Table II: corrupted pictures, 20 types",
    "table3": "Table III: ablation, AGW, corrupted pictures",
    "fig1": "Fig. 1: what robust fine-tuning costs and gains",
    "beyond": "Beyond the paper: equal passes, corrupted views for every method, seen and unseen types",
    "finetuners": "Every fine-tuner from random weights, from ImageNet and from stage 1",
    "stage1": "Stage 1 taken apart: frozen and after a short AGW, within the visible cameras and across",
    "stage2": "Stage 2 taken apart: frozen and after a short AGW, within the visible cameras and across",
}
_CONDITIONS = {
    "table1": ("clean",),
    "table2": ("all",),
    "table3": ("all",),
    "fig1": ("clean", "all"),
    "beyond": ("clean", "seen", "unseen"),
    "finetuners": ("clean", "seen", "unseen"),
    "stage1": ("clean", "seen", "unseen"),
    "stage2": ("clean", "all"),
}
_WITHIN = ("visible", "visible centred", "frozen visible", "frozen visible centred")
"""Modes of the embedded people that only ``_APART`` show."""
_APART = ("stage1", "stage2")
_COMPARED = dict.fromkeys(_APART, ("all", "visible centred", "frozen visible centred"))
"""Modes in which a table compares; the others compare in all they show."""
PAPERS = ("sysu", "regdb")
"""Data sets of the paper, on which ours minus the printed value means something."""
_RESAMPLES = 20_000
"""Bootstrap replicates of a comparison: enough that Holm's correction of a hundred can still call one significant."""
_WIDEST = 8
"""Columns of figures in one Markdown table."""
Stored = dict[str, dict[str, Any]]
"""Cell name -> its result file's content."""
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
        """Where the figure stands in its row."""
        return self.mode, self.condition, self.measure


def lines(experiment: Experiment, stored: Stored | None = None) -> list[Line]:
    """Every figure of the experiment's tables, those without a value among them; ``stored`` saves reading again."""
    stored = read_cells(experiment) if stored is None else stored
    found = []
    for table in experiment.tables:
        for (group, arm), members in _rows(experiment, table).items():
            results = [stored[cell.name] for cell in members if cell.name in stored]
            absent = members[0].missing
            for mode in _modes(table, members[0].data):
                for condition in _CONDITIONS[table]:
                    found += _figures(table, group, arm, mode, condition, results, absent)
    return found


def read_cells(experiment: Experiment) -> Stored:
    """The result files of the cells that are done."""
    return {path.stem: read_json(path) for path in sorted(experiment.folder.glob("*.json"))}


def cell_of(result: Mapping[str, Any]) -> Cell:
    """The cell of a result file, without its chain."""
    return Cell(**result["cell"])


def _rows(experiment: Experiment, table: str) -> dict[tuple[Group, str], list[Cell]]:
    """(group, arm) -> the cells that are its seeds (and partitions)."""
    found: dict[tuple[Group, str], list[Cell]] = {}
    only = Experiment(**{**vars(experiment), "tables": (table,), "only": "*"})
    for cell in only.cells():
        found.setdefault((cell.group, cell.arm), []).append(cell)
    return found


def modes_of(data: str) -> tuple[str, ...]:
    """The published test modes of a data set; synthetic people have SYSU-MM01's."""
    return paper.SEARCHES[2:] if data.startswith("regdb") else paper.SEARCHES[:2]


def _modes(table: str, data: str) -> tuple[str, ...]:
    """What a table shows of a data set."""
    searches = modes_of(data)
    return (*searches[:1], *_WITHIN) if table in _APART and data == "synthetic" else searches


def _figures(
    table: str,
    group: Group,
    arm: str,
    mode: str,
    condition: str,
    results: Sequence[Mapping[str, Any]],
    absent: str,
) -> list[Line]:
    """rank-1 and mAP of one row, mode and condition."""
    data, start, finetuning = group
    spec = ARMS[arm]
    title = f"{spec.title} (reconstruction)" if spec.reconstruction else spec.title
    spread = intervals([persons_of(result, mode, condition) for result in results]) if results else {}
    made = []
    for place, measure in enumerate(("rank-1", "mAP")):
        printed = _printed(table, arm, finetuning, mode, condition, place)
        head = (table, data, start, finetuning, arm, title, mode, condition, measure, len(results))
        if not results:
            made.append(Line(*head, None, paper=printed, state=absent or "not run"))
            continue
        one = spread[measure]
        value, low, high = (round(100 * number, 2) for number in (one.value, one.low, one.high))
        gap = None if printed is None or data not in PAPERS else round(value - printed, 2)
        made.append(Line(*head, value, low, high, printed, gap))
    return made


def persons_of(result: Mapping[str, Any], mode: str, condition: str) -> PersonScores:
    """A cell's sums by test person, for intervals and comparisons."""
    stored = result["persons"][f"{mode}/{condition}"]
    return PersonScores(tuple(stored["persons"]), np.array(stored["sums"]))


def _printed(table: str, arm: str, finetuning: str, mode: str, condition: str, place: int) -> float | None:
    """What the paper prints for a figure; None where it prints nothing."""
    if table == "table3" and condition == "all":
        names = {"dapg-1-single": 0, "dapg-1-single-batch": 0, "dapg-2": 1, "dapg-1": 2, "dapg": 3}
        scores = list(paper.TABLE_3.values())[names[arm]].get(mode)
        return None if scores is None else scores[place]
    for row in paper.TABLES_1_AND_2:
        if (row.finetuning, row.pretraining) == (finetuning, arm) and condition in ("clean", "all"):
            scores = (row.clean if condition == "clean" else row.corrupted).get(mode)
            return None if scores is None or table in _APART else scores[place]
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
    p_holm: float
    """Corrected together with all comparisons of the table."""


def comparisons(experiment: Experiment, table: str, stored: Stored | None = None) -> list[Comparison]:
    """Our arm against each other one of its group, paired over test persons, corrected by Holm's rule."""
    stored = read_cells(experiment) if stored is None else stored
    rows = {
        key: [stored[c.name] for c in members if c.name in stored] for key, members in _rows(experiment, table).items()
    }
    rows = {key: results for key, results in rows.items() if results}
    found: list[tuple[Comparison, float]] = []
    for group in dict.fromkeys(group for group, _ in rows):
        arms = [arm for other_group, arm in rows if other_group == group]
        ours = next((arm for arm in OURS if arm in arms), "")
        shown = _modes(table, group[0])
        for mode in [mode for mode in _COMPARED.get(table, shown) if mode in shown]:
            for condition in _CONDITIONS[table]:
                for other in [arm for arm in arms if arm != ours] if ours else []:
                    first, second = (
                        [persons_of(result, mode, condition) for result in rows[group, arm]] for arm in (other, ours)
                    )
                    gap = compare(first, second, _RESAMPLES)["mAP"]
                    value, low, high = (round(100 * number, 2) for number in (gap.value, gap.low, gap.high))
                    one = Comparison(table, *group, ours, other, mode, condition, value, low, high, p_holm=0.0)
                    found.append((one, gap.p))
    adjusted = holm([p for _, p in found])
    return [Comparison(**{**asdict(each), "p_holm": round(p, 4)}) for (each, _), p in zip(found, adjusted, strict=True)]


# As text


def write_tables(experiment: Experiment, stored: Stored, every: Sequence[Line]) -> str:
    """Write ``<table>.md``, ``.csv``, ``.tex`` and ``cells.csv`` below the results; returns all Markdown."""
    texts = []
    for table in experiment.tables:
        part = [line for line in every if line.table == table]
        compared = comparisons(experiment, table, stored)
        notes = {group: note(experiment, table, group, arms, stored) for group, arms in groups(part).items()}
        text = markdown(table, part, compared, notes) + _trainings(experiment, table, stored)
        folder = experiment.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / f"{table}.md", text)
        atomic_write_text(folder / f"{table}.csv", _csv(part))
        atomic_write_text(folder / f"{table}.tex", latex(table, part))
        if compared:
            atomic_write_text(folder / f"{table}-differences.csv", _csv(compared))
        texts.append(text)
    if stored:
        atomic_write_text(experiment.folder / "tables" / "cells.csv", to_csv(cell_rows(experiment, stored)))
    return "\n".join(texts)


def note(experiment: Experiment, table: str, group: Group, arms: Mapping[str, list[Line]], stored: Stored) -> str:
    """What stands above a group's table: what its cells mean, what they cost, where they come from."""
    mine = [result for result in stored.values() if (cell := cell_of(result)).group == group and cell.arm in arms]
    every = [line for row in arms.values() for line in row]
    absent: dict[str, list[str]] = {}
    for row in arms.values():
        if _empty(row):
            absent.setdefault(row[0].state, []).append(row[0].title)
    without = "".join(f" {state[0].upper()}{state[1:]}: {'; '.join(names)}." for state, names in absent.items())
    return f"{legend(every)} {origin(mine)}{without} Run by `{command(experiment, table)}`."


def rows_of(arms: Mapping[str, Sequence[Line]]) -> list[Row]:
    """The rows of arms with figures, ours or printed ones."""
    return [_row(row) for row in arms.values() if not _empty(row)]


def _empty(row: Sequence[Line]) -> bool:
    return all(line.value is None and line.paper is None for line in row)


def groups(part: Sequence[Line]) -> dict[Group, dict[str, list[Line]]]:
    """Group -> arm -> its figures, all in the order of the lines, so that every row of a group has the same columns."""
    found: dict[Group, dict[str, list[Line]]] = {}
    for line in part:
        found.setdefault((line.data, line.start, line.finetuning), {}).setdefault(line.arm, []).append(line)
    return found


def _columns(arms: Mapping[str, Sequence[Line]]) -> list[str]:
    """Headings of a group's columns."""
    return [" ".join(line.column) for line in next(iter(arms.values()))]


def _trainings(experiment: Experiment, table: str, stored: Stored) -> str:
    """What the trainings right before fine-tuning cost, and how many directions their features use."""
    if table not in _APART:
        return ""
    rows: list[Row] = []
    for ((_, start, _), arm), members in _rows(experiment, table).items():
        results = [stored[cell.name] for cell in members if cell.name in stored]
        runs = [result["trainings"][-2] for result in results if len(result["trainings"]) > 1]
        if runs:
            ranks = [run["logs"]["effective_rank"] for run in runs if "effective_rank" in run["logs"]]
            rows.append(
                {
                    "first weights": start,
                    "pre-training": ARMS[arm].title,
                    "seeds": str(len(runs)),
                    "steps": str(runs[0]["steps"]),
                    "pictures seen": str(runs[0]["pictures_seen"]),
                    "seconds": f"{np.median([run['seconds'] for run in runs]):.0f}",
                    "effective rank": f"{np.mean(ranks):.1f}" if ranks else "",
                }
            )
    if not rows:
        return ""
    return "\n".join(["What the trainings right before fine-tuning took:", "", to_markdown(rows)])


def by_mode(arms: Mapping[str, list[Line]]) -> list[dict[str, list[Line]]]:
    """A part for each mode where one table would be too wide."""
    width = len(next(iter(arms.values())))
    modes = list(dict.fromkeys(line.mode for line in next(iter(arms.values()))))
    if width <= _WIDEST:
        return [dict(arms)]
    return [{arm: [line for line in row if line.mode == mode] for arm, row in arms.items()} for mode in modes]


def _row(row: Sequence[Line]) -> Row:
    """An arm's row of a table: a column a figure, and the shares of clean mAP that are kept on corrupted pictures."""
    head = {"pre-training": row[0].title, "seeds": str(row[0].seeds)}
    figures = {" ".join(line.column): shown(line) for line in row}
    kept = {
        f"kept, {condition}": "" if share is None else f"{share:.2f}" for condition, share in _kept_shares(row).items()
    }
    return {**head, **figures, **kept}


def _kept_shares(row: Sequence[Line]) -> dict[str, float | None]:
    """Condition -> corrupted mAP over clean mAP of a row that shows one mode; None where a value is missing."""
    if len({line.mode for line in row}) != 1:
        return {}
    values = {line.condition: line.value for line in row if line.measure == "mAP"}
    clean = values.pop("clean", None)
    return {condition: value / clean if value is not None and clean else None for condition, value in values.items()}


def markdown(table: str, part: Sequence[Line], compared: Sequence[Comparison], notes: Mapping[Group, str]) -> str:
    """A table for each group below its note, then the differences."""
    text = [f"## {TITLES[table]}", ""]
    if table == "fig1":
        text += [f"The paper's values: {paper.FIGURE_1}.", ""]
    for group, arms in groups(part).items():
        text += [f"{group[2]} on {group[0]}, first weights {group[1]}. {notes[group]}", ""]
        for part_of in by_mode(arms):
            rows = rows_of(part_of)
            text += [to_markdown(rows)] if rows else []
        mine = [each for each in compared if (each.data, each.start, each.finetuning) == group]
        text += _differences(mine)
    return "\n".join(text)


def shown(line: Line) -> str:
    """A figure's cell of a table, as ``legend`` explains."""
    printed = ""
    if line.paper is not None:
        gap = "" if line.difference is None else f", {line.difference:+.1f}"
        printed = f" [{line.paper:.2f}{'†' if _misprinted(line) else ''}{gap}]"
    if line.value is None:
        return line.state + printed
    return f"{line.value:.1f} ({line.low:.1f}–{line.high:.1f}){printed}"


def _misprinted(line: Line) -> bool:
    """Whether the paper copied the figure wrongly."""
    key = (line.finetuning, line.condition == "all", line.mode, ("rank-1", "mAP").index(line.measure))
    return line.arm == "in-sup" and key in paper.ORIGINALS


def legend(row: Sequence[Line]) -> str:
    """What stands in the cells of a group's figures."""
    printed = ""
    if any(line.paper is not None for line in row):
        what = (
            "ours minus it" if row[0].data in PAPERS else "on SYSU-MM01, for orientation only: these are other people"
        )
        printed = f", [the paper's value, {what}; † it was copied wrongly from its source]"
    return f"Per cent, 95 % interval{printed}."


def _differences(compared: Sequence[Comparison]) -> list[str]:
    if not compared:
        return []
    text = [
        f"`{compared[0].arm}` minus each other, points of mAP with 95 % interval, p after Holm's correction:",
        "",
        "| minus | mode | condition | difference | p |",
        "|---|---|---|---|---|",
    ]
    for each in compared:
        gap = f"{each.value:+.1f} ({each.low:+.1f} to {each.high:+.1f})"
        text.append(f"| {each.other} | {each.mode} | {each.condition} | {gap} | {each.p_holm:.3f} |")
    smallest = float(np.mean([(each.high - each.low) / 2 for each in compared]))
    return [
        *text,
        "",
        f"The smallest gain these cells can show, half an interval on average: {smallest:.1f} points.",
        "",
    ]


def _csv(rows: Iterable[Any]) -> str:
    """Long form: one figure a line."""
    rows = list(rows)
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, [each.name for each in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return out.getvalue()


def latex(table: str, part: Sequence[Line]) -> str:
    """A tabular for each group, rank-1 and mAP without intervals."""
    text = [f"% {TITLES[table]}"]
    for group, arms in groups(part).items():
        heads = _columns(arms)
        text += [f"% {', '.join(group)}", f"\\begin{{tabular}}{{l{'r' * len(heads)}}}", "\\hline"]
        text += [" & ".join(["pre-training", *heads]) + " \\\\", "\\hline"]
        for arm, row in arms.items():
            values = ["--" if line.value is None else f"{line.value:.1f}" for line in row]
            text.append(" & ".join([ARMS[arm].title, *values]) + " \\\\")
        text += ["\\hline", "\\end{tabular}"]
    return "\n".join(text) + "\n"
