"""Run the experiment matrix: cached, restartable, cell by cell, on one machine, several devices or a cluster.

A cell leaves one file, ``results/reproduce-<scale>/<cell>.json``: hashes of data and weights, names of its runs (which
end in a hash of their settings), scores, their sums by person (which intervals are made of), seconds and machine.
Tables are made from these files alone. Trainings stay in the folder of runs and are shared between cells.
"""

import fnmatch
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dapg import __version__
from dapg.core.device import resolve_device
from dapg.core.errors import BusyError, UsageError
from dapg.core.files import FolderLock, atomic_write_text, read_json, write_json
from dapg.core.metrics_log import loss_curve
from dapg.core.run_folder import RESULT, commit
from dapg.data.captions import CaptionSettings, captions
from dapg.data.manifest import MANIFEST
from dapg.data.picture_lines import write_lines
from dapg.data.source import DataConfig, open_dataset, select_records
from dapg.evaluation.corrupted_scores import Batches, CorruptionSettings, clean_and_corrupted
from dapg.experiment.estimates import Speeds, machine_words, seconds_of_a_step, seconds_of_scoring, speeds
from dapg.experiment.matrix import FILES, TABLES, Cell, Scale, Source, cells, poses, tables_of
from dapg.experiment.paper import SEARCHES
from dapg.features.encoders import build_encoder
from dapg.features.extract import CENTRED
from dapg.features.pseudo_persons import GroupSettings, group
from dapg.methods.runs import BackboneConfig
from dapg.pose.generate import generate
from dapg.scoring.bootstrap import person_scores
from dapg.train.align import AlignSettings, align
from dapg.train.finetune import FinetuneSettings, finetune
from dapg.train.loop import Terminated
from dapg.train.pretrain import PretrainSettings, pretrain
from dapg.train.run import TrainingSettings

