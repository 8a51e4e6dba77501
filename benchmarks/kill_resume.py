"""Kill a run with SIGKILL at random moments, let it end, and compare it with an uninterrupted run, bit by bit.

usage: python benchmarks/kill_resume.py [--kills 20] [--processes 1 2] [--seed 0]

One process: SIGKILL to the training process, loader workers 2, accumulation 2. Two processes: SIGKILL to the launcher
alone; its processes must die with it.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "train")]

from test_resume import assert_equal, command, last_state, logged, run_to_end, start, workers_on  # noqa: E402

from dapg.train import checkpoint  # noqa: E402
from figures import make_figures  # noqa: E402


def first_line(words: list[str], run: Path) -> float:
    """Seconds from process start to the first logged step of an uninterrupted run, which is then let go to its end."""
    started = time.monotonic()
    process = start(words)
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.01)
    seconds = time.monotonic() - started
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    return seconds


def killed_run(words: list[str], run: Path, kills: int, startup: float, chance: random.Random) -> list[int]:
    """Start, kill at a random moment from just before the first step to three seconds after it, start again.

    Returns the steps of the newest whole checkpoint after each kill. A run that ends before enough kills begins anew.
    """
    reached: list[int] = []
    while len(reached) < kills:
        process = start(words)
        deadline = time.monotonic() + startup + chance.uniform(-0.5, 3.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is not None:
            output = process.communicate()[0].decode()
            assert process.returncode == 0, output
            shutil.rmtree(run)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        while workers_on(run):
            time.sleep(0.05)
        whole = checkpoint.whole_checkpoints(run)
        reached.append(whole[-1].step if whole else 0)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        figures = make_figures(Path(folder) / "figures", persons=10, pictures=2)
        for processes in options.processes:
            whole, killed = Path(folder) / f"whole{processes}", Path(folder) / f"killed{processes}"
            extra = ("--accumulation", "2", "--workers", "2")
            startup = first_line(command(figures, whole, *extra, processes=processes, steps=options.steps), whole)
            words = command(figures, killed, *extra, processes=processes, steps=options.steps)
            reached = killed_run(words, killed, options.kills, startup, chance)
            run_to_end(words)
            assert_equal(last_state(killed), last_state(whole))
            assert logged(killed) == logged(whole)
            half = len(list(killed.glob("checkpoints/*.partial")))
            print(
                f"{processes} process(es): {len(reached)} kills at random moments, newest whole checkpoint after each: "
                f"{reached}; "
                f"weights, optimiser, queue, counters and log lines bit-equal to an uninterrupted run of "
                f"{options.steps} steps; half-written checkpoints left: {half}"
            )


if __name__ == "__main__":
    main()
