"""What to run and where; what is done, what would run, how long it takes and how much disk it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dapg.core.device import resolve_device
from dapg.core.errors import DapgError
from dapg.core.run_folder import RESULT
from dapg.core.scales import SCALES, Stage
from dapg.core.train_config import DataConfig
from dapg.corruptions.library import DRAWS
from dapg.data.source import open_dataset, select_records
from dapg.evaluation.corrupted_scores import Detail
from dapg.evaluation.corrupted_sets import CorruptionPolicy
from dapg.experiment.estimates import Speeds, measured_speeds, seconds_of_a_step, seconds_of_scoring
from dapg.experiment.matrix import TABLES, Cell, Source, cells
from dapg.experiment.store import CellResult, Stored, read_cells, this_machine
from dapg.training.training_settings import AlignSettings, FinetuneSettings, TrainingSettings

Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True)
class Experiment:
    """What to run, and where."""

    tables: tuple[str, ...] = TABLES
    """Of ``matrix.TABLES``."""
    scale: str = "small"
    """small: minutes a cell on one core; gpu: minutes on a GPU; paper: the published settings."""
    sources: tuple[Source, ...] = (Source("synthetic"),)
    """Data sets to fine-tune and test on."""
    starts: tuple[str, ...] = ("random", "imagenet")
    """Where the first weights come from."""
    seeds: int = 5
    """Seeds of each cell."""
    repeats: int = 2
    """Corrupted test sets of each kind."""
    only: str = "*"
    """Patterns of cell names, separated by spaces."""
    runs: Path = Path("outputs/reproduce")
    """Folder of the trainings."""
    results: Path = Path("results")
    """Folder of the cells' results."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    test: str = ""
    """Root of another set of synthetic people, whose test persons are scored; empty: those of the data set that was
    fine-tuned on."""

    def cells(self) -> list[Cell]:
        """The wanted cells, those that cannot run among them.

        Raises:
            UsageError: unknown tables, starts or scale, or patterns that fit no cell.
        """
        return cells(self.tables, self.scale, self.sources, self.starts, self.seeds, self.runs, self.only)

    @property
    def folder(self) -> Path:
        """Where the cells' results are (``store.py``)."""
        thermal = any(source.name == "thermal" for source in self.sources)
        apart = Path(self.test).name or (
            "thermal" if thermal else ""
        )  # other people: their tables would be overwritten
        return self.results / "-".join(filter(None, ("reproduce", self.scale, apart)))

    @property
    def corrupted_at(self) -> tuple[int, int]:
        """Height and width of test images when they are corrupted: as in the scale's pre-trainings, or the list's."""
        policy = CorruptionPolicy()
        return SCALES[self.scale].decoded or (policy.height, policy.width)

    @property
    def detail(self) -> Detail:
        """Seen and unseen types apart too, but for other test persons, who are many: the registered mixture alone."""
        return "mixture" if self.test else "lists"

    def test_data(self, cell: Cell) -> DataConfig:
        """Where a cell's test persons are."""
        return DataConfig("synthetic", self.test) if self.test else cell.chain[-1].data.whole()

    def unreadable(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Cells whose data are not there -> why: known before anything is trained or estimated."""
        reasons: dict[tuple[str, str], str] = {}
        named: dict[str, str] = {}
        for cell in cells:
            for config in (*(training.data for training in cell.chain), self.test_data(cell)):
                source = config.name, config.root
                if source not in reasons:
                    reasons[source] = _why_unreadable(config)
                if reasons[source]:
                    named.setdefault(cell.name, reasons[source])
        return named

    @property
    def page(self) -> Path:
        """One HTML page, made from the results and not kept in git; what it shows besides lies in its folder."""
        return self.folder / "page" / "report.html"

    @property
    def queue(self) -> Path:
        """Where it is written down who works on which cell; `dapg jobs watch` takes it."""
        return self.runs / f"queue-{self.scale}"


def _why_unreadable(config: DataConfig) -> str:
    try:
        open_dataset(config)
    except DapgError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Outlook:
    """What a plan says about a cell."""

    cell: Cell
    state: Literal["done", "to run", "missing"]
    about: str
    """What is left to train, what is missing, or what would come out differently now."""
    seconds: float | None = 0.0
    """Of what is left; None: nothing like it has been measured."""
    bytes: float = 0.0


def outlook(experiment: Experiment) -> list[Outlook]:
    """What exists, what would run, how long it takes and how much disk it needs; shared trainings count once.

    Seconds come from finished cells of the same scale (``estimates.py``): run one of each kind, and the rest is known.
    """
    stored = read_cells(experiment.folder)
    speeds = _measured(experiment, stored)
    counted: set[str] = set()
    plan: list[Outlook] = []
    wanted = experiment.cells()
    unreadable = experiment.unreadable([cell for cell in wanted if not cell.missing and cell.name not in stored])
    for cell in wanted:
        if cell.missing:
            plan.append(Outlook(cell, "missing", cell.missing))
        elif cell.name in stored:
            plan.append(Outlook(cell, "done", _what_changed(cell, stored[cell.name])))
        elif cell.name in unreadable:
            plan.append(Outlook(cell, "missing", unreadable[cell.name]))
        else:
            later = any(outlook.state == "to run" for outlook in plan)
            plan.append(_left(experiment, cell, speeds, counted, pictures_kept=later))
    return plan


def _what_changed(cell: Cell, result: CellResult) -> str:
    """Why a stored cell would come out differently now; empty: it would not."""
    if not result.unchanged(cell):
        return "by other settings than now"
    return "" if result.draws == DRAWS else "by other random draws than now"


def _left(experiment: Experiment, cell: Cell, speeds: Speeds, counted: set[str], pictures_kept: bool) -> Outlook:
    """What a cell still needs; trainings in ``counted`` are another cell's to pay."""
    seconds, parts, size = [seconds_of_scoring(speeds, cell.start, pictures_kept)], [], 0.0
    for training in cell.chain:
        if training.out in counted or (Path(training.out) / RESULT).exists():
            continue
        counted.add(training.out)
        per_step = seconds_of_a_step(speeds, stage_of(training), training.name, cell.arm, cell.start)
        seconds.append(None if per_step is None else per_step * _steps(training))
        size += SCALES[experiment.scale].starts[cell.start].disk
        parts.append(f"{stage_of(training)} {training.name}")
    known = [value for value in seconds if value is not None]
    total = sum(known) if len(known) == len(seconds) else None
    return Outlook(cell, "to run", ", ".join([*parts, "score"]), total, size)


def _steps(training: TrainingSettings) -> int:
    """Steps of a training; where epochs decide, its data are counted."""
    if training.train.steps:
        return training.train.steps
    images = len(select_records(open_dataset(training.data), training.data, training.seed))
    return training.train.total_steps(images / training.train.batch_size)


def _measured(experiment: Experiment, stored: Stored) -> Speeds:
    """Speeds of what is finished on machines like this one; where there is none, on any."""
    here = this_machine(resolve_device(experiment.device)).kind
    return measured_speeds([result for result in stored.values() if result.machine.kind == here] or stored.values())


def stage_of(training: TrainingSettings) -> Stage:
    """pretrain, align or finetune: the kind of training, also the name of the folder that its runs are in."""
    if isinstance(training, FinetuneSettings):
        return "finetune"
    return "align" if isinstance(training, AlignSettings) else "pretrain"
