"""All of ``dapg reproduce --show``: tables as files, and one page with all that is stored; byte-equal each time."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean

from dapg.core.files import folder_lock, remove_leftovers_of
from dapg.corruptions.library import DRAWS
from dapg.experiment import claims, registration, secondary
from dapg.experiment.conclusion import conclusion, in_words, mode_in_words
from dapg.experiment.figures import Line, lines, spread_of
from dapg.experiment.growth import gains
from dapg.experiment.heat_maps import read_pictures
from dapg.experiment.matrix import Group, arm_called
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.provenance import command, costs, origin
from dapg.experiment.store import LOCK_PATIENCE, CellResult, Stored, read_cells, refuse_mixed
from dapg.experiment.tables import TITLES, Arms, absent, by_mode, groups_of, legend, rows_of, write_tables
from dapg.report.experiment_page import Curves, ExperimentPage, Section, Table, write_experiment
from dapg.report.plots import Point
from dapg.report.score_tables import Row

_WORDS = {"pretrain": "pre-training", "align": "alignment"}
_WITHOUT = (
    "Heat maps and ranked lists are not made: `dapg reproduce show TABLE --pictures` makes them where the folder of "
    "the trainings (--runs) holds the networks of a finished cell of DAPG and of another arm."
)
_MAIN = ("table1", "table2", "table3", "fig1")
"""Tables of the paper; the others are folded at first."""


def write_report(experiment: Experiment) -> str:
    """Write the tables' files and the page below the results; returns the tables as Markdown.

    Raises:
        UsageError: the stored cells cannot be compared.
    """
    stored = read_cells(experiment.folder, with_persons=True)
    refuse_mixed(stored)
    primary = registration.report(experiment, stored)
    every = lines(experiment, stored)
    text = write_tables(experiment, stored, every)
    images = read_pictures(experiment)
    checked = claims.checks(experiment, stored)
    sections, not_run = _sections(experiment, every, stored)
    further = secondary.answers(experiment, stored)
    if further.rows:
        sections.insert(0, Section(further.heading, [Table("", further.rows)], further.note))
    if primary.rows:
        sections.insert(0, Section(primary.heading, [Table("", primary.rows)], primary.note))
    checks = [Table(table.heading, table.rows, table.note) for table in checked if table.rows]
    shown = {name: result for name, result in stored.items() if result.seed < experiment.seeds}
    page = ExperimentPage(
        title=f"DAPG: the experiment at scale {experiment.scale}",
        conclusion=conclusion(experiment, stored, primary),
        points=_points(experiment, shown),
        sections=[*sections, Section("The paper's text, checked", checks, folded=True)],
        curves=_curves(experiment, shown),
        gains=gains(shown),
        sources=[costs(experiment, stored, sum((group["seconds"] for group in images), 0.0))],
        notes=[
            f"{len(stored)} cells are done{_draws(stored)}. Differences are points of mAP, ours minus the other, with "
            "95 % intervals by bootstrap over test persons crossed with seeds. What synthetic people show is no claim "
            "about SYSU-MM01 or RegDB.",
            *filter(None, [fewer_seeds(experiment, stored)]),
            *([f"Not run: {'; '.join(not_run)}."] if not_run else []),
        ],
        pictures=images,
        without_pictures=_WITHOUT,
    )
    with folder_lock(experiment.folder, patience=LOCK_PATIENCE):
        remove_leftovers_of([experiment.page])
        write_experiment(experiment.page, page)
    more = registration.markdown(further) if further.rows else ""
    parts = registration.markdown(primary), more, text, claims.markdown(checked), fewer_seeds(experiment, stored)
    return "\n".join(filter(None, parts))


def fewer_seeds(experiment: Experiment, stored: Stored) -> str:
    """Whether more seeds are stored than are shown, in words; empty: no."""
    most = max((result.seed + 1 for result in stored.values()), default=0)
    return f"{most} seeds are stored, {experiment.seeds} shown (--seeds)." if most > experiment.seeds else ""


def _draws(stored: Stored) -> str:
    """By which version of the random draws, where it is not that of now."""
    old = sorted({result.draws for result in stored.values()} - {DRAWS})
    return f", with the random draws of version {old[0]} (now {DRAWS})" if old else ""


def _sections(experiment: Experiment, every: Sequence[Line], stored: Stored) -> tuple[list[Section], list[str]]:
    """A section for each table with cells, a table for each group in it; and what has not run, in words."""
    sections, not_run = [], []
    for name, part in groupby(every, key=lambda line: line.table):
        groups, missing = groups_of(list(part))
        title = TITLES[name].partition(":")[0]
        if not groups:
            not_run.append(title)
            continue
        not_run += [f"{title}, {in_words(group, experiment)}" for group in missing]
        tables = [table for group, arms in groups.items() for table in _tables(experiment, group, arms, stored)]
        source = f"Run by `{command(experiment, name)}`."
        tables[-1] = replace(tables[-1], source=f"{tables[-1].source} {source}")
        first = [line for arms in groups.values() for row in arms.values() for line in row]
        sections.append(Section(TITLES[name], tables, legend(first), folded=name not in _MAIN))
    return sections, not_run


def _tables(experiment: Experiment, group: Group, arms: Arms, stored: Stored) -> list[Table]:
    """A group's table, or one for each mode where one would be too wide."""
    parts, tables = by_mode(arms), []
    for part in parts:
        row = next(iter(part.values()))
        modes = dict.fromkeys(line.mode for line in row)
        heading = ", ".join([in_words(group, experiment), *(map(mode_in_words, modes) if len(modes) == 1 else ())])
        tables.append(Table(heading, [_short(row, modes) for row in rows_of(part)]))
    results = [result for result in stored.values() if result.group == group and result.arm in arms]
    tables[-1] = replace(tables[-1], source=origin(results), note=absent(arms))
    return tables


