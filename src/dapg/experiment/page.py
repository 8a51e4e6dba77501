"""All of ``dapg reproduce --show``: tables as files, and one page with all that is stored; byte-equal each time."""

from collections.abc import Sequence
from statistics import fmean

from dapg.corruptions.library import DRAWS
from dapg.experiment import claims, paper, registration
from dapg.experiment.figures import Line, lines
from dapg.experiment.heat_maps import read_pictures
from dapg.experiment.matrix import arm_called
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.provenance import costs
from dapg.experiment.store import CellResult, Stored, read_cells, refuse_mixed
from dapg.experiment.tables import TITLES, by_mode, groups_of, note, rows_of, write_tables
from dapg.report.experiment_page import Curves, ExperimentPage, Table, write_experiment
from dapg.report.plots import Point
from dapg.scoring.bootstrap import intervals

_WORDS = {"pretrain": "pre-training", "align": "alignment"}
_WITHOUT = (
    "Not made. `dapg reproduce show TABLE --pictures` makes them where the folder of the trainings (--runs) holds "
    "the networks of a finished cell of DAPG and of another arm."
)


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
    pictures = read_pictures(experiment)
    checked = claims.checks(experiment, stored)
    page = ExperimentPage(
        title=f"dapg reproduce, scale {experiment.scale}",
        notes=[
            primary.note,
            f"{len(stored)} cells are done{_draws(stored)}.",
            "Per cent, 95 % interval by bootstrap over test persons crossed with seeds.",
            "What synthetic people show is no claim about SYSU-MM01 or RegDB.",
            f"Fig. 1 of the paper: {paper.FIGURE_1}.",
        ],
        points=_points(stored),
        tables=_tables(experiment, every, stored),
        checks=[*([primary] if primary.rows else []), *checked],
        curves=_curves(stored),
        costs=[costs(experiment, stored, sum((group["seconds"] for group in pictures), 0.0))],
        pictures=pictures,
        without_pictures=_WITHOUT,
    )
    write_experiment(experiment.page, page)
    return f"{registration.markdown(primary)}\n{text}\n{claims.markdown(checked)}"


def _draws(stored: Stored) -> str:
    """By which version of the random draws, where it is not that of now."""
    old = sorted({result.draws for result in stored.values()} - {DRAWS})
    return f", with the random draws of version {old[0]} (now {DRAWS})" if old else ""


def _tables(experiment: Experiment, every: Sequence[Line], stored: Stored) -> list[Table]:
    """A table for each group of each of the experiment's tables, or one for each mode where one would be too wide."""
    tables = []
    for table in experiment.tables:
        groups, _ = groups_of([line for line in every if line.table == table])
        for (data, start, finetuning), arms in groups.items():
            heading = f"{TITLES[table]} ({finetuning} on {data}, first weights {start})"
            about = note(experiment, table, arms, stored)
            parts = by_mode(arms)
            for part in parts:
                mode = next(iter(part.values()))[0].mode
                tables.append(Table(f"{heading}, {mode}" if len(parts) > 1 else heading, rows_of(part), about))
                about = ""
    return tables


def _points(stored: Stored) -> dict[str, list[Point]]:
    """Panel (fine-tuning, data, start, mode) -> arms with mAP on clean and on corrupted pictures, and intervals."""
    scores: dict[tuple[str, str], dict[str, list[CellResult]]] = {}
    for result in stored.values():
        for mode in modes_of(result.data):
            panel = f"{result.finetuning}, {result.group[0]} {mode}, from {result.start}"
            scores.setdefault((panel, mode), {}).setdefault(result.arm, []).append(result)
    return {
        panel: [_point(arm, results, mode) for arm, results in arms.items()]
        for (panel, mode), arms in sorted(scores.items())
    }


def _point(arm: str, results: Sequence[CellResult], mode: str) -> Point:
    """Means and intervals over test persons crossed with seeds."""
    values, bars = [], []
    for condition in ("clean", "all"):
        interval = intervals([result.persons[f"{mode}/{condition}"] for result in results])["mAP"]
        values.append(100 * fmean(result.scores[f"{mode}/{condition}"]["mAP"] for result in results))
        bars.append((100 * interval.low, 100 * interval.high))
    return Point(arm_called(arm).title, values[0], values[1], bars[0], bars[1])


def _curves(stored: Stored) -> Curves:
    """A panel for each pre-training or alignment and start, and for each group of fine-tunings; each run once."""
    curves: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {}
    for result in stored.values():
        for training in result.trainings:
            if not training.curve:
                continue
            if training.stage == "finetune":
                panel = f"{result.finetuning} on {result.group[0]}, from {result.start}"
            else:
                panel = f"{_WORDS[training.stage]} {training.method}, from {result.start}"
            arm = curves.setdefault(panel, {}).setdefault(arm_called(result.arm).title, {})
            arm[training.run] = training.curve
    return {panel: {arm: list(runs.values()) for arm, runs in arms.items()} for panel, arms in sorted(curves.items())}
