"""Checkpoints that survive a kill at any moment: a folder appears whole or not at all.

``checkpoints/step_00000100/`` holds ``method.safetensors`` (rank 0's weights and buffers, readable by anything),
``rank<r>.pt`` (each process's own state) and ``manifest.json``. It is written under a temporary name and renamed.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dapg.core import distributed
from dapg.core.errors import DapgError, TrainingError
from dapg.core.files import read_json, write_json
from dapg.core.types import JsonObject

FOLDER = "checkpoints"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    world_size: int
    score: float | None


def whole_checkpoints(run: Path) -> list[Checkpoint]:
    """All checkpoints of a run that were written to the end, oldest first."""
    checkpoints = []
    for folder in sorted((run / FOLDER).glob("step_*")):
        manifest = folder / "manifest.json"
        if folder.name.endswith(_PARTIAL) or not manifest.exists():
            continue
        facts = read_json(manifest)
        sizes = facts["files"]
        if all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes.items()):
            checkpoints.append(Checkpoint(folder, facts["step"], facts["world_size"], facts.get("score")))
    return checkpoints


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
        TrainingError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    final = run / FOLDER / f"step_{step:08d}"
    partial = final.with_name(final.name + _PARTIAL)
    rank = distributed.rank()
    error: Exception | None = None
    try:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        distributed.barrier()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
        own: dict[str, object] = {"state": state, "threads": torch.get_num_threads()}
        if rank == 0:
            own["optimizer"] = optimizer.state_dict()
            save_file(tensors, partial / "method.safetensors")
        else:
            trained = {name for name, _ in method.named_parameters()}
            own["buffers"] = {name: tensor for name, tensor in tensors.items() if name not in trained}
        torch.save(own, partial / f"rank{rank}.pt")
    except (OSError, RuntimeError, SafetensorError) as caught:  # torch and safetensors have own words for a full disk
        error = caught
    device = next(method.parameters()).device
    failed = distributed.any_process(error is not None, device)  # also waits until all have written
    if not failed:
        try:
            if rank == 0:
                _publish(partial, final, {"step": step, "world_size": distributed.world_size(), "score": score})
        except (OSError, DapgError) as caught:
            error = caught
        failed = distributed.any_process(error is not None, device)
    if failed:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        reason = error or "another process failed"
        raise TrainingError(f"could not write checkpoint {final}: {reason}{last_good(run)}") from error
    return final


def _publish(partial: Path, final: Path, facts: Mapping[str, object]) -> None:
    """Flush everything, then one rename makes the checkpoint exist."""
    files = sorted(path for path in partial.iterdir() if path.is_file())
    write_json(partial / "manifest.json", {**facts, "files": {path.name: path.stat().st_size for path in files}})
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


def load(checkpoint: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> JsonObject:
    """Bring method and optimiser back to a checkpoint; returns this process's plain state.

    With another number of processes than at writing, every process takes rank 0's buffers: allowed, not bit-equal.

    Raises:
        DapgError: a file cannot be read although the manifest says it is whole.
    """
    rank = distributed.rank()
    try:
        tensors = load_file(checkpoint.folder / "method.safetensors")
        shared = torch.load(checkpoint.folder / "rank0.pt", map_location="cpu", weights_only=True)
        own = shared
        if rank > 0 and checkpoint.world_size == distributed.world_size():
            own = torch.load(checkpoint.folder / f"rank{rank}.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip and pickle each raise their own kind
        raise DapgError(
            f"checkpoint {checkpoint.folder} cannot be read ({error}); delete it to use an older one"
        ) from error
    method.load_state_dict({**tensors, **own.get("buffers", {})})
    optimizer.load_state_dict(shared["optimizer"])
    return dict(own["state"])


def load_best(run: Path, method: nn.Module) -> Checkpoint:
    """Bring a method to the best checkpoint by validation score, which ``prune`` keeps.

    Raises:
        DapgError: no checkpoint has a score, or the best one cannot be read.
    """
    scored = [checkpoint for checkpoint in whole_checkpoints(run) if checkpoint.score is not None]
    if not scored:
        raise DapgError(f"{run} has no checkpoint with a validation score")
    best = max(scored, key=lambda checkpoint: (checkpoint.score, checkpoint.step))
    try:
        method.load_state_dict(load_file(best.folder / "method.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DapgError(f"the best checkpoint {best.folder} cannot be read ({error})") from error
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