def _short(row: Row, modes: Iterable[str]) -> Row:
    """Column names without the mode where there is one alone, as the heading has it; ``all`` in words."""
    (*others, mode) = modes
    names = {name: name if others else name.removeprefix(f"{mode} ") for name in row}
    return {re.sub(r"\ball\b(?!-)", "corrupted", names[name]): cell for name, cell in row.items()}


def _points(experiment: Experiment, stored: Stored) -> dict[str, list[Point]]:
    """Panel (fine-tuning, data, start, mode) -> arms with mAP on clean and on corrupted images, and intervals."""
    scores: dict[tuple[str, str], dict[str, list[CellResult]]] = {}
    for result in stored.values():
        for mode in modes_of(result.data):
            panel = f"{in_words(result.group, experiment)}, {mode_in_words(mode)}"
            scores.setdefault((panel, mode), {}).setdefault(result.arm, []).append(result)
    return {
        panel: [_point(arm, results, mode) for arm, results in arms.items()]
        for (panel, mode), arms in sorted(scores.items())
    }


def _point(arm: str, results: Sequence[CellResult], mode: str) -> Point:
    """Means and intervals over test persons crossed with seeds."""
    values, bars = [], []
    for condition in ("clean", "all"):
        interval = spread_of(results, f"{mode}/{condition}")["mAP"]
        values.append(100 * fmean(result.scores[f"{mode}/{condition}"]["mAP"] for result in results))
        bars.append((100 * interval.low, 100 * interval.high))
    return Point(arm_called(arm).title, values[0], values[1], bars[0], bars[1])


def _curves(experiment: Experiment, stored: Stored) -> Curves:
    """A panel for each pre-training or alignment and start, and for each group of fine-tunings; each run once."""
    curves: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {}
    for result in stored.values():
        for training in result.trainings:
            if not training.curve:
                continue
            if training.stage == "finetune":
                panel = in_words(result.group, experiment)
            else:
                panel = f"{_WORDS[training.stage]} {training.method}, from {result.start}"
            arm = curves.setdefault(panel, {}).setdefault(arm_called(result.arm).title, {})
            arm[training.run] = training.curve
    return {panel: {arm: list(runs.values()) for arm, runs in arms.items()} for panel, arms in sorted(curves.items())}