CONDITIONS = ("clean", "all", "seen", "unseen")
"""Clean pictures; corrupted by any of 20 types, by one of the 15 that stage 1 may draw, by one of the other five."""
VISIBLE = "visible"
"""Mode of the embedded people in which visible cameras search each other."""
_BYTES = {"random": 25e6, "imagenet": 150e6}
"""Disk of a training's folder at ``tiny``, checkpoints included, by start."""
MOST_GROUPED = 100_000
"""Pictures whose features are clustered in memory; for more, tracks are needed."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """What to run, and where."""

    tables: tuple[str, ...] = TABLES
    """table1, table2, table3, fig1, beyond, finetuners, stage1 or stage2."""
    scale: Scale = "tiny"
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


# What would run


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
        per_step = seconds_of_a_step(measured, _kind(training), training.name, cell.arm, cell.start)
        seconds.append(None if per_step is None else per_step * _steps(training))
        size += _BYTES[cell.start] if experiment.scale == "tiny" else 1e9
        parts.append(f"{_kind(training)} {training.name}")
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


# Running


def run(experiment: Experiment, say: Say, cell_name: str = "") -> list[str]:
    """Run what is left, cell by cell; a failing cell is noted and the others go on. Returns the names that failed.

    The same command may run several times at once, on one machine or on several that share the folders: each takes the
    cells that no other works on.

    Args:
        experiment: what to run.
        say: takes a line of progress.
        cell_name: run this cell only; empty: all.

    Raises:
        UsageError: no such cell, or one that cannot run.
    """
    waiting = [cell for cell in experiment.cells() if not cell.missing]
    if cell_name:
        waiting = [_named(experiment, cell_name)]
    failed: list[str] = []
    kept: Batches = {}
    while waiting:
        busy = [cell for cell in waiting if not _attempt(experiment, cell, kept, failed, say)]
        if len(busy) == len(waiting):
            time.sleep(5)
        waiting = busy
    return failed


def _named(experiment: Experiment, name: str) -> Cell:
    for cell in experiment.cells():
        if cell.name == name:
            if cell.missing:
                raise UsageError(f"{name} cannot run: {cell.missing}")
            return cell
    raise UsageError(f"no cell of these tables, scale and data is called {name!r}; --dry-run lists them")


def _attempt(experiment: Experiment, cell: Cell, kept: Batches, failed: list[str], say: Say) -> bool:
    """Run a cell unless it is done; False where another process works on it or on one of its trainings."""
    folder = experiment.runs / "cells" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, patience=0.0)
    try:
        lock.acquire()
    except BusyError:
        return False
    try:
        if not experiment.file(cell).exists():
            say(f"{time.strftime('%H:%M')} {cell.name}")
            experiment.folder.mkdir(parents=True, exist_ok=True)
            write_json(experiment.file(cell), run_cell(experiment, cell, kept))
            experiment.failure(cell).unlink(missing_ok=True)
    except BusyError:
        return False
    except Terminated:
        raise
    except Exception as error:  # one bad cell must not cost the others
        failed.append(cell.name)
        experiment.failure(cell).parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(experiment.failure(cell), traceback.format_exc())
        say(f"failed: {cell.name}: {error} (all of it: {experiment.failure(cell)})")
    finally:
        lock.release()
    return True


def run_cell(experiment: Experiment, cell: Cell, kept: Batches) -> dict[str, Any]:
    """Train what is not trained yet, score, and say how; ``kept`` holds corrupted test pictures between cells.

    Raises:
        DapgError: whatever a training or the scoring refuses.
    """
    trained: list[tuple[TrainingSettings, dict[str, Any]]] = []
    for training in cell.chain:
        settings = replace(training, device=experiment.device)
        trained.append((settings, _train(settings)))
    started, pictures_kept = time.monotonic(), bool(kept)
    scores, sums, feature = _score(experiment, cell, kept)
    return {
        "cell": {name: getattr(cell, name) for name in ("arm", "finetuning", "data", "start", "seed")},
        "tables": tables_of(cell),
        "scale": experiment.scale,
        "repeats": experiment.repeats,
        "trainings": [_described(settings, result) for settings, result in trained],
        "feature": feature,
        "scores": scores,
        "persons": sums,
        "scoring_seconds": round(time.monotonic() - started, 1),
        "pictures_kept": pictures_kept,
        "version": __version__,
        "commit": commit(),
        "machine": machine(resolve_device(experiment.device)),
    }


def _train(settings: TrainingSettings) -> dict[str, Any]:
    """Run one training of a chain, with what it needs."""
    match settings:
        case FinetuneSettings():
            return finetune(settings)
        case AlignSettings():
            if settings.generated and not (Path(settings.generated) / MANIFEST).exists():
                _generate(settings)
            return align(settings)
        case PretrainSettings():
            make_files(settings, settings.device)
            return pretrain(settings)
    raise TypeError(type(settings).__name__)


def make_files(settings: PretrainSettings, device: str) -> None:
    """Write what a pre-training learns from beside the pictures, where it is not there yet.

    Pseudo-persons are clusters of colours, six pictures each on average; captions say what rendered people wear.

    Raises:
        UsageError: too many pictures for clusters, or nobody knows what they show; says which file to put there.
    """
    for name in FILES:
        place = getattr(settings.method, name, "")
        if not place or Path(place).exists():
            continue
        pictures = len(select_records(open_dataset(settings.data), settings.data, settings.seed))
        if name == "captions" and settings.data.name == "synthetic":
            write_lines(Path(place), captions(CaptionSettings(settings.data)))
        elif name == "groups" and pictures <= MOST_GROUPED:
            write_lines(Path(place), group(GroupSettings(settings.data, groups=max(2, pictures // 6), device=device)))
        else:
            raise UsageError(
                f"{settings.name} learns from {name}, which for {pictures} pictures of {settings.data.name} must come "
                f"from elsewhere: put them into {place}, a line a picture: path, tab, and what is said of it"
            )


def _generate(settings: AlignSettings) -> None:
    """Make the pictures that every seed and arm aligns with.

    Raises:
        BusyError: another process makes them.
    """
    folder = Path(settings.generated).parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, patience=0.0)
    lock.acquire()
    try:
        generate(settings.data, replace(poses(settings), device=settings.device))
    finally:
        lock.release()


def machine(device: torch.device) -> dict[str, Any]:
    """What a result was made on; a GPU by its name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "torch": torch.__version__,
    }


