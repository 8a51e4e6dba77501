"""How long the command line takes to answer: seconds from process start to end, minimum, median and maximum.

usage: python benchmarks/startup.py [--repeats 10]
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = (
    ("dapg --help", ["--help"]),
    ("dapg pretrain --help", ["pretrain", "--help"]),
    ("dapg pretrain mocov2 --help", ["pretrain", "mocov2", "--help"]),
    ("a misspelt option", ["pretrain", "mocov2", "--train.stepz", "3"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    print("| command | minimum s | median s | maximum s |\n|---|---|---|---|")
    for name, words in COMMANDS:
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "dapg", *words], capture_output=True, check=False)
            seconds.append(time.perf_counter() - started)
        print(f"| {name} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")


if __name__ == "__main__":
    main()
