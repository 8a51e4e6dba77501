"""Run the cells of an experiment: cached, restartable, on one machine, several devices or a cluster.

A failing cell does not stop the others. Several processes may work on one experiment at once.
"""

import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

from dapg.core.errors import BusyError, UsageError
from dapg.core.files import atomic_write_text, folder_lock
from dapg.core.runtime import Cache
from dapg.experiment.cell import run_cell
from dapg.experiment.matrix import Cell
from dapg.experiment.plan import Experiment, Say
from dapg.experiment.store import add_cell, read_cells
from dapg.train.loop import Terminated


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
    done = read_cells(experiment.folder)
    wanted = [_named(experiment, cell_name)] if cell_name else experiment.cells()
    waiting = [cell for cell in wanted if not cell.missing and cell.name not in done]
    failed: list[str] = []
    cache: Cache = {}
    while waiting:
        busy = [cell for cell in waiting if not _attempt(experiment, cell, cache, failed, say)]
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
    raise UsageError(f"no cell of these tables, scale and data is called {name!r}; dapg reproduce plan lists them")


def _attempt(experiment: Experiment, cell: Cell, cache: Cache, failed: list[str], say: Say) -> bool:
    """Run a cell unless it is done; False where another process works on it or on one of its trainings."""
    folder = experiment.runs / "cells" / cell.name
    try:
        with folder_lock(folder, patience=0.0):
            if cell.name not in read_cells(experiment.folder):
                say(f"{time.strftime('%H:%M')} {cell.name}")
                add_cell(experiment.folder, run_cell(experiment, cell, cache))
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
    return True


def run_on(words: Sequence[str], devices: Sequence[str], say: Say) -> bool:
    """One process for each device, each taking the cells that the others have not begun; whether all ended well."""
    processes = []
    for device in devices:
        command = [sys.executable, "-m", "dapg", "reproduce", "run", *words, "--device", device]
        say(shlex.join(command))
        processes.append(subprocess.Popen(command))
    try:
        codes = [process.wait() for process in processes]  # of all: the first failure does not end the others
    except KeyboardInterrupt:  # they got it too, and save their checkpoints
        for process in processes:
            process.wait()
        raise
    return not any(codes)
