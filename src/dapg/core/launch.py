"""Carries a job to its end with one of the engines: starts workers, replaces those that died, shows progress."""

import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

from dapg.core import plugins
from dapg.core.engines.base import Engine, EngineSettings
from dapg.core.engines.local import visible_gpus
from dapg.core.errors import DapgError
from dapg.core.progress import Bar, progress_bar
from dapg.core.shards import Board, Job, Progress, work

_PAUSE = 0.5


class ShardsFailed(DapgError):
    """Some shards failed in all their attempts; the others are done."""

    def __init__(self, text: str, reasons: Mapping[str, str]) -> None:
        super().__init__(text)
        self.reasons = reasons


def launch(job: Job, settings: EngineSettings, bar: bool = True) -> int:
    """Return when every shard is done, here or by others: the same command may run on several machines at once.

    Returns:
        How many units were done before.

    Raises:
        ShardsFailed: names the shards that failed in all attempts, with reasons; the rest is done.
        DapgError: workers die before they finish anything.
    """
    job = replace(job, tries=settings.tries, stale=settings.stale)
    board = Board(job.folder, job.tries, job.stale)
    board.open(job)
    workers = settings.workers or len(visible_gpus()) or os.cpu_count() or 1
    begun = board.progress(job.about)
    with progress_bar(job.kind, job.unit, begun.size, begun.size_done, shown=bar) as shown:
        if settings.name == "local" and workers == 1:
            progress = _here(job, board, shown)
        else:
            kind = plugins.load("core.engines", settings.name, Engine)
            with closing(kind(job, settings, workers)) as engine:
                progress = _carried(job, board, engine, shown)
    board.tidy()
    if progress.failed:
        raise ShardsFailed(_failures(job, progress), progress.failed)
    return begun.size_done


def _here(job: Job, board: Board, shown: Bar) -> Progress:
    """In this process; shards that others have claimed are waited for, in case the others die."""
    while True:
        work(job, lambda shard: shown.update(job.shards[shard]))
        progress = board.progress(job.about)
        _update(shown, progress.size_done)
        if progress.finished:
            return progress
        time.sleep(_PAUSE)


def _carried(job: Job, board: Board, engine: Engine, shown: Bar) -> Progress:
    """By workers, so many at a time as there are shards left for them."""
    started = ended = 0
    while True:
        before = time.process_time()
        progress = board.progress(job.about)
        _update(shown, progress.size_done)
        if progress.finished:
            return progress
        if progress.done + len(progress.failed) > ended:
            started, ended = 0, progress.done + len(progress.failed)
        left = progress.shards - ended - len(progress.running)
        missing = min(engine.workers, len(progress.running) + left) - engine.alive()
        if left and missing > 0:
            started += missing
            if started > 10 + 3 * engine.workers:
                raise DapgError(f"{job.kind}: workers end before they finish a shard; see dapg jobs watch {job.folder}")
            engine.start(missing)
        time.sleep(max(_PAUSE, 10 * (time.process_time() - before)))  # millions of shards take a while to count


def _update(shown: Bar, size_done: int) -> None:
    shown.update(max(0, size_done - int(shown.n)))


def _failures(job: Job, progress: Progress) -> str:
    listed = [f"  {shard}: {reason}" for shard, reason in list(progress.failed.items())[:20]]
    more = len(progress.failed) - len(listed)
    return "\n".join([
        f"{len(progress.failed)} of {progress.shards} shards failed in {job.tries} attempts; the others are done. The "
        "same command tries them again. All reasons, with tracebacks, are in "
        f"{job.folder / '.shards' / 'claims'}:",
        *listed,
        *([f"  and {more} more"] if more > 0 else []),
    ])  # fmt: skip
