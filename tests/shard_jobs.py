"""Jobs for tests of shards and engines, of an importable module: workers are other processes."""

import functools
import hashlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from dapg.core.engines.base import EngineSettings
from dapg.core.files import atomic_write_bytes, atomic_write_text
from dapg.core.launch import launch
from dapg.core.shards import Job, RunShard, chunks


def digest_job(folder: Path, shards: int = 6, seconds: float = 0.0, trap: str = "") -> Job:
    """Each shard of 10 numbers becomes a file of 4 kB; ``trap`` names a shard that misbehaves (``start_digests``)."""
    return Job(
        "test digests", folder, chunks(10 * shards, 10), "number", functools.partial(start, folder, seconds, trap)
    )


def start(folder: Path, seconds: float, trap: str) -> RunShard:
    """Notes each start of a worker and of a shard; the file follows from the shard's name alone."""
    note(folder / "starts", "started")

    def run_shard(shard: str) -> Iterable[Path]:
        note(folder / "runs", shard)
        kind, _, name = trap.partition(" ")
        first = (folder / "runs").read_text().split().count(shard) == 1
        if name == shard and kind == "raises":
            raise ValueError(f"no numbers in {shard}")
        if name == shard and kind == "raises-once" and first:
            raise ValueError("a hiccup")
        if name == shard and (kind == "dies" or (kind == "dies-once" and first)):
            os.kill(os.getpid(), signal.SIGKILL)
        burn(seconds)
        path = folder / f"{shard}.bin"
        atomic_write_bytes(path, b"".join(hashlib.sha256(f"{shard} {row}".encode()).digest() for row in range(128)))
        return [path]

    return run_shard


def note(path: Path, word: str) -> None:
    """One line, whole also with several writers."""
    with path.open("a") as log:
        log.write(f"{word}\n")


def burn(seconds: float) -> None:
    """Use so much processor time."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        hashlib.sha256(bytes(10_000)).digest()


def merge(folder: Path, shards: Iterable[str]) -> bytes:
    """The outputs in order."""
    return b"".join((folder / f"{shard}.bin").read_bytes() for shard in shards)


def launch_and_merge(folder: Path, shards: int, seconds: float, settings: EngineSettings) -> None:
    """What a command does."""
    job = digest_job(folder, shards, seconds)
    launch(job, settings, bar=False)
    atomic_write_text(folder / "merged", hashlib.sha256(merge(folder, job.shards)).hexdigest())
