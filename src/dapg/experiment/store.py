"""Results of finished cells as files for git: a line of text per cell, and the sums by test person that intervals need.

``cells.jsonl`` has one compact line per cell, sorted by name; ``persons/<cell>.npz`` holds the cell's array, so that
two branches that ran different cells touch different files, and a new cell does not rewrite the others' bytes.
Several processes may add cells at once: each line is added under a lock, and every file is replaced as a whole.
"""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapg.core.errors import DapgError, DataError, UsageError
from dapg.core.files import atomic_path, atomic_write_text, folder_lock
from dapg.core.schema import Array, checked, parse_json, read_arrays
from dapg.experiment.matrix import FINETUNERS, PERSONS_DRAWN, Cell, Group
from dapg.scoring.bootstrap import PersonScores

CELLS, PERSONS = "cells.jsonl", "persons"
LOCK_PATIENCE = 600.0
"""Seconds to wait for others that write into the results; they need moments only."""
CONDITIONS = ("clean", "all", "seen", "unseen")
"""Clean images; corrupted by any of 20 types, by one of the 15 that stage 1 may draw, by one of the other five."""
MIXTURE_CONDITIONS = ("clean", "all")
"""Without the lists apart: of other test persons nothing else is scored, and of searches within the visible cameras
only their sums by person are kept."""
_MEASURES = (0, 1, 3)
"""Columns of the sums that are kept: rank-1, mAP and the number of queries; no table has an interval of mINP."""
_UNIT = 1e-3
"""Sums by person are kept in thousandths: finer than any figure that is made of them."""


_REMEDY = "run its cell again, or delete its line"
_SUMS = {
    "scores": Array("U", (None,)),
    "persons": Array("iu", (None,)),
    "sums": Array("u", (len(_MEASURES), None, None)),
}


@dataclass(frozen=True)
class Machine:
    """What a result was made on."""

    device: str
    """cpu, or a GPU by its name."""
    cores: int
    threads: int
    platform: str
    torch: str

    @property
    def kind(self) -> str:
        """In words; machines of one kind take about the same time."""
        cores = f"{self.cores} cores, " if self.device == "cpu" else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device} ({cores}{threads}, torch {self.torch})"


def this_machine(device: torch.device) -> Machine:
    """The machine that we run on, working on a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Machine(name, os.cpu_count() or 1, torch.get_num_threads(), platform.platform(), torch.__version__)


@dataclass(frozen=True)
class TrainingResult:
    """One training of a cell's chain."""

    stage: str
    """pretrain, align or finetune."""
    method: str
    run: str
    """Name of its folder, which ends in the hash of its settings."""
    weights: dict[str, str]
    """File -> SHA-256."""
    data: dict[str, str | int | None]
    """Number of images, hash of their list, and the version of an embedded set."""
    steps: int
    pictures_seen: int
    seconds: float
    logs: dict[str, float]
    """Last logged values."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) at no more than 40 places."""
    alignment: dict[str, object] = field(default_factory=dict)
    """Of an alignment: which positives, from which generator, for how many images."""
    precision: str = "fp32"
    """fp32, bf16 or fp16; cells stored before it was noted are of scales that train in fp32."""


@dataclass(frozen=True)
class CellResult:
    """A finished cell: how it came about, what it scored, what it took."""

    arm: str
    finetuning: str
    data: str
    start: str
    seed: int
    scale: str
    repeats: int
    """Corrupted test sets of each kind."""
    draws: int
    """Version of the draws of corruptions (``corruptions/library.py``), in training and in test images."""
    corruptions: str
    """Name and hash of the list of corrupted test images; empty: stored before lists had hashes."""
    feature: str
    """The reported feature."""
    scores: dict[str, dict[str, float]]
    """mode/condition -> measure -> fraction."""
    trainings: tuple[TrainingResult, ...]
    scoring_seconds: float
    pictures_kept: bool | None
    """Whether the corrupted images were in memory already; None: not noted."""
    machine: Machine
    version: str
    commit: str | None
    tested: str = ""
    """Version of the data set whose test persons were scored; empty: the one that was fine-tuned on."""
    registration: str = ""
    """Hash of the registration that was in force when the cell ran (``registration.py``); empty: none."""
    persons: dict[str, PersonScores] = field(default_factory=dict, compare=False)
    """mode/condition -> sums by test person; empty where they were not read."""

    @property
    def cell(self) -> Cell:
        """Its place in the matrix, without the chain of trainings."""
        return Cell(self.arm, self.finetuning, self.data, self.start, self.seed)

    @property
    def group(self) -> Group:
        """What it has in common with the cells that it is compared with."""
        return self.cell.group

    @property
    def training_seconds(self) -> float:
        """What its trainings took, those that it shares with other cells included."""
        return sum(training.seconds for training in self.trainings)

    @property
    def learnt(self) -> str:
        """Hash of the list of images that it was fine-tuned on."""
        return str(self.trainings[-1].data.get("hash"))

    @property
    def few(self) -> bool:
        """Whether it was fine-tuned on persons that its seed drew."""
        return PERSONS_DRAWN in FINETUNERS.get(self.finetuning, ("", {}))[1]

    @property
    def tests(self) -> str:
        """How the images that it was tested on were corrupted."""
        corrupted = f"{self.corruptions or 'no list'}, draws version {self.draws}, {self.repeats} repeats"
        tested = f", tested on {self.tested}" if self.tested else ""
        return f"{tested}, corrupted by {corrupted}"

    def unchanged(self, cell: Cell) -> bool:
        """Whether it was trained by the settings of a cell of now: the name of a run ends in their hash."""
        return [Path(training.out).name for training in cell.chain] == [training.run for training in self.trainings]


