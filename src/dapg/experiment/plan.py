"""What to run and where; what is done, what would run, how long it takes and how much disk it needs."""

import fnmatch
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.files import read_json
from dapg.core.run_folder import RESULT
from dapg.core.scales import SCALES, Stage
from dapg.data.source import open_dataset, select_records
from dapg.experiment.estimates import Speeds, machine_words, seconds_of_a_step, seconds_of_scoring, speeds
from dapg.experiment.matrix import TABLES, Cell, Source, cells
from dapg.train.align import AlignSettings
from dapg.train.finetune import FinetuneSettings
from dapg.train.run import TrainingSettings

Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True)
class Experiment:
    """What to run, and where."""

    tables: tuple[str, ...] = TABLES
    """table1, table2, table3, fig1, beyond, finetuners, stage1 or stage2."""
    scale: str = "tiny"
    """tiny: minutes a cell on two cores; gpu: minutes on a GPU; paper: the published settings."""
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

    def cells(self) -> list[Cell]:
        """The wanted cells, those that cannot run among them.

        Raises:
            UsageError: unknown tables, starts or scale, or patterns that fit no cell.
        """
        wanted = cells(self.tables, self.scale, self.sources, self.starts, self.seeds, self.runs)
        patterns = self.only.split()
        chosen = [cell for cell in wanted if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)]
        if not chosen:
            raise UsageError(f"--only {self.only!r} fits none of the {len(wanted)} cells, such as {wanted[0].name}")
        return chosen

    @property
    def folder(self) -> Path:
        """Where the cells' results are."""
        return self.results / f"reproduce-{self.scale}"

    def file(self, cell: Cell) -> Path:
        """The cell's result."""
        return self.folder / f"{cell.name}.json"

    def failure(self, cell: Cell) -> Path:
        """Why the cell failed last time."""
        return self.runs / "failed" / f"{cell.name}.txt"


@dataclass(frozen=True)
class Outlook:
    """What a dry run says about a cell."""

    cell: Cell
    state: str
    """done (and whether by other settings than now), to run (with what is left to train), or missing (with what is)."""
    seconds: float | None = 0.0
    """None: nothing like it has been measured."""
    bytes: float = 0.0


def outlook(experiment: Experiment) -> list[Outlook]:
    """What exists, what would run, how long it takes and how much disk it needs; shared trainings count once.

    Seconds come from finished cells of the same scale (``estimates.py``): run one of each kind, and the rest is known.
    """
    known = _measured(experiment)
    counted: set[str] = set()
    found = []
    for cell in experiment.cells():
        if cell.missing:
            found.append(Outlook(cell, f"missing: {cell.missing}"))
        elif experiment.file(cell).exists():
            same = unchanged(cell, read_json(experiment.file(cell)))
            found.append(Outlook(cell, "done" if same else "done, by other settings than now"))
        else:
            later = any(each.state.startswith("to run") for each in found)
            found.append(_left(experiment, cell, known, counted, pictures_kept=later))
    return found


def unchanged(cell: Cell, result: Mapping[str, Any]) -> bool:
    """Whether a stored cell was trained by the settings of now: the name of a run ends in their hash."""
    return [Path(training.out).name for training in cell.chain] == [training["run"] for training in result["trainings"]]


def _left(experiment: Experiment, cell: Cell, measured: Speeds, counted: set[str], pictures_kept: bool) -> Outlook:
    """What a cell still needs; trainings in ``counted`` are another cell's to pay."""
    seconds, parts, size = [seconds_of_scoring(measured, cell.start, pictures_kept)], [], 0.0
    for training in cell.chain:
        if training.out in counted or (Path(training.out) / RESULT).exists():
            continue
        counted.add(training.out)
        per_step = seconds_of_a_step(measured, stage_of(training), training.name, cell.arm, cell.start)
        seconds.append(None if per_step is None else per_step * _steps(training))
        size += SCALES[experiment.scale].starts[cell.start].disk
        parts.append(f"{stage_of(training)} {training.name}")
    known = [value for value in seconds if value is not None]
    total = sum(known) if len(known) == len(seconds) else None
    return Outlook(cell, "to run: " + ", ".join([*parts, "score"]), total, size)


def _steps(training: TrainingSettings) -> int:
    """Steps of a training; where epochs decide, its data are counted."""
    if training.train.steps:
        return training.train.steps
    pictures = len(select_records(open_dataset(training.data), training.data, training.seed))
    return training.train.total_steps(pictures / training.train.batch_size)


def _measured(experiment: Experiment) -> Speeds:
    """Speeds of what is finished on machines like this one; where there is none, on any."""
    results = [read_json(path) for path in sorted(experiment.folder.glob("*.json"))]
    here = machine_words(machine(resolve_device(experiment.device)))
    return speeds([each for each in results if machine_words(each["machine"]) == here] or results)


def stage_of(training: TrainingSettings) -> Stage:
    """pretrain, align or finetune: the kind of training, also the name of the folder that its runs are in."""
    if isinstance(training, FinetuneSettings):
        return "finetune"
    return "align" if isinstance(training, AlignSettings) else "pretrain"


def machine(device: torch.device) -> dict[str, Any]:
    """What a result was made on; a GPU by its name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "torch": torch.__version__,
    }


def commands(experiment: Experiment, words: Sequence[str]) -> list[str]:
    """One command for each cell that is left, for a SLURM array or any other queue.

    ``words`` are the arguments the user gave, without those that choose what is done with the plan.
    """
    left = [cell for cell in experiment.cells() if not cell.missing and not experiment.file(cell).exists()]
    return [shlex.join(["dapg", "reproduce", *words, "--cell", cell.name]) for cell in left]
