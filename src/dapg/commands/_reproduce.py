"""Shared by run, plan, show and recheck: which experiment a command is about."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dapg.commands._settings import parse, take_positional
from dapg.core.errors import UsageError, nearest
from dapg.core.ranges import Count

if TYPE_CHECKING:
    from dapg.experiment.matrix import Source
    from dapg.experiment.plan import Experiment

TABLES = (
    "TABLE is primary (what is registered), table1, table2, table3, fig1, beyond, finetuners, stage1, stage2,\n"
    "images, labels (growth with either) or all."
)


@dataclass(frozen=True)
class ExperimentSettings:
    """The experiment."""

    scale: str = "small"
    """small: minutes a cell on one core; gpu: one GPU; paper: the published settings."""
    data: str = "synthetic"
    """synthetic, sysu=PATH, regdb=PATH, thermal=PATH (rendered people in RegDB's layout); several with commas."""
    starts: str = "random,imagenet"
    """Where the first weights come from: random, imagenet or both."""
    seeds: Count = 5
    """Seeds of each cell."""
    repeats: Count = 2
    """Corrupted test sets of each kind (CIL: 10)."""
    test: str = ""
    """Root of another set of synthetic people whose test persons are scored, such as people/test1000."""
    only: str = "*"
    """Cells by name, patterns with spaces between them, such as 'dapg* *+agw-*-0'."""
    runs: str = "outputs/reproduce"
    """Folder of the trainings."""
    results: str = "results"
    """Folder of the results."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


T = TypeVar("T", bound=ExperimentSettings)


def parse_experiment(program: str, defaults: T, words: list[str], about: str) -> "tuple[Experiment, T]":
    """The experiment and all settings of a command, from the words ``TABLE [OPTIONS]``.

    Raises:
        UsageError: wrong arguments.
        SystemExit: 0, after --help or --print_config.
    """
    table, words = take_positional(words, "TABLE", None, program)
    settings = parse(program, defaults, words, about)
    from dapg.experiment.matrix import SCALES, TABLES  # torch, which --help does without
    from dapg.experiment.plan import Experiment

    if table not in (*TABLES, "all"):
        known = [*TABLES, "all"]
        raise UsageError(f"no table is called {table!r}{nearest(table, known)}; known: {', '.join(known)}")
    if settings.scale not in SCALES:
        raise UsageError(f"--scale is {', '.join(SCALES)}, not {settings.scale!r}")
    experiment = Experiment(
        tables=TABLES if table == "all" else (table,),
        scale=settings.scale,
        sources=tuple(_source(text) for text in settings.data.split(",")),
        starts=tuple(settings.starts.split(",")),
        seeds=settings.seeds,
        repeats=settings.repeats,
        test=settings.test,
        only=settings.only,
        runs=Path(settings.runs),
        results=Path(settings.results),
        device=settings.device,
    )
    if experiment.test and [source.name for source in experiment.sources] != ["synthetic"]:
        raise UsageError("--test names synthetic people; the data set to fine-tune on must be synthetic too")
    return experiment, settings


def words_of(experiment: "Experiment", settings: ExperimentSettings) -> list[str]:
    """What stands behind ``dapg reproduce COMMAND`` for the same experiment, for ``say_next``."""
    table = experiment.tables[0] if len(experiment.tables) == 1 else "all"
    changed = [
        (field.name, getattr(settings, field.name))
        for field in fields(ExperimentSettings)
        if getattr(settings, field.name) != field.default
    ]
    return [table, *(word for name, value in changed for word in (f"--{name}", str(value)))]


def _source(text: str) -> "Source":
    """A data set that can be fine-tuned on, and its root."""
    from dapg.data.sets.synthetic import ANNOTATIONS
    from dapg.experiment.matrix import Source

    name, _, root = text.partition("=")
    if name not in ("synthetic", "sysu", "regdb", "thermal"):
        raise UsageError(f"--data takes synthetic, sysu=PATH, regdb=PATH and thermal=PATH, not {text!r}")
    if name != "synthetic" and not root:
        raise UsageError(f"where is {name}? Give --data {name}=PATH")
    called = {"sysu": "synthetic", "regdb": "thermal"}.get(name)
    if called and (Path(root) / ANNOTATIONS).exists():  # tables would print ours minus the paper's
        raise UsageError(f"{root} has rendered people, not those of the paper: give --data {called}={root}")
    return Source(name, root)
