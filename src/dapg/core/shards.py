"""Long work in shards that workers claim: killed, shared or done by one worker, its files are the same byte for byte.

A job is a list of shards and a pure function of one shard, which writes whole files and returns their paths. What the
workers know of each other is in ``.shards`` below the job's folder, which all of them see:

    job.json          what is to be done
    done/SHARD.json   the shard's files with their sizes, written last; a finished shard is not run again
    claims/SHARD.N    attempt N: while it runs, touched by the heartbeat of its worker; a failed one holds the reason
    pieces/           what shards leave for the merge

Only one process can create a claim. A claim whose process is gone, or whose heartbeat has stopped, is lost, and the
next worker makes attempt N + 1. Should the first worker be alive after all, both write the same bytes. After
img2dataset and datatrove, which deal shards out instead of claiming them.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from dapg.core.errors import BusyError, DapgError
from dapg.core.files import atomic_write_text, own_name, remove_leftovers, remove_leftovers_of, write_failure
from dapg.core.schema import read_json
from dapg.core.types import JsonObject

STATE, JOB = ".shards", "job.json"
MOST_LOSSES = 10
"""A shard during which so many workers died is given up: it probably kills them, for instance by its memory."""
_BUSY_PAUSE = 5.0

RunShard = Callable[[str], Iterable[Path]]
"""Runs one shard and returns the files that must be there for it to count as finished."""


@dataclass(frozen=True)
class Job:
    """What is to be done. It travels to the workers by pickle, so ``start`` is a ``partial`` of a module's function."""

    kind: str
    """The command, such as ``data crop``."""
    folder: Path
    """Seen by all workers."""
    shards: Mapping[str, int]
    """Name -> size in units, in the order in which they are claimed."""
    unit: str
    """What sizes count: ``picture``."""
    start: Callable[[], RunShard]
    """Called once in a worker, when it has its first shard: loads the model."""
    one_thread: bool = True
    """How work is split over threads decides over last bits, so it is not split. False: as many as there are."""
    stop: tuple[type[Exception], ...] = ()
    """Errors that end the worker and are no failure of the shard."""
    tries: int = 3
    """Attempts that may fail before a shard is listed as failed."""
    stale: float = 120.0
    """Seconds without heartbeat after which a claim is lost, gone process or not; network disks show times late."""

    @property
    def about(self) -> JsonObject:
        """What its progress is counted from. Several jobs may share a folder, of which ``job.json`` tells the last."""
        return {"kind": self.kind, "unit": self.unit, "shards": dict(self.shards)}


@dataclass(frozen=True)
class Attempt:
    """A claim as it is on the disk."""

    path: Path
    shard: str = ""
    host: str = ""
    pid: int = 0
    since: float = 0.0
    """When it began, by the clock of its worker."""
    reason: str = ""
    """Why it failed, in one line; empty while it runs, or when it was lost."""
    traceback: str = ""

    @property
    def number(self) -> int:
        """Counted from 0."""
        return int(self.path.suffix[1:])


