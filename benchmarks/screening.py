"""Screening of hypotheses about stage 1, on validation persons only: exploratory, its results go to docs/log.md.

    OMP_NUM_THREADS=1 python benchmarks/screening.py --seeds 2 --out outputs/screening [--only 'none stage-1*']
    OMP_NUM_THREADS=1 python benchmarks/screening.py --seeds 2 --out outputs/screening --after stage-1-mixed

Each variant is a pre-training at scale ``small`` from ImageNet on the embedded unlabelled pictures, then AGW with
channel mixing on the embedded training persons, scored on the 50 validation persons, clean and corrupted as the fixed
list says (at the scale's size). A line of ``screening.jsonl`` per finished run; finished runs are not made again.

``--after VARIANT`` screens stage 2 instead, from that variant's stage 1, on the same unlabelled pictures: first with
true other pictures of the hidden persons as positives, the ceiling of any generator, beside the variant trained twice
as long.
"""

import argparse
import fnmatch
import itertools
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapg.core.files import atomic_write_text
from dapg.core.run_folder import commit
from dapg.core.runtime import Cache, Runtime
from dapg.core.scales import SCALES
from dapg.core.settings import to_dict
from dapg.core.train_config import DataConfig
from dapg.data.sets.synthetic import HIDDEN, Synthetic
from dapg.evaluation.corrupted_scores import CorruptionSettings, SetScores, clean_and_corrupted
from dapg.experiment.matrix import ARMS, Arm, alignment_settings, pretraining_settings
from dapg.experiment.registration import detectable_gain
from dapg.features.build_encoder import build_encoder
from dapg.pose.generate import GenerateSettings, generate
from dapg.recipes import finetuning
from dapg.scoring.bootstrap import person_scores
from dapg.training.align import align
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain
from dapg.training.training_settings import AlignSettings, PretrainSettings

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
    "stage-1-mixed-outside-whole": "dapg-1-mixed-outside-whole",
    "stage-1-mixed-outside-bank": "dapg-1-mixed-outside-bank",
}
"""Name in docs/log.md -> arm of the matrix; in the order of their worth."""
STAGE_2 = {
    "again": Arm("as long again", length=2.0),
    "true": Arm("true other pictures", alignment="dapg_align", positives="true"),
    "true-steep": Arm(
        "true other pictures, ten times the rate", alignment="dapg_align", positives="true", align_rate=10.0
    ),
    "generated-steep": Arm("generated pictures, ten times the rate", alignment="dapg_align", align_rate=10.0),
}
"""What may follow a stage 1: in the order of their worth."""


def hidden_people(out: Path) -> DataConfig:
    """The unlabelled pictures as a folder that says who is on them: for the ceiling alone, no method may read it."""
    folder, people = out / "hidden", Synthetic()
    if not (folder / "labels.csv").exists():
        with zipfile.ZipFile(people.root) as archive:
            rows = [json.loads(line) for line in archive.read(HIDDEN).splitlines()]
        for record in people.records("unlabelled"):
            (folder / record.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / record.path).write_bytes(people.read(record))
        lines = [f"{row['path']},{row['person']},1,visible,train" for row in rows]
        atomic_write_text(folder / "labels.csv", "\n".join(["path,person,camera,modality,split", *lines]) + "\n")
    return DataConfig("folder", str(folder), split="train")


def aligned(arm: Arm, first: PretrainSettings, seed: int, out: Path, folder: Path) -> AlignSettings:
    """Stage 2 of an arm on the unlabelled pictures, channels mixed as in its stage 1."""
    mixing = to_dict(first.method)["views"]["mixing"]
    arm = replace(arm, aligned={"views.mixing": mixing})
    base = replace(alignment_settings(arm, SCALE, first, START, seed, out), out=str(folder))
    if arm.positives == "true":
        return replace(base, data=hidden_people(out))
    poses = GenerateSettings(out=str(out / "poses"), split="unlabelled", device="cpu")
    generate(base.data, poses)
    return replace(base, data=DataConfig("synthetic", split="unlabelled"), generated=poses.out)


def corruption() -> CorruptionSettings:
    """Three corrupted validation sets by the fixed list, at the scale's size."""
    height, width = SCALES[SCALE].decoded or (0, 0)
    return CorruptionSettings(types=("all",), repeats=REPEATS, detail="lists", height=height, width=width)


