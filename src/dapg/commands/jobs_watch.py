"""Watch the work of any engine: done, running, failed, rate, time left."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dapg.commands._settings import parse, take_positional
from dapg.core.ranges import Positive

if TYPE_CHECKING:
    from dapg.core.shards import Progress

_HELP = """usage: dapg jobs watch FOLDER [--once] [--json]

Show how far the work in a folder is: the --out of a command that takes --engine, or outputs/reproduce/queue-SCALE. It
may run anywhere that sees the folder. Ends when nothing is left to run; exit code 1 where shards failed.

examples:
  dapg jobs watch outputs/crops
  dapg jobs watch /shared/features --once --json
"""


@dataclass(frozen=True)
class WatchSettings:
    """How to look."""

    once: bool = False
    """Look once."""
    json: bool = False
    """One JSON object per look, for scripts."""
    every: Positive = 2.0
    """Seconds between two looks."""


def main(words: list[str], program: str) -> None:
    """Look, print, again."""
    folder, words = take_positional(words, "FOLDER", None, program)
    settings = parse(program, WatchSettings(), words, _HELP)
    from dapg.core.shards import read_progress

    while True:
        progress = read_progress(Path(folder))
        print(json.dumps(asdict(progress)) if settings.json else _text(progress), flush=True)
        if progress.finished and progress.failed:
            raise SystemExit(1)
        if progress.finished or settings.once:
            return
        time.sleep(settings.every)


def _text(progress: "Progress") -> str:
    shards = f"{progress.done:,} of {progress.shards:,} shards done, {len(progress.running)} running"
    lines = [f"{progress.kind}: {shards}, {len(progress.failed)} failed"]
    if progress.rate and progress.eta is not None:
        done = f"{progress.size_done:,} of {progress.size:,} {progress.unit}s"
        lines[0] += f"; {done}, {progress.rate:.3g} per second, {_duration(progress.eta)} left"
    lines += [f"  running {claim.shard} {claim.worker} {_duration(claim.seconds)}" for claim in progress.running]
    return "\n".join([*lines, *(f"  failed  {shard} {reason}" for shard, reason in progress.failed.items())])


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