@dataclass(frozen=True)
class Running:
    """A shard in some worker's hands."""

    shard: str
    worker: str
    seconds: float
    """Since the claim."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    kind: str
    unit: str
    shards: int
    done: int
    running: tuple[Running, ...]
    failed: Mapping[str, str]
    """Shard -> the last line of the reason."""
    size: int
    """Units in all shards, and in those that are done."""
    size_done: int
    rate: float
    """Units per second lately; 0 while nothing runs."""
    eta: float | None
    """Seconds until everything is done; None where the rate is 0."""

    @property
    def finished(self) -> bool:
        """Nothing is left to run: every shard is done, or failed."""
        return self.done + len(self.failed) == self.shards


def piece(folder: Path, shard: str, suffix: str) -> Path:
    """Where a shard leaves what the merge needs."""
    return folder / STATE / "pieces" / f"{_key(shard)}{suffix}"


def chunks(items: int, size: int) -> dict[str, int]:
    """Shards of ``items`` things in a row, ``size`` in each and fewer in the last: ``000000``, ``000001``, ..."""
    return {f"{number:06d}": min(size, items - start) for number, start in enumerate(range(0, items, size))}


def chunk(shard: str, size: int) -> slice:
    """The things of one of those shards."""
    return slice(int(shard) * size, (int(shard) + 1) * size)


def forget(folder: Path, shard: str) -> None:
    """The shard is to be run again, even where it is finished."""
    (folder / STATE / "done" / f"{_key(shard)}.json").unlink(missing_ok=True)


class Board:
    """The files in ``.shards``: who works on what, and what is done."""

    def __init__(self, folder: Path, tries: int, stale: float) -> None:
        self.folder, self.tries, self.stale = folder, tries, stale
        self._claims, self._done = folder / STATE / "claims", folder / STATE / "done"

    def open(self, job: Job) -> None:
        """Write down what is to be done. Shards that failed get new tries; shards whose files are gone are redone."""
        for place in (self._claims, self._done):
            place.mkdir(parents=True, exist_ok=True)
        about = {"tries": job.tries, "stale": job.stale, **job.about}
        atomic_write_text(self.folder / STATE / JOB, json.dumps(about))
        for shard in job.shards:
            if self.is_done(shard) and not self._whole(shard):
                forget(self.folder, shard)
        for attempts in self._by_shard().values():
            if self._gave_up(attempts):
                for attempt in reversed(attempts):  # so that no number is missing in between
                    attempt.path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed writers left here, unless a worker of another job is still writing."""
        if any(self._is_running(attempts[-1]) for attempts in self._by_shard().values()):
            return
        for place in (self.folder / STATE, self._claims, self._done):
            remove_leftovers(place)
        for probe in (self.folder / STATE).glob(".clock.*"):
            probe.unlink(missing_ok=True)

    def is_done(self, shard: str) -> bool:
        """Whether the shard is finished."""
        return self._completion(shard).exists()

    def claim(self, shard: str) -> Path | None:
        """The file of a new attempt; None where the shard is done, given up, or in another worker's hands."""
        attempts = self._attempts(shard)
        if attempts and (self._is_running(attempts[-1]) or self._gave_up(attempts)):
            return None
        path = self._claims / f"{_key(shard)}.{attempts[-1].number + 1 if attempts else 0}"
        try:
            with path.open("x", encoding="utf-8") as handle:
                json.dump({"shard": shard, "host": _host(), "pid": os.getpid(), "since": time.time()}, handle)
        except FileExistsError:  # another worker was faster
            return None
        except OSError as error:  # which names no file where the disk is full
            path.unlink(missing_ok=True)  # an empty claim would hold others up until it is stale
            raise write_failure(path, error) from error
        if self.is_done(shard):  # finished since we looked: the completion is written before the claim goes
            path.unlink(missing_ok=True)
            return None
        return path

    def finish(self, shard: str, claim: Path, files: Iterable[Path], seconds: float) -> None:
        """Write the completion, and let the claim go."""
        files, number = list(files), int(claim.suffix[1:])
        if number:  # somebody was killed at it before
            remove_leftovers_of(files)
        sizes = {os.path.relpath(file, self.folder): file.stat().st_size for file in files}
        values = {"shard": shard, "files": sizes, "seconds": round(seconds, 3), "worker": f"{_host()} {os.getpid()}"}
        atomic_write_text(self._completion(shard), json.dumps(values))
        for attempt in range(number, -1, -1):
            claim.with_suffix(f".{attempt}").unlink(missing_ok=True)

    def fail(self, shard: str, claim: Path, error: Exception) -> None:
        """Turn the claim into the record of a failure."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        text = "".join(traceback.format_exception(error))
        values = {"shard": shard, "host": _host(), "pid": os.getpid(), "reason": reason, "traceback": text}
        atomic_write_text(claim, json.dumps(values))

    def progress(self, about: JsonObject) -> Progress:
        """How far a job is: what ``Job.about`` or ``job.json`` says of it."""
        sizes: dict[str, int] = about["shards"]
        names = {_key(shard): shard for shard in sizes}
        with os.scandir(self._done) as entries:
            ended = {
                name: entry.stat().st_mtime for entry in entries if (name := entry.name.removesuffix(".json")) in names
            }
        running, failed = list[Running](), dict[str, str]()
        for key, attempts in self._by_shard().items():
            if key not in names or key in ended:
                continue
            if self._gave_up(attempts):
                failed[names[key]] = attempts[-1].reason or f"its worker died {len(attempts)} times"
            elif self._is_running(last := attempts[-1]):
                worker = f"{last.host.partition(' ')[0]}:{last.pid}"
                running.append(Running(names[key], worker, max(0.0, time.time() - last.since)))
        rate = self._rate([(moment, sizes[names[key]]) for key, moment in ended.items()]) if running else 0.0
        size, size_done = sum(sizes.values()), sum(sizes[names[key]] for key in ended)
        left = size - size_done - sum(sizes[shard] for shard in failed)
        eta = left / rate if rate else None
        running.sort(key=lambda claim: claim.shard)
        return Progress(
            about["kind"], about["unit"], len(names), len(ended), tuple(running), failed, size, size_done, rate, eta
        )

    def _completion(self, shard: str) -> Path:
        return self._done / f"{_key(shard)}.json"

    def _whole(self, shard: str) -> bool:
        """Whether the files of a finished shard are still there, in their sizes."""
        try:
            sizes = read_json(self._completion(shard))["files"]
            return all((self.folder / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, DapgError, KeyError):
            return False

    def _attempts(self, shard: str) -> list[Attempt]:
        """Those of one shard, oldest first, without listing the claims of all."""
        attempts: list[Attempt] = []
        while (path := self._claims / f"{_key(shard)}.{len(attempts)}").exists():
            attempts.append(_read_attempt(path))
        return attempts

    def _by_shard(self) -> dict[str, list[Attempt]]:
        """Those of every shard, by key."""
        attempts: dict[str, list[Attempt]] = {}
        for path in self._claims.glob("[!.]*.*"):
            attempts.setdefault(path.stem, []).append(_read_attempt(path))
        return {key: sorted(several, key=lambda attempt: attempt.number) for key, several in attempts.items()}

    def _is_running(self, attempt: Attempt) -> bool:
        if attempt.reason:
            return False
        if attempt.host == _host() and not _is_alive(attempt.pid):
            return False
        # A process of that number may be another one by now, such as in a container that was started again.
        return self._now() - _time(attempt.path) < self.stale

    def _gave_up(self, attempts: Sequence[Attempt]) -> bool:
        failures = sum(bool(attempt.reason) for attempt in attempts)
        losses = len(attempts) - failures - (1 if self._is_running(attempts[-1]) else 0)
        return failures >= self.tries or losses >= MOST_LOSSES

    def _rate(self, ended: list[tuple[float, int]]) -> float:
        """Units per second of the last fifty shards that were finished since the launch."""
        launch = _time(self.folder / STATE / JOB)
        latest = sorted(end for end in ended if end[0] > launch)
        begin = latest[-51][0] if len(latest) > 50 else launch
        return sum(size for _, size in latest[-50:]) / (latest[-1][0] - begin) if latest else 0.0

    def _now(self) -> float:
        """By the clock of the disk, which the times of claims are from."""
        probe = self.folder / STATE / f".clock.{own_name()}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


def work(job: Job, advance: Callable[[str], object] | None = None, parent: Connection | None = None) -> None:
    """Claim shards and run them until none is left that this worker could take.

    Args:
        job: what to do; ``Board.open`` was called before.
        advance: told each shard that was finished here.
        parent: a pipe to who started this process; when its other end is gone, this process ends at once.

    Raises:
        Exception: from ``job.start``, or one of ``job.stop``. What a shard raises is noted in its claim.
    """
    board = Board(job.folder, job.tries, job.stale)
    run_shard: RunShard | None = None
    settled: set[str] = set()
    with _Heart(job.stale / 8, parent) as heart, _threads(job.one_thread) as limit:
        while True:
            moved = postponed = False
            for shard in job.shards:
                if shard in settled or board.is_done(shard):
                    settled.add(shard)
                    continue
                claim = board.claim(shard)
                if claim is None:
                    continue
                heart.claim = claim
                started = time.monotonic()
                try:
                    if run_shard is None:
                        run_shard = job.start()
                        limit()  # of what was imported only now
                    board.finish(shard, claim, run_shard(shard), time.monotonic() - started)
                    if advance:
                        advance(shard)
                    moved = True
                except BusyError:  # what the shard needs is being made by another worker
                    claim.unlink(missing_ok=True)
                    postponed = True
                except Exception as error:
                    if isinstance(error, job.stop):
                        claim.unlink(missing_ok=True)
                        raise
                    board.fail(shard, claim, error)
                    if run_shard is None:
                        raise
                    moved = True
                except BaseException:
                    claim.unlink(missing_ok=True)
                    raise
                finally:
                    heart.claim = None
            if not moved and not postponed:
                return
            if not moved:
                time.sleep(_BUSY_PAUSE)


def read_progress(folder: Path) -> Progress:
    """How far the job in a folder is.

    Raises:
        DapgError: there is no job in it.
    """
    path = folder / STATE / JOB
    if not path.exists():
        raise DapgError(f"{folder} holds no job: there is no {path}. Give the --out of a command that takes --engine")
    about = read_json(path)
    return Board(folder, about["tries"], about["stale"]).progress(about)


@dataclass
class _Heart:
    """Touches the claim of its worker, in a thread, and ends a worker whose parent is gone."""

    period: float
    parent: Connection | None
    claim: Path | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "_Heart":
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(min(1.0, self.period)):
            if self.parent is not None and self.parent.poll():
                os._exit(1)
            claim = self.claim
            if claim is not None and time.monotonic() - last >= self.period:
                last = time.monotonic()
                with contextlib.suppress(OSError):
                    os.utime(claim)


@contextlib.contextmanager
def _threads(alone: bool) -> Iterator[Callable[[], None]]:
    """Torch and OpenCV on a single thread; gives a function that says so to libraries which were imported since."""
    import sys

    import torch

    before = torch.get_num_threads()

    def limit() -> None:
        if alone:
            torch.set_num_threads(1)
            if "cv2" in sys.modules:
                sys.modules["cv2"].setNumThreads(1)

    limit()
    try:
        yield limit
    finally:
        torch.set_num_threads(before)


def _key(shard: str) -> str:
    """A shard's name as one of a file."""
    if re.fullmatch(r"[A-Za-z0-9_+-]{1,100}", shard):
        return shard
    return f"~{hashlib.blake2b(shard.encode(), digest_size=12).hexdigest()}"


def _read_attempt(path: Path) -> Attempt:
    """A claim that is just being written has no owner yet."""
    try:
        return Attempt(path, **json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Attempt(path)


def _host() -> str:
    """This machine, and the namespace that process numbers are valid in."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _time(path: Path) -> float:
    """When a file was touched last; that of a claim which has just gone is now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
