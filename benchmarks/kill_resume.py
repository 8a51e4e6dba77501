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


def killed_run(words: list[str], run: Path, kills: int, length: float, chance: random.Random) -> tuple[int, list[int]]:
    """Start, kill at a random moment of the expected remaining time, start again; returns kills and steps reached.

    When a run ends before its kill, it is thrown away from its last third and begun again there, so that the number
    of kills is reached.
    """
    done, reached = 0, []
    while done < kills:
        process = start(words)
        deadline = time.monotonic() + chance.uniform(0.3, 1.0) * length
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            while workers_on(run):
                time.sleep(0.05)
            done += 1
        else:
            output = process.communicate()[0].decode()
            assert process.returncode == 0, output
        whole = checkpoint.whole_checkpoints(run)
        reached.append(whole[-1].step if whole else 0)
        if whole and process.returncode == 0:
            for old in whole[-1:]:
                shutil.rmtree(old.folder)
    return done, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        figures = make_figures(Path(folder) / "figures", persons=10, pictures=2)
        for processes in options.processes:
            whole, killed = Path(folder) / f"whole{processes}", Path(folder) / f"killed{processes}"
            extra = ("--accumulation", "2", "--workers", "2")
            started = time.monotonic()
            run_to_end(command(figures, whole, *extra, processes=processes, steps=options.steps))
            length = time.monotonic() - started
            words = command(figures, killed, *extra, processes=processes, steps=options.steps)
            kills, reached = killed_run(words, killed, options.kills, length, chance)
            run_to_end(words)
            assert_equal(last_state(killed), last_state(whole))
            assert logged(killed) == logged(whole)
            half = len(list(killed.glob("checkpoints/*.partial")))
            print(
                f"{processes} process(es): {kills} kills at random moments, newest whole checkpoint after each: "
                f"{reached}; "
                f"weights, optimiser, queue, counters and log lines bit-equal to an uninterrupted run of "
                f"{options.steps} steps; half-written checkpoints left: {half}"
            )


if __name__ == "__main__":
    main()
