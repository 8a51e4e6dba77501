"""Seconds per stage at each small preset, and the share of training time spent waiting for data.

usage: python benchmarks/data_wait.py [--steps 60] [--presets demo small] [--methods mocov2 agw ...]

Methods are those of pre-training and of fine-tuning; default: all that need no file beside the images.

The whole preset is extrapolated from the given number of steps; the first ten are left out as warm-up.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from dapg.core import plugins
from dapg.core.metrics_log import read_metrics
from dapg.recipes import finetuning, pretraining
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain

FINETUNING = plugins.names("methods.finetuning")
NO_FILES = [name for name in plugins.names("methods.pretraining") if name != "vtbr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--presets", nargs="+", default=["demo", "small"])
    parser.add_argument("--methods", nargs="+", default=[*NO_FILES, *FINETUNING])
    options = parser.parse_args()
    print("| preset | method | pictures/s | seconds for the preset's steps | waiting for data |\n|---|---|---|---|---|")
    for preset in options.presets:
        for method in options.methods:
            with tempfile.TemporaryDirectory() as folder:
                recipe, run = (finetuning, finetune) if method in FINETUNING else (pretraining, pretrain)
                base: Any = recipe(method, preset)
                train = replace(base.train, steps=options.steps, log_every=10, checkpoint_every=10**6)
                run(replace(base, train=train, out=str(Path(folder) / "run"), device="cpu"))
                lines = [line for line in read_metrics(Path(folder) / "run") if line["step"] > 10]
            rate = len(lines) / sum(1 / line["pictures_per_second"] for line in lines)
            waiting = sum(line["data_wait"] / line["pictures_per_second"] for line in lines) * rate / len(lines)
            seconds = base.train.steps * base.train.batch_size / rate
            print(f"| {preset} | {method} | {rate:.0f} | {seconds:.0f} | {100 * waiting:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
