"""Run the cells of an experiment as shards that workers claim (``core/shards.py``): cached, restartable, on any engine.

A failing cell does not stop the others. Several commands may work on one experiment at once.
"""

import functools
import time
from collections.abc import Mapping
from pathlib import Path

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError
from dapg.core.launch import ShardsFailed, launch
from dapg.core.runtime import Cache
from dapg.core.shards import Job, RunShard, forget
from dapg.experiment.cell import run_cell
from dapg.experiment.plan import Experiment
from dapg.experiment.store import add_cell, read_cells
from dapg.training.loop import Terminated

ONCE = EngineSettings(tries=1)
"""A training that failed would fail again."""


def run(experiment: Experiment, engine: EngineSettings = ONCE) -> Mapping[str, str]:
    """Run what is left, cell by cell; a failing cell is noted and the others go on.

    The same command may run several times at once, on one machine or on several that share the folders: each takes the
    cells that no other works on. What is done is in the results, not in completions: a cell whose line was deleted
    there runs again.

    Returns:
        Name of each cell that failed -> why.

    Raises:
        DataError: the data of a cell cannot be read; nothing has been trained.
    """
    done = read_cells(experiment.folder)
    left = [cell for cell in experiment.cells() if not cell.missing and cell.name not in done]
    for reason in experiment.unreadable(left).values():
        raise DataError(reason)
    waiting = [cell.name for cell in left]
    for name in waiting:
        forget(experiment.queue, name)
    start = functools.partial(_start, experiment)
    sizes = dict.fromkeys(waiting, 1)
    job = Job("reproduce run", experiment.queue, sizes, "cell", start, one_thread=False, stop=(Terminated,))
    try:
        launch(job, engine, bar=False)
    except ShardsFailed as error:
        return error.reasons
    return {}


def _start(experiment: Experiment) -> RunShard:
    """Trains what a cell needs, scores it and stores its result; corrupted images are kept for the next cell."""
    cells = {cell.name: cell for cell in experiment.cells()}
    cache: Cache = {}

    def run_shard(name: str) -> list[Path]:
        if name not in read_cells(experiment.folder):
            print(f"{time.strftime('%H:%M')} {name}", flush=True)
            add_cell(experiment.folder, run_cell(experiment, cells[name], cache))
        return []

    return run_shard
