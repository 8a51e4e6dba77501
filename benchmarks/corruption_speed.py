"""Speed of our corruptions beside imagecorruptions': the same 256 x 128 uint8 images, the same cores, in turn.

    python benchmarks/corruption_speed.py --environment FOLDER [--processes 2] [--rounds 3]

Both sides run in as many processes of one thread each, drawing and conversions included; ours in batches of 64. The two
are asked one after the other, type by type, and the best of the rounds counts. The wall clock suffers on a machine that
does other things at the same time; processor seconds suffer less, so both are shown.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from reference_environment import Worker, reference_python

from dapg.corruptions import library

COUNTS = {"zoom_blur": 20, "mix": 60}


def measure(workers: list[Worker], name: str, count: int) -> tuple[float, float]:
    """(wall, processor) milliseconds an image, all workers at once."""
    for worker in workers:
        worker.ask(do="speed", name=name, count=count)
    answers = [worker.answer() for worker in workers]
    wall = max(answer["wall"] for answer in answers) / (count * len(workers))
    cpu = sum(answer["cpu"] for answer in answers) / (count * len(workers))
    return wall * 1000, cpu * 1000


def main() -> None:
    """Measure all types and the mix, print a Markdown table and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, help="folder of the reference's environment")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=64, help="images of a type in a round")
    parser.add_argument("--only", nargs="*", default=None, help="names of corruptions, or mix; no summary then")
    parser.add_argument("--out", type=Path, default=None, help="write the numbers here as JSON")
    options = parser.parse_args()
    theirs = [
        Worker(reference_python(options.environment), "imagecorruptions_worker.py") for _ in range(options.processes)
    ]
    ours = [Worker(sys.executable, "dapg_worker.py") for _ in range(options.processes)]
    results: dict[str, dict[str, float]] = {}
    print("| corruption | theirs, ms | ours, ms | ratio | theirs, CPU ms | ours, CPU ms | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in options.only or (*library.IMAGENET_C, "mix"):
        best = {"wall": [math.inf, math.inf], "cpu": [math.inf, math.inf]}
        for _ in range(options.rounds):
            for side, workers in enumerate((theirs, ours)):
                count = COUNTS.get(name, options.count) if side == 0 else max(options.count, COUNTS.get(name, 0))
                wall, cpu = measure(workers, name, count)
                best["wall"][side] = min(best["wall"][side], wall)
                best["cpu"][side] = min(best["cpu"][side], cpu)
        row = {
            "theirs_wall": best["wall"][0],
            "ours_wall": best["wall"][1],
            "theirs_cpu": best["cpu"][0],
            "ours_cpu": best["cpu"][1],
        }
        results[name] = row
        print(
            f"| {name} | {row['theirs_wall']:.2f} | {row['ours_wall']:.2f} | "
            f"{row['theirs_wall'] / row['ours_wall']:.1f} | {row['theirs_cpu']:.2f} | {row['ours_cpu']:.2f} | "
            f"{row['theirs_cpu'] / row['ours_cpu']:.1f} |",
            flush=True,
        )
    for kind in () if options.only else ("wall", "cpu"):
        rows = [results[name] for name in library.IMAGENET_C]
        total = sum(r[f"theirs_{kind}"] for r in rows) / sum(r[f"ours_{kind}"] for r in rows)
        mean = math.exp(sum(math.log(r[f"theirs_{kind}"] / r[f"ours_{kind}"]) for r in rows) / len(rows))
        mix = results["mix"]
        ratio = mix[f"theirs_{kind}"] / mix[f"ours_{kind}"]
        print(f"{kind}: {total:.1f} times by the sum over the 15, {mean:.1f} by the geometric mean, {ratio:.1f} mixed")
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=2), encoding="utf-8")
    for worker in (*theirs, *ours):
        worker.close()


if __name__ == "__main__":
    main()