def _described(settings: TrainingSettings, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": _kind(settings),
        "method": settings.name,
        "run": Path(settings.out).name,
        "weights": result["weights"],
        "data": result["data"],
        "steps": result["steps"],
        "pictures_seen": result["pictures_seen"],
        "seconds": round(result["seconds"], 1),
        "logs": result["logs"],
        "curve": loss_curve(Path(settings.out)),
        **{key: result[key] for key in ("positives", "generator", "companions") if key in result},
    }


def _score(
    experiment: Experiment, cell: Cell, kept: Batches
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]], str]:
    """Scores in every published mode and condition, their sums by person, and the name of the headline feature.

    Where the data set has a visible mode, within the visible cameras too, by the fine-tuned network and by the one that
    fine-tuning started from (``frozen``), both raw and centred per camera.
    """
    last = cell.chain[-1]
    dataset = open_dataset(DataConfig(last.data.name, last.data.root))
    device = resolve_device(experiment.device)
    settings = CorruptionSettings(types=("all",), repeats=experiment.repeats, detail="lists")
    within = [VISIBLE] if VISIBLE in dataset.modes else []
    tuned = build_encoder(last.out, last.backbone, (0, 0), 0, device)
    first = replace(last.backbone, last_stride=BackboneConfig.last_stride)
    size = (last.loader.height, last.loader.width)
    frozen = build_encoder(first.init, first, size, last.seed, device) if within else tuned
    modes = [mode for mode in dataset.modes if mode in SEARCHES]
    scores: dict[str, dict[str, float]] = {}
    sums: dict[str, dict[str, Any]] = {}
    for prefix, encoder, asked in (("", tuned, [*modes, *within]), ("frozen ", frozen, within)):
        found = clean_and_corrupted(encoder, dataset, asked, settings, kept=kept, show_progress=True) if asked else {}
        for mode, by_condition in found.items():
            centred = [(f"{mode} centred", encoder.headline + CENTRED)] if mode in within else []
            for name, feature in [(mode, encoder.headline), *centred]:
                for condition in CONDITIONS:
                    key, each = f"{prefix}{name}/{condition}", by_condition[condition]
                    one = person_scores(each.pooled(feature))
                    scores[key] = each.means(feature)
                    sums[key] = {"persons": list(one.persons), "sums": one.sums.round(4).tolist()}
    return scores, sums, tuned.headline


def _kind(training: TrainingSettings) -> str:
    if isinstance(training, FinetuneSettings):
        return "finetune"
    return "align" if isinstance(training, AlignSettings) else "pretrain"


# Several devices, clusters


def commands(experiment: Experiment, words: Sequence[str]) -> list[str]:
    """One command for each cell that is left, for a SLURM array or any other queue.

    ``words`` are the arguments the user gave, without those that choose what is done with the plan.
    """
    left = [cell for cell in experiment.cells() if not cell.missing and not experiment.file(cell).exists()]
    return [shlex.join(["dapg", "reproduce", *words, "--cell", cell.name]) for cell in left]


def run_on(words: Sequence[str], devices: Sequence[str], say: Say) -> bool:
    """One process for each device, each taking the cells that the others have not begun; whether all ended well."""
    processes = []
    for device in devices:
        command = [sys.executable, "-m", "dapg", "reproduce", *words, "--device", device]
        say(shlex.join(command))
        processes.append(subprocess.Popen(command))
    codes = [process.wait() for process in processes]
    return not any(codes)