def scored(network: str, cache: Cache) -> tuple[str, Mapping[str, SetScores]]:
    """The feature that a fine-tuned network reports, and its scores of the validation persons by condition."""
    backbone = finetuning("agw", SCALE, START).backbone
    encoder = build_encoder(network, backbone, (0, 0), 0, torch.device("cpu"))
    scores = clean_and_corrupted(encoder, Synthetic(), [MODE], corruption(), Runtime(cache=cache))
    return encoder.headline, scores[MODE]


def detectable(pair: Sequence[str], seeds: int, persons: int, out: Path) -> str:
    """What an experiment with ``seeds`` seeds and so many test persons can find, by the variants' validation scores."""
    cache, by_seed = Cache(), []
    for name in pair:
        folders = sorted(out.glob(f"{name}-agw-[0-9]"))
        scores = [scored(str(folder), cache) for folder in folders]
        people = [person_scores(by_condition["all"].pooled(feature)).sums for feature, by_condition in scores]
        by_seed.append(np.stack([100 * sums[:, 1] / sums[:, 3] for sums in people]))  # (seeds, persons), mAP
    deviation = float(np.std(by_seed[0].mean(0) - by_seed[1].mean(0), ddof=1))
    seed_deviation = float(np.sqrt(np.mean([np.var(values.mean(1), ddof=1) for values in by_seed])))
    gain = detectable_gain(deviation, seed_deviation, persons, seeds)
    means = ", ".join(
        f"{name} {values.mean():.2f} ({len(values)} seeds)" for name, values in zip(pair, by_seed, strict=True)
    )
    return (
        f"{means}; deviation of the difference over {by_seed[0].shape[1]} persons {deviation:.2f}, "
        f"of an arm over seeds {seed_deviation:.2f}; {gain:.2f} points of mAP are found with {seeds} seeds and "
        f"{persons} persons"
    )


def run(name: str, arm: Arm, seed: int, out: Path, cache: Cache, second: Arm | None = None) -> dict[str, Any]:
    """Pre-train, align, fine-tune and score; figures in per cent, times in processor seconds."""
    times, logs = [time.process_time()], {}
    tuning = finetuning("agw", SCALE, START)
    if arm.pretraining:
        arm = replace(arm, length=second.length if second else 1.0)
        folder = out / (f"{name}-{seed}" if arm.length != 1.0 or not second else f"{name.split('+')[0]}-{seed}")
        first = replace(pretraining_settings(arm, SCALE, START, seed, out), out=str(folder))
        logs = pretrain(first)["logs"]
        tuning = replace(tuning, backbone=replace(tuning.backbone, init=first.out))
        if second and second.alignment:
            stage_2 = aligned(second, first, seed, out, out / f"{name}-{seed}")
            logs = align(stage_2)["logs"]
            tuning = replace(tuning, backbone=replace(tuning.backbone, init=stage_2.out))
    times.append(time.process_time())
    tuning = replace(
        tuning, seed=seed, data=DataConfig("synthetic", split="train"), out=str(out / f"{name}-agw-{seed}")
    )
    finetune(tuning)
    times.append(time.process_time())
    feature, scores = scored(tuning.out, cache)
    times.append(time.process_time())
    means = {condition: by_query.means(feature) for condition, by_query in scores.items()}
    return {
        "variant": name,
        "seed": seed,
        **{f"{m} {condition}": round(100 * mean[m], 2) for condition, mean in means.items() for m in ("rank-1", "mAP")},
        "seconds": [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)],
        "logs": {key: round(value, 4) for key, value in logs.items() if value is not None},
        "corruptions": corruption().provenance(),
        "commit": commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/screening"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="*", help="patterns of variants, with spaces between them")
    parser.add_argument("--detectable", nargs=2, metavar="VARIANT", help="of two finished variants, for registration")
    parser.add_argument("--after", default="", choices=["", *VARIANTS], help="screen stage 2 after this stage 1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.detectable:
        print(detectable(options.detectable, options.seeds, 1000, options.out))
        return
    file, cache = options.out / "screening.jsonl", Cache()
    options.out.mkdir(parents=True, exist_ok=True)
    stages: dict[str, tuple[Arm, Arm | None]] = {name: (ARMS[arm], None) for name, arm in VARIANTS.items()}
    if options.after:
        arm = ARMS[VARIANTS[options.after]]
        stages = {f"{options.after}+{name}": (arm, second) for name, second in STAGE_2.items()}
    for seed in range(options.seeds):
        for name, (arm, second) in stages.items():
            if not any(fnmatch.fnmatch(name, pattern) for pattern in options.only.split()):
                continue
            done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            if any((line["variant"], line["seed"]) == (name, seed) for line in done):
                continue
            line = json.dumps(run(name, arm, seed, options.out, cache, second))
            with file.open("a") as lines:
                lines.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
