"""Overhead of the engines on shards of fixed processor time, start-up and memory of a worker apart.

    python benchmarks/engines.py                              # two workers, 60 shards of two seconds: idle machine
    python benchmarks/engines.py --seconds 0.5 --shards 24    # on a crowded machine read processor time alone

The window is the steady part: from the moment at which every worker has finished a shard to the end of the last one.
Processor overhead: what workers used between their shards, the launcher's thread, and Ray's daemons, over what the
shards used. Wall overhead: seconds per shard in the window, over those of plain processes; for an idle machine alone.
"""

import argparse
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dapg.core.engines.base import EngineSettings
from dapg.core.files import atomic_write_text
from dapg.core.launch import launch
from dapg.core.shards import Job, RunShard, chunks

TICK = os.sysconf("SC_CLK_TCK")


def burn(seconds: float) -> None:
    """Use so much processor time of this process."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        sum(range(1000))


def start(folder: Path, seconds: float) -> RunShard:
    def run_shard(shard: str) -> Iterable[Path]:
        about = {"pid": os.getpid(), "from": time.time(), "cpu from": time.process_time()}
        burn(seconds)
        about |= {"to": time.time(), "cpu to": time.process_time()}
        atomic_write_text(folder / f"{shard}.json", json.dumps(about))
        return [folder / f"{shard}.json"]

    return run_shard


def plain(folder: Path, seconds: float, shards: list[str]) -> None:
    run_shard = start(folder, seconds)
    for shard in shards:
        run_shard(shard)


def tree() -> dict[int, float]:
    """Processor seconds of this process and all below it."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICK
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return {pid: used[pid] for pid in mine}


def memory(pid: int) -> float:
    """Proportional share of memory in MB: what is shared counts by parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def read(folder: Path) -> list[dict[str, float]]:
    return [json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")]


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One engine, or two plain processes."""
    shards = chunks(options.shards, 1)
    samples: list[tuple[float, float, float]] = []
    sizes: dict[int, float] = {}
    over = threading.Event()
    clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)

    def sample() -> None:
        while not over.wait(0.5):
            workers = {int(about["pid"]) for about in read(folder)}
            rest = sum(used for pid, used in tree().items() if pid not in workers and pid != os.getpid())
            samples.append((time.time(), time.clock_gettime(clock), rest))
            for pid in workers - sizes.keys():
                with contextlib.suppress(OSError):
                    sizes[pid] = memory(pid)

    begun = time.time()
    watcher = threading.Thread(target=sample)
    watcher.start()
    if name == "plain":
        halves = [list(shards)[half :: options.workers] for half in range(options.workers)]
        context = multiprocessing.get_context("forkserver")
        processes = [context.Process(target=plain, args=(folder, options.seconds, half)) for half in halves]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    else:
        job = Job(f"benchmark {name}", folder, shards, "shard", functools.partial(start, folder, options.seconds))
        launch(job, replace(EngineSettings(), name=name, workers=options.workers), bar=False)
    over.set()
    watcher.join()
    done = sorted(read(folder), key=lambda about: about["from"])
    by_worker = [[about for about in done if about["pid"] == pid] for pid in {about["pid"] for about in done}]
    first, last = max(mine[0]["to"] for mine in by_worker), max(about["to"] for about in done)
    pairs = [pair for mine in by_worker for pair in itertools.pairwise(mine) if pair[1]["from"] >= first - 0.001]
    gaps = sum(after["cpu from"] - before["cpu to"] for before, after in pairs)
    used = sum(after["cpu to"] - after["cpu from"] for _, after in pairs)
    inside = [sample for sample in samples if first <= sample[0] <= last] or samples[-1:]
    launcher = inside[-1][1] - inside[0][1]
    daemons = sum(max(0.0, after[2] - before[2]) for before, after in itertools.pairwise(inside))  # some end on the way
    return {
        "start-up s": round(done[0]["from"] - begun, 2),
        "all workers after s": round(first - begun, 2),
        "shards in the window": len(pairs),
        "wall s per shard": round((last - first) / max(1, len(pairs)), 4),
        "shards, processor s": round(used, 2),
        "between shards, processor s": round(gaps, 3),
        "launcher, processor s": round(launcher, 3),
        "daemons, processor s": round(daemons, 2),
        "processor overhead %": round(100 * (gaps + launcher + daemons) / used, 2),
        "memory of a worker MB": round(max(sizes.values(), default=0.0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["plain", "local", "ray"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of a shard")
    options = parser.parse_args()
    walls: dict[str, float] = {}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {vars(options)}")
    for name in options.engines:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(name, Path(folder), options)
        walls[name] = figures["wall s per shard"]
        if "plain" in walls:
            figures["wall overhead %"] = round(100 * (walls[name] / walls["plain"] - 1), 2)
        print(name, json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
