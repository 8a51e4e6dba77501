"""The paper's tables as files: Markdown, CSV and LaTeX from figures, and ``cells.csv``; byte-equal each time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from dapg.core.files import atomic_write_text, csv_text, folder_lock, remove_leftovers_of
from dapg.experiment import paper
from dapg.experiment.figures import APART, PAPERS, Comparison, Line, comparisons, rows_of_cells
from dapg.experiment.matrix import Group, arm_called
from dapg.experiment.plan import Experiment
from dapg.experiment.provenance import cell_rows, command, origin
from dapg.experiment.store import LOCK_PATIENCE, Stored
from dapg.report.score_tables import Row, to_csv, to_markdown

TITLES = {
    "primary": "The registered comparison and its neighbours: clean and corrupted images",
    "table1": "Table I: clean images",
    "table2": "Table II: corrupted images, 20 types",
    "table3": "Table III: ablation, AGW, corrupted images",
    "fig1": "Fig. 1: what robust fine-tuning costs and gains",
    "beyond": "Beyond the paper: equal passes, corrupted views for every method, seen and unseen types",
    "finetuners": "Every fine-tuner from random weights, from ImageNet and from stage 1",
    "stage1": "Stage 1 taken apart: frozen and after a short AGW, within the visible cameras and across",
    "stage2": "Stage 2 taken apart: frozen and after a short AGW, within the visible cameras and across",
    "images": "Growth: how the gain of stage 1 changes with its images and its length",
    "labels": "Few labels: how the gain of stage 1 changes with the persons that fine-tuning knows",
}
_WIDEST = 8
"""Columns of figures in one Markdown table."""
Arms = Mapping[str, Sequence[Line]]
"""Arm -> its figures, the same columns for each."""


def write_tables(experiment: Experiment, stored: Stored, every: Sequence[Line]) -> str:
    """Write ``cells.csv`` and ``tables/<table>.md``, ``.csv`` and ``.tex``; returns all Markdown."""
    folder = experiment.folder / "tables"
    texts, files = [], dict[Path, str]()
    for table in experiment.tables:
        groups, not_run = groups_of([line for line in every if line.table == table])
        compared = comparisons(experiment, table, stored)
        notes = {group: note(experiment, table, arms, stored) for group, arms in groups.items()}
        parts = _markdown(table, groups, compared, notes), _trainings(experiment, table, stored), _left_out(not_run)
        text = "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"
        files[folder / f"{table}.md"] = text
        figures = [line for arms in groups.values() for row in arms.values() if not _empty(row) for line in row]
        files[folder / f"{table}.csv"] = _csv(figures)
        files[folder / f"{table}.tex"] = _latex(table, groups)
        if compared:
            files[folder / f"{table}-differences.csv"] = _csv(compared)
        texts.append(text)
    if stored:
        files[experiment.folder / "cells.csv"] = to_csv(cell_rows(stored))
    with folder_lock(experiment.folder, patience=LOCK_PATIENCE):
        remove_leftovers_of(files)  # of writers that were killed
        for path, content in files.items():
            atomic_write_text(path, content)
    return "\n".join(texts)


def groups_of(part: Sequence[Line]) -> tuple[dict[Group, dict[str, list[Line]]], list[Group]]:
    """Group -> arm -> its figures, in the order of the lines; and the groups of which no cell has run."""
    groups: dict[Group, dict[str, list[Line]]] = {}
    for line in part:
        groups.setdefault(line.group, {}).setdefault(line.arm, []).append(line)
    run = {line.group for line in part if line.value is not None}
    return {group: arms for group, arms in groups.items() if group in run}, [g for g in groups if g not in run]


def note(experiment: Experiment, table: str, arms: Arms, stored: Stored) -> str:
    """The text above a group's table: what its figures mean, what they cost, where they come from."""
    every = [line for row in arms.values() for line in row]
    results = [result for result in stored.values() if result.group == every[0].group and result.arm in arms]
    parts = legend(every), origin(results), absent(arms), f"Run by `{command(experiment, table)}`."
    return " ".join(filter(None, parts))


def absent(arms: Arms) -> str:
    """Arms without a figure of ours, in one line; empty where there is none."""
    states: dict[str, list[str]] = {}
    for row in arms.values():
        if _empty(row):
            states.setdefault(row[0].state, []).append(row[0].title)
    return " ".join(f"{state[0].upper()}{state[1:]}: {'; '.join(names)}." for state, names in states.items())


def by_mode(arms: Arms) -> list[Arms]:
    """A part for each mode where one table would be too wide."""
    first = next(iter(arms.values()))
    if len(first) <= _WIDEST:
        return [arms]
    modes = dict.fromkeys(line.mode for line in first)
    return [{arm: [line for line in row if line.mode == mode] for arm, row in arms.items()} for mode in modes]


def rows_of(arms: Arms) -> list[Row]:
    """The rows of arms with figures of ours."""
    return [_row(row) for row in arms.values() if not _empty(row)]


def _empty(row: Sequence[Line]) -> bool:
    return all(line.value is None for line in row)


def _row(row: Sequence[Line]) -> Row:
    """An arm's row: a column for each figure, and the share of its clean mAP that it keeps on corrupted images."""
    head = {"pre-training": row[0].title, "seeds": str(row[0].seeds)}
    figures = {" ".join(line.column): shown(line) for line in row}
    shares = {
        f"kept, {condition}": "" if share is None else f"{share:.2f}"
        for condition, share in _shares_of_clean(row).items()
    }
    return {**head, **figures, **shares}


