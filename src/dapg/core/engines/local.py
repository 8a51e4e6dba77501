"""Processes of this machine, one thread each, that end with the process that started them."""

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from dapg.core.engines.base import Engine, EngineSettings
from dapg.core.errors import DapgError
from dapg.core.shards import Job, work


class Local(Engine):
    """They are forked from a server that has imported what the job needs and never runs it: a start takes no time."""

    def __init__(self, job: Job, settings: EngineSettings, workers: int) -> None:
        super().__init__(job, settings, workers)
        self._context = multiprocessing.get_context("forkserver")
        function = getattr(job.start, "func", job.start)
        self._context.set_forkserver_preload([function.__module__])
        self._hear, self._held = multiprocessing.Pipe(duplex=False)  # the other end goes when this process does
        self._gpus = visible_gpus()
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._processes: dict[int, BaseProcess] = {}

    def start(self, count: int) -> None:
        """In free places; the worker in place k uses GPU k, and from the beginning again where there are fewer."""
        free = [place for place in range(self.workers) if place not in self._processes]
        for place in free[:count]:
            gpu = self._gpus[place % len(self._gpus)] if self._gpus else ""
            process = self._context.Process(target=_work, args=(self.job, gpu, self._threads, self._hear))
            process.start()
            self._processes[place] = process

    def alive(self) -> int:
        """Those that have not ended."""
        self._processes = {place: process for place, process in self._processes.items() if process.exitcode is None}
        return len(self._processes)

    def close(self) -> None:
        """SIGTERM, which a training answers with a checkpoint."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join()


def _work(job: Job, gpu: str, threads: int, launcher: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the launcher, which ends its workers
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if not job.one_thread:
        import torch

        torch.set_num_threads(threads)
    with contextlib.suppress(DapgError):  # noted in the claim
        work(job, parent=launcher)


def visible_gpus() -> list[str]:
    """Names that CUDA_VISIBLE_DEVICES takes for the GPUs of this process."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
