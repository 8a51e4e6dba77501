"""Processes that have torch and dapg imported before they start: forked from a server that never trains.

A fresh interpreter spends about four seconds of processor time on its imports, more than most tests on their work.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
# An optimiser's first step imports torch._dynamo, which takes as long as torch itself.
_SERVER.set_forkserver_preload(["torch._dynamo", "dapg.training.loop", "dapg.methods.pretraining.mocov2"])
_started: list["Started"] = []


@dataclass(frozen=True)
class Started:
    """A process, the leader of its own group."""

    process: ForkServerProcess
    log: Path
    """What it prints, errors too."""

    def send(self, number: signal.Signals, group: bool = False) -> None:
        """A signal to the process alone or to its group, which loader processes belong to."""
        assert self.process.pid is not None
        (os.killpg if group else os.kill)(self.process.pid, number)

    def hear(self, connection: Connection) -> object:
        """What the process sends, or an error with all that it printed when it ends first."""
        ready = wait([connection, self.process.sentinel])
        assert connection in ready, self.end()
        return connection.recv()

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit code (negative: the signal) and what was printed."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.log.read_text()

    def succeed(self) -> str:
        """Wait for the end, which must be a good one."""
        code, printed = self.end()
        assert code == 0, printed
        return printed


def start(
    function: Callable[..., object], *arguments: Any, log: Path, environment: Mapping[str, str] | None = None
) -> Started:
    """Call a function of an importable module in a process of its own."""
    process = _SERVER.Process(target=_child, args=(function, arguments, log, dict(environment or {})))
    process.start()
    started = Started(process, log)
    _started.append(started)
    return started


def start_ranks(function: Callable[..., object], *arguments: Any, folder: Path) -> list[Started]:
    """Call it in two processes of one process group (gloo)."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "store"
    store.unlink(missing_ok=True)
    # Accelerate asks for an address, which it does not use: the group is there before.
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    ranks = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [
        start(_as_rank, store, function, arguments, log=folder / f"rank{rank}.log", environment=names)
        for rank, names in enumerate(ranks)
    ]


def start_script(*words: str, folder: Path, log: Path) -> Started:
    """As ``python WORDS`` in a folder."""
    return start(_run_script, folder, words, log=log)


def _run_script(folder: Path, words: Sequence[str]) -> None:
    os.chdir(folder)
    sys.argv, sys.path[0] = list(words), str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def _child(function: Callable[..., object], arguments: tuple[Any, ...], log: Path, environment: dict[str, str]) -> None:
    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # for loader processes, as in a fresh interpreter on Linux
    with log.open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    os.environ.update(environment)
    code = function(*arguments)
    if isinstance(code, int) and code:
        sys.exit(code)


def _as_rank(store: Path, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()


@atexit.register
def _end_all() -> None:
    """After a failed test, or the interpreter would wait for its processes for ever."""
    for started in _started:
        if started.process.exitcode is None:
            with suppress(ProcessLookupError):
                started.send(signal.SIGKILL, group=True)