Stored = Mapping[str, CellResult]
"""Results by the name of their cell."""


def read_cells(folder: Path, with_persons: bool = False) -> dict[str, CellResult]:
    """All stored cells by name, in the order of names; none where there is no such folder.

    Raises:
        DapgError: a line cannot be read, a cell has two different lines, or its array is missing.
    """
    lines: dict[str, tuple[int, CellResult]] = {}
    for number, text in _lines(folder / CELLS):
        try:
            result = _from_line(text)
        except DataError as error:
            raise DapgError(f"{folder / CELLS}, line {number}: not a cell of this version of dapg: {error}") from error
        name = result.cell.name
        first, other = lines.setdefault(name, (number, result))
        if other != result:  # two branches that ran the same cell were merged
            raise DapgError(f"{folder / CELLS}: lines {first} and {number} are different results of {name}; delete one")
    stored = {name: result for name, (_, result) in sorted(lines.items())}
    if with_persons:
        return {name: replace(result, persons=_read_persons(folder, name)) for name, result in stored.items()}
    return stored


def add_cell(folder: Path, result: CellResult) -> None:
    """Store a cell in the place of its earlier result, if there is one.

    Killed at any moment, the cell is stored or it is not. Other processes may do the same at the same time.

    Raises:
        DapgError: the files cannot be written or, those that are there, read.
    """
    with folder_lock(folder, patience=LOCK_PATIENCE):
        stored = read_cells(folder) | {result.cell.name: result}
        _write_persons(folder, result)  # first: an array without a line harms nobody
        atomic_write_text(folder / CELLS, "".join(_to_line(stored[name]) for name in sorted(stored)))


def refuse_mixed(stored: Stored) -> None:
    """Refuse to show cells side by side that differ in images (to test or learn from) or in numerical precision.

    Raises:
        UsageError: says how many cells have which images, or which training has which precisions.
    """
    for data in sorted({result.data for result in stored.values()}):
        results = [result for result in stored.values() if result.data == data]
        whole = next((result.learnt for result in results if not result.few), "drawn")
        kinds = Counter(f"data {whole if result.few else result.learnt}{result.tests}" for result in results)
        by_draw: dict[tuple[str, int], set[str]] = {}
        for result in results:
            if result.few:
                by_draw.setdefault((result.finetuning, result.seed), set()).add(result.learnt)
        kinds.update(f"data {name}" for drawn in by_draw.values() if len(drawn) > 1 for name in sorted(drawn))
        if len(kinds) > 1:
            listed = "; ".join(f"{kind} ({number} cells)" for kind, number in sorted(kinds.items()))
            raise UsageError(
                f"the stored cells of {data} are about different images: {listed}. Their scores cannot be compared: "
                f"delete the lines of one kind from {CELLS}, then run those cells again"
            )
    precisions: dict[tuple[str, ...], set[str]] = {}
    for result in stored.values():
        for training in result.trainings:
            precisions.setdefault((*result.group, training.stage), set()).add(training.precision)
    for (data, start, finetuning, stage), values in sorted(precisions.items()):
        if len(values) > 1:
            raise UsageError(
                f"the stored cells of {finetuning} on {data} from {start} mix precisions in {stage}: "
                f"{', '.join(sorted(values))}. Delete the lines of one from {CELLS}, then run those cells again"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers; none where there is no file."""
    if path.exists():
        for number, text in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
            if text.strip():
                yield number, text


def _to_line(result: CellResult) -> str:
    values = asdict(replace(result, persons={}))
    del values["persons"]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def _from_line(text: str) -> CellResult:
    values = checked(parse_json(text, "the line", _REMEDY), dict[str, Any], "the line", _REMEDY)
    checked(values, CellResult, "the line", _REMEDY)
    trainings = tuple(
        TrainingResult(**{**training, "curve": [(step, float(loss)) for step, loss in training.get("curve", ())]})
        for training in values.pop("trainings")
    )
    return CellResult(**{**values, "machine": Machine(**values["machine"])}, trainings=trainings)


# Sums by person


def _file(folder: Path, name: str) -> Path:
    return folder / PERSONS / f"{name}.npz"


def _write_persons(folder: Path, result: CellResult) -> None:
    """One array (measures, scores, persons); a person without a valid query in a score has zeros there.

    mINP comes back as NaN.
    """
    names = sorted(result.persons)
    everyone = sorted({person for scores in result.persons.values() for person in scores.persons})
    sums = np.zeros((len(_MEASURES), len(names), len(everyone)))
    for number, name in enumerate(names):
        scores = result.persons[name]
        sums[:, number, np.searchsorted(everyone, scores.persons)] = scores.sums.T[list(_MEASURES)]
    whole = np.rint(sums / _UNIT)
    arrays = {
        "scores": np.array(names),
        "persons": np.array(everyone, dtype=np.int64),
        "sums": whole.astype(np.min_scalar_type(int(whole.max(initial=0)))),
    }
    with atomic_path(_file(folder, result.cell.name)) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def _read_persons(folder: Path, name: str) -> dict[str, PersonScores]:
    path = _file(folder, name)
    arrays = read_arrays(path, _SUMS, _REMEDY)
    names, persons, sums = arrays["scores"].tolist(), arrays["persons"], arrays["sums"] * _UNIT
    if sums.shape[1:] != (len(names), len(persons)):
        raise DapgError(f"{path}: the sums by person of {name} contradict themselves; {_REMEDY}")
    scores = {}
    for number, score in enumerate(names):
        tested = sums[-1, number] > 0
        columns = np.full((int(tested.sum()), 4), np.nan)
        columns[:, _MEASURES] = sums[:, number, tested].T
        scores[score] = PersonScores(tuple(persons[tested].tolist()), columns)
    return scores