def _shares_of_clean(row: Sequence[Line]) -> dict[str, float | None]:
    """Condition -> corrupted mAP over clean mAP of a row that shows one mode; None where a value is missing."""
    if len({line.mode for line in row}) != 1:
        return {}
    values = {line.condition: line.value for line in row if line.measure == "mAP"}
    clean = values.pop("clean", None)
    return {condition: value / clean if value is not None and clean else None for condition, value in values.items()}


def shown(line: Line) -> str:
    """A figure as text, as ``legend`` explains it."""
    printed = ""
    if line.paper is not None:
        gap = "" if line.difference is None else f", {line.difference:+.1f}"
        printed = f" [{line.paper:.2f}{'†' if _misprinted(line) else ''}{gap}]"
    if line.value is None:
        return line.state + printed
    return f"{line.value:.1f} ({line.low:.1f}–{line.high:.1f}){printed}"


def _misprinted(line: Line) -> bool:
    """Whether the paper copied the figure wrongly."""
    mode = paper.printed_mode(line.mode)
    key = (line.finetuning, line.condition == "all", mode, ("rank-1", "mAP").index(line.measure))
    return line.arm == "in-sup" and key in paper.ORIGINALS


def legend(figures: Sequence[Line]) -> str:
    """How figures are to be read."""
    printed = ""
    if any(line.paper is not None for line in figures):
        ours = "ours minus it"
        data = figures[0].data
        people = "RegDB" if data == "thermal" else "SYSU-MM01"
        what = ours if data in PAPERS else f"on {people}, for orientation only: these are other people"
        printed = f", [the paper's value, {what}; † it was copied wrongly from its source]"
    return f"Per cent, 95 % interval{printed}."


def _markdown(
    table: str,
    groups: Mapping[Group, Arms],
    compared: Sequence[Comparison],
    notes: Mapping[Group, str],
) -> str:
    """A table for each group below its note, then the differences."""
    text = [f"## {TITLES[table]}", ""]
    if table == "fig1":
        text += [f"The paper's values: {paper.FIGURE_1}.", ""]
    for group, arms in groups.items():
        text += [f"{_in_words(group)}. {notes[group]}", ""]
        for part in by_mode(arms):
            rows = rows_of(part)
            text += [to_markdown(rows)] if rows else []
        text += _differences([comparison for comparison in compared if comparison.group == group])
    return "\n".join(text)


def _in_words(group: Group) -> str:
    data, start, finetuning = group
    return f"{finetuning} on {data}, first weights {start}"


def _differences(compared: Sequence[Comparison]) -> list[str]:
    if not compared:
        return []
    text = [
        f"`{compared[0].arm}` minus each other, points of mAP with 95 % interval, p after Holm's correction:",
        "",
        "| minus | mode | condition | difference | p |",
        "|---|---|---|---|---|",
    ]
    for gap in compared:
        difference = f"{gap.value:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})"
        text.append(f"| {gap.other} | {gap.mode} | {gap.condition} | {difference} | {gap.p_holm:.4f} |")
    found = float(np.mean([gap.detectable for gap in compared]))
    return [
        *text,
        "",
        f"The difference that an equal study finds four times in five, on average: {found:.1f} points.",
        "",
    ]


def _trainings(experiment: Experiment, table: str, stored: Stored) -> str:
    """What the trainings right before fine-tuning cost, and how many directions their features use."""
    if table not in APART:
        return ""
    rows: list[Row] = []
    for ((_, start, _), arm), members in rows_of_cells(experiment, table).items():
        results = [stored[cell.name] for cell in members if cell.name in stored]
        runs = [result.trainings[-2] for result in results if len(result.trainings) > 1]
        if runs:
            ranks = [run.logs["effective_rank"] for run in runs if "effective_rank" in run.logs]
            rows.append(
                {
                    "first weights": start,
                    "pre-training": arm_called(arm).title,
                    "seeds": str(len(runs)),
                    "steps": str(runs[0].steps),
                    "pictures seen": str(runs[0].pictures_seen),
                    "seconds": f"{np.median([run.seconds for run in runs]):.0f}",
                    "effective rank": f"{np.mean(ranks):.1f}" if ranks else "",
                }
            )
    if not rows:
        return ""
    return "\n".join(["What the trainings right before fine-tuning took:", "", to_markdown(rows)])


def _left_out(groups: Sequence[Group]) -> str:
    """The groups without a cell in one line."""
    return f"Not run: {'; '.join(map(_in_words, groups))}." if groups else ""


def _csv(rows: Sequence[Line] | Sequence[Comparison]) -> str:
    """Long form: one figure in each line."""
    if not rows:
        return ""
    return csv_text([[field.name for field in fields(rows[0])], *(list(asdict(row).values()) for row in rows)])


def _latex(table: str, groups: Mapping[Group, Arms]) -> str:
    """A tabular for each group, rank-1 and mAP without intervals."""
    text = [f"% {TITLES[table]}"]
    for group, arms in groups.items():
        heads = [" ".join(line.column) for line in next(iter(arms.values()))]
        text += [f"% {', '.join(group)}", f"\\begin{{tabular}}{{l{'r' * len(heads)}}}", "\\hline"]
        text += [" & ".join(["pre-training", *heads]) + " \\\\", "\\hline"]
        for arm, row in arms.items():
            if _empty(row):
                continue
            values = ["--" if line.value is None else f"{line.value:.1f}" for line in row]
            text.append(" & ".join([arm_called(arm).title, *values]) + " \\\\")
        text += ["\\hline", "\\end{tabular}"]
    return "\n".join(text) + "\n"
