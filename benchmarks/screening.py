"""Screening of hypotheses about stage 1, on validation persons only: exploratory, its results go to docs/log.md.

    OMP_NUM_THREADS=1 python benchmarks/screening.py --seeds 2 --out outputs/screening [--only 'none stage-1*']

Each variant is a pre-training at scale ``small`` from ImageNet on the embedded unlabelled pictures, then AGW with
channel mixing on the embedded training persons, scored on the 50 validation persons, clean and corrupted as the fixed
list says (at the scale's size). A line of ``screening.jsonl`` per finished run; finished runs are not made again.
"""

import argparse
import fnmatch
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dapg.core.run_folder import commit
from dapg.core.runtime import Cache, Runtime
from dapg.core.scales import SCALES
from dapg.core.train_config import DataConfig
from dapg.data.sets.synthetic import Synthetic
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.experiment.matrix import ARMS, Arm, changed
from dapg.features.build_encoder import build_encoder
from dapg.recipes import finetuning, pretraining
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain

SCALE, START, MODE, REPEATS = "small", "imagenet", "validation", 3


VARIANTS = {
    "none": "in-sup",
    "stage-1": "dapg-1",
    "stage-1-mixed": "dapg-1-mixed",
    "simclr": "simclr",
    "two-views-mixed": "dapg-1-two-views-mixed",
    "simclr-mixed": "simclr-mixed",
    "stage-1-mixed-second": "dapg-1-mixed-second",
    "stage-1-mixed-turns": "dapg-1-mixed-turns",
    "stage-1-mixed-outside": "dapg-1-mixed-outside",
    "stage-1-channel": "dapg-1-channel",
    "two-views": "dapg-1-two-views",
}
"""Name in docs/log.md -> arm of the matrix; in the order of their worth."""


def run(name: str, arm: Arm, seed: int, out: Path, cache: Cache) -> dict[str, Any]:
    """Pre-train, fine-tune and score; figures in per cent, times in processor seconds."""
    times, logs = [time.process_time()], {}
    tuning = finetuning("agw", SCALE, START)
    if arm.pretraining:
        first = pretraining(arm.pretraining, SCALE, START)
        first = replace(first, method=changed(first.method, arm.changes), out=str(out / f"{name}-{seed}"))
        logs = pretrain(replace(first, seed=seed))["logs"]
        tuning = replace(tuning, backbone=replace(tuning.backbone, init=first.out))
    times.append(time.process_time())
    tuning = replace(
        tuning, seed=seed, data=DataConfig("synthetic", split="train"), out=str(out / f"{name}-agw-{seed}")
    )
    finetune(tuning)
    times.append(time.process_time())
    encoder = build_encoder(tuning.out, tuning.backbone, (0, 0), 0, torch.device("cpu"))
    height, width = SCALES[SCALE].decoded or (0, 0)
    corruption = CorruptionSettings(types=("all",), repeats=REPEATS, detail="lists", height=height, width=width)
    scores = clean_and_corrupted(encoder, Synthetic(), [MODE], corruption, Runtime(cache=cache))[MODE]
    times.append(time.process_time())
    means = {condition: scored.means(encoder.headline) for condition, scored in scores.items()}
    return {
        "variant": name,
        "seed": seed,
        **{f"{m} {condition}": round(100 * mean[m], 2) for condition, mean in means.items() for m in ("rank-1", "mAP")},
        "seconds": [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)],
        "logs": {key: round(value, 4) for key, value in logs.items() if value is not None},
        "corruptions": corruption.provenance(),
        "commit": commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/screening"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="*", help="patterns of variants, with spaces between them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file, cache = options.out / "screening.jsonl", Cache()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name, arm in VARIANTS.items():
            if not any(fnmatch.fnmatch(name, pattern) for pattern in options.only.split()):
                continue
            done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            if any((line["variant"], line["seed"]) == (name, seed) for line in done):
                continue
            line = json.dumps(run(name, ARMS[arm], seed, options.out, cache))
            with file.open("a") as lines:
                lines.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
