"""Checkpoints that survive a kill at any moment: a folder appears whole or not at all.

``checkpoints/step_00000100/`` holds ``method.safetensors`` (rank 0's weights and buffers, readable by anything),
``rank<r>.pt`` (each process's own state) and ``manifest.json``. It is written under a temporary name and renamed.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from dapg.core import distributed
from dapg.core.errors import DapgError, DataError, TrainingError
from dapg.core.files import full_disk, sha256, write_json
from dapg.core.ranges import Count, CountOrZero
from dapg.core.schema import checked, read_json, wall
from dapg.core.types import JsonObject

FOLDER = "checkpoints"
_PARTIAL, _MANIFEST = ".partial", "manifest.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    world_size: int
    score: float | None


class _Manifest(TypedDict):
    """What ``manifest.json`` says of the checkpoint beside it."""

    step: Count
    world_size: Count
    score: NotRequired[float | None]
    files: dict[str, CountOrZero]
    """Name -> bytes."""
    sha256: NotRequired[dict[str, str]]
    """Name -> hash; checkpoints of earlier versions have none."""


class _State(TypedDict):
    """What a process's own file holds beside the optimiser's state."""

    state: dict[str, object]
    buffers: NotRequired[dict[str, object]]


def whole_checkpoints(run: Path) -> list[Checkpoint]:
    """All checkpoints of a run that were written to the end and are as long as they were then, oldest first."""
    checkpoints = []
    for folder in _folders(run):
        with contextlib.suppress(DataError):
            facts = read_json(folder / _MANIFEST, _Manifest)
            sizes = facts["files"]
            if all(
                (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()
            ):
                score = facts.get("score")
                score = None if score is None else float(score)
                checkpoints.append(Checkpoint(folder, facts["step"], facts["world_size"], score))
    return checkpoints


def _folders(run: Path) -> list[Path]:
    return [folder for folder in sorted((run / FOLDER).glob("step_*")) if not folder.name.endswith(_PARTIAL)]


def newer(run: Path, step: int) -> list[Path]:
    """Folders of checkpoints after a step, whole or not."""
    return [folder for folder in _folders(run) if folder.name > f"step_{step:08d}"]


def save(
    run: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, object],
    score: float | None = None,
) -> Path:
    """Write the state of all processes; every process must call it.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        method: the unwrapped method.
        optimizer: its state is the same on all processes and is stored once.
        state: plain values and tensors of this process (mixed-precision scaler, counters).
        score: validation score, to know the best one.

    Raises:
        TrainingError: the disk is full or cannot be written, or a weight is not finite; earlier checkpoints are
            untouched.
    """
    final = run / FOLDER / f"step_{step:08d}"
    partial = final.with_name(final.name + _PARTIAL)
    rank, device = distributed.rank(), next(method.parameters()).device
    error: Exception | None = None

    def prepare() -> None:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def write() -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
        broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if broken:  # the gradients of a loss that is finite need not be
            raise TrainingError(f"not finite: {', '.join(broken[:3])}{', ...' if len(broken) > 3 else ''}")
        own: dict[str, object] = {"state": state, "threads": torch.get_num_threads()}
        if rank == 0:
            own["optimizer"] = optimizer.state_dict()
            save_file(tensors, partial / "method.safetensors")
        else:
            trained = {name for name, _ in method.named_parameters()}
            own["buffers"] = {name: tensor for name, tensor in tensors.items() if name not in trained}
        torch.save(own, partial / f"rank{rank}.pt")

    def publish() -> None:
        if rank == 0:
            _publish(partial, final, {"step": step, "world_size": distributed.world_size(), "score": score})

    for part in (prepare, write, publish):
        try:
            part()
        except (OSError, RuntimeError, SafetensorError, DapgError) as caught:  # torch's and safetensors' own words
            error = caught
        # Whoever fails asks all the same: processes that ask different questions would wait for each other for ever.
        if distributed.any_process(error is not None, device):
            if rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
            reason = f"{error}{full_disk(final, error)}" if error else "another process failed"
            remedy = ". Try a lower learning rate, clipping or fp32." if isinstance(error, TrainingError) else ""
            raise TrainingError(f"could not write checkpoint {final}: {reason}{last_good(run)}{remedy}") from error
    return final


def _publish(partial: Path, final: Path, facts: Mapping[str, object]) -> None:
    """Flush everything, then one rename makes the checkpoint exist."""
    files = sorted(path for path in partial.iterdir() if path.is_file())
    sizes, hashes = {path.name: path.stat().st_size for path in files}, {path.name: sha256(path) for path in files}
    write_json(partial / _MANIFEST, {**facts, "files": sizes, "sha256": hashes})
    for path in [*files, partial]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    shutil.rmtree(final, ignore_errors=True)  # of an earlier, longer try; its steps are being done again
    partial.rename(final)


def last_good(run: Path) -> str:
    """``"; last good checkpoint: ..."`` for error messages."""
    whole = whole_checkpoints(run)
    return f"; last good checkpoint: {whole[-1].folder}" if whole else "; there is no earlier checkpoint"


def restore(run: Path, device: torch.device, take: Callable[[Checkpoint], T]) -> T | None:
    """What ``take`` makes of the newest checkpoint that it can read; None where a run begins. Every process calls it.

    Newer checkpoints that cannot be used are named, once, and deleted: their steps are done again.

    Raises:
        DataError: there are checkpoints, and none can be read: to begin again unasked would lose them.
    """
    prune(run, keep_last=10**9, keep_best=True)
    distributed.barrier()
    failure: DapgError | None = None
    for candidate in reversed(whole_checkpoints(run)):
        try:
            taken = take(candidate)
        except DapgError as error:
            failure = error
        else:
            failure = None
        # Every process goes on from the same one.
        if not distributed.any_process(failure is not None, device):
            _tell_damaged(run, candidate.step)
            return taken
    if failure is not None or newer(run, step=0):
        raise DataError(
            f"no checkpoint below {run / FOLDER} can be read{f' ({failure})' if failure else ''}; "
            f"delete {run} to begin again"
        )
    return None


def _tell_damaged(run: Path, step: int) -> None:
    if distributed.rank() > 0:
        return
    for folder in newer(run, step):
        tqdm.write(f"warning: {folder} is damaged; going on from step {step}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)


def load(checkpoint: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> JsonObject:
    """Bring method and optimiser back to a checkpoint; returns this process's plain state.

    With another number of processes than at writing, every process takes rank 0's buffers: allowed, not bit-equal.

    Raises:
        DataError: a file is not what it was when the checkpoint was written.
    """
    rank, folder = distributed.rank(), checkpoint.folder
    same = checkpoint.world_size == distributed.world_size()
    mine = f"rank{rank if same else 0}.pt"
    _check_hashes(folder, {"method.safetensors", "rank0.pt", mine})
    with wall(f"checkpoint {folder}"):
        tensors = load_file(folder / "method.safetensors")
        shared = torch.load(folder / "rank0.pt", map_location="cpu", weights_only=True)
        own = shared if mine == "rank0.pt" else torch.load(folder / mine, map_location="cpu", weights_only=True)
        checked(own, _State, f"checkpoint {folder}")
        method.load_state_dict({**tensors, **own.get("buffers", {})})
        optimizer.load_state_dict(shared["optimizer"])
    return dict(own["state"])


def _check_hashes(folder: Path, names: set[str]) -> None:
    hashes = read_json(folder / _MANIFEST, _Manifest).get("sha256", {})
    for name in sorted(names & hashes.keys()):
        if sha256(folder / name) != hashes[name]:
            raise DataError(f"{folder / name} is not what was written there: its hash differs from the manifest's")


def load_best(run: Path, method: nn.Module) -> Checkpoint:
    """Bring a method to the best checkpoint by validation score, which ``prune`` keeps.

    Raises:
        DapgError: no checkpoint has a score, or the best one cannot be read.
    """
    scored = [checkpoint for checkpoint in whole_checkpoints(run) if checkpoint.score is not None]
    if not scored:
        raise DapgError(f"{run} has no checkpoint with a validation score")
    best = max(scored, key=lambda checkpoint: (checkpoint.score, checkpoint.step))
    with wall(f"the best checkpoint {best.folder}"):
        method.load_state_dict(load_file(best.folder / "method.safetensors"))
    return best


def prune(run: Path, keep_last: int, keep_best: bool) -> None:
    """Delete old checkpoints and half-written ones, save the last k and the best by validation score."""
    if distributed.rank() > 0:
        return
    for partial in (run / FOLDER).glob(f"*{_PARTIAL}"):
        shutil.rmtree(partial, ignore_errors=True)
    whole = whole_checkpoints(run)
    spared = set(whole[-max(keep_last, 1) :])
    scored = [checkpoint for checkpoint in whole if checkpoint.score is not None]
    if keep_best and scored:
        spared.add(max(scored, key=lambda checkpoint: (checkpoint.score, checkpoint.step)))
    for checkpoint in whole:
        if checkpoint not in spared:
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
