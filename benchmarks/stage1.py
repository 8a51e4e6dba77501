"""Stage 1 and its baselines on the embedded people: frozen, and after one short fine-tuning.

usage: python benchmarks/stage1.py [--only 'dapg* mocov2*'] [--inits random imagenet] [--seeds 0 1 2] [--list]
       python benchmarks/stage1.py --table

A cell is an arm, a start and a seed: pre-train, score frozen features, fine-tune with the same short
AGW, score again. Pre-training and fine-tuning go on after a kill; a finished cell is one JSON file and one file of
query scores under results/stage1, and is not run again. Start the command twice to use two cores: each takes the cells
the other has not begun. ``--table`` prints the tables of docs/results.md from those files alone.
"""

import argparse
import fnmatch
import hashlib
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapg.core.errors import DapgError
from dapg.core.files import FolderLock, atomic_path, read_json, write_json
from dapg.core.settings import to_dict
from dapg.data.synthetic import Synthetic
from dapg.evaluation.bootstrap import compare, read_query_scores
from dapg.evaluation.encoders import Encoder, build_encoder
from dapg.evaluation.extract import CENTRED
from dapg.evaluation.metrics import QueryScores
from dapg.evaluation.robustness import CorruptionSettings, clean_and_corrupted
from dapg.methods.runs import BackboneConfig
from dapg.recipes.finetuning import settings as finetune_recipe
from dapg.recipes.matrix import changed
from dapg.recipes.pretraining import settings as recipe
from dapg.train.stage import FinetuneSettings, PretrainSettings, finetune, pretrain

OUT, RUNS = Path("results/stage1"), Path("outputs/stage1")
STEPS, TUNE_STEPS, SIZE, CHAIN = 200, 150, (96, 48), (192, 96)
STARTS = {
    "random": BackboneConfig("resnet18", width=0.25),
    "imagenet": BackboneConfig("mobilenet_v2", init="imagenet"),
}
RATES = {"random": 2e-3, "imagenet": 5e-4}
"""AdamW's rate by start, the same for every method: one trial each."""


@dataclass(frozen=True)
class Arm:
    """One way to pre-train."""

    method: str
    changes: dict[str, Any]
    passes: int
    """Encoder passes for each picture; BYOL encodes two views with either encoder."""
    equal_passes: bool = False
    """Stop where MoCo v2's and SimCLR's two passes a picture end; otherwise all arms see equally many pictures."""

    @property
    def steps(self) -> int:
        """Steps of the training."""
        return round(STEPS * 2 / self.passes) if self.equal_passes else STEPS


CORRUPTED, BATCH = {"pair": "corrupted"}, {"negatives": "batch"}
ARMS: dict[str, Arm | None] = {
    "none": None,
    "mocov2": Arm("mocov2", {}, 2),
    "simclr": Arm("simclr", {}, 2),
    "byol": Arm("byol", {}, 4),
    "dapg": Arm("dapg", BATCH, 4),
    "dapg-queue": Arm("dapg", {"negatives": "queue"}, 7),
    "simclr-corrupted": Arm("simclr", CORRUPTED, 2),
    "mocov2-corrupted": Arm("mocov2", CORRUPTED, 2),
    "byol-corrupted": Arm("byol", CORRUPTED, 4),
    "dapg-equal-passes": Arm("dapg", BATCH, 4, equal_passes=True),
    "dapg-per-view": Arm("dapg", {**BATCH, "chain.geometry": "per_view"}, 4),
    "dapg-no-js": Arm("dapg", {**BATCH, "js_weight": 0.0}, 4),
    "dapg-js-12": Arm("dapg", {**BATCH, "js_weight": 12.0}, 4),
    "dapg-tau-0.7": Arm("dapg", {**BATCH, "temperature": 0.7}, 4),
    "dapg-channel": Arm("dapg", {**BATCH, "channel": 0.5}, 4),
}
CONDITIONS = ("clean", "seen", "unseen")
TESTS = {"visible": "visible to visible", "all": "infrared to visible"}
CORRUPTION = CorruptionSettings(types=("all",), repeats=2, detail="lists")
KEPT: dict[Any, Any] = {}
"""Corrupted test pictures, made once for all cells of this process."""


def pretraining(spec: Arm, start: str, seed: int, out: Path) -> PretrainSettings:
    """The ``tiny`` preset with what all cells have in common, and what the arm changes."""
    base = recipe(spec.method, "tiny")
    optimizer = replace(base.train.optimizer, name="adamw", lr=RATES[start])
    train = replace(base.train, steps=spec.steps, optimizer=optimizer, on_collapse="warn", checkpoint_every=50)
    method = changed(base.method, {"views.height": SIZE[0], "views.width": SIZE[1]})
    method = changed(method, {"chain.height": CHAIN[0], "chain.width": CHAIN[1]})
    loader = replace(base.loader, height=CHAIN[0], width=CHAIN[1])
    made = replace(base, method=changed(method, spec.changes), backbone=STARTS[start], train=train, loader=loader)
    return replace(made, seed=seed, out=str(out), device="cpu")


def fine_tuning(init: str, start: str, seed: int, out: Path) -> FinetuneSettings:
    """A short AGW, the same for every arm."""
    base = finetune_recipe("agw", "tiny")
    optimizer = replace(base.train.optimizer, lr=RATES[start])
    train = replace(base.train, steps=TUNE_STEPS, optimizer=optimizer, checkpoint_every=50)
    train = replace(train, schedule=replace(train.schedule, warmup=15.0))
    method = changed(base.method, {"views.height": SIZE[0], "views.width": SIZE[1], "views.padding": 3})
    backbone = replace(STARTS[start], init=init, last_stride=1)
    loader = replace(base.loader, height=SIZE[0], width=SIZE[1])
    made = replace(base, method=method, backbone=backbone, train=train, loader=loader)
    return replace(made, seed=seed, out=str(out), device="cpu")


def run(arm: str, start: str, seed: int) -> dict[str, Any]:
    """One cell; returns what its JSON file holds, beside the query scores it wrote."""
    name, begun = f"{arm}-{start}-{seed}", time.time()
    spec, backbone, folder = ARMS[arm], STARTS[start], RUNS / f"{arm}-{start}-{seed}"
    used: dict[str, Any] = {}
    pretrained: dict[str, Any] = {}
    if spec is not None:
        first = pretraining(spec, start, seed, folder / "pretrain")
        pretrained, used["pretrain"] = pretrain(first), to_dict(first)
    init = str(folder / "pretrain") if spec is not None else backbone.init
    second = fine_tuning(init, start, seed, folder / "tune")
    tuned, used["tune"] = finetune(second), to_dict(second)
    device = torch.device("cpu")
    scores: dict[str, Any] = {}
    queries: dict[str, Any] = {}
    for when, model, modes in (("frozen", init, ("visible",)), ("tuned", str(folder / "tune"), tuple(TESTS))):
        encoder = build_encoder(model, backbone, SIZE, seed, device)
        for mode in modes:
            score(encoder, f"{when}/{mode}", mode, scores, queries)
    OUT.mkdir(parents=True, exist_ok=True)
    write_queries(OUT / f"{name}.npz", queries)
    return {
        "arm": arm,
        "start": start,
        "seed": seed,
        "settings": hashlib.sha256(repr(sorted(used.items())).encode()).hexdigest(),
        "data": {"train": tuned["data"]["hash"], "pretrain": pretrained.get("data", {}).get("hash")},
        "weights": {"pretrain": pretrained.get("weights"), "tune": tuned["weights"]},
        "steps": pretrained.get("steps", 0),
        "logs": pretrained.get("logs", {}),
        "scores": scores,
        "per_query": f"{name}.npz",
        "seconds": round(time.time() - begun),
        "pretrain_seconds": round(pretrained.get("seconds", 0)),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread",
    }


def write_queries(path: Path, queries: dict[str, list[QueryScores]]) -> None:
    """What ``read_query_scores`` reads, compressed."""
    arrays = {
        f"{name}/{number}/{field.name}": getattr(trial, field.name).numpy()
        for name, trials in queries.items()
        for number, trial in enumerate(trials)
        for field in fields(QueryScores)
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def score(encoder: Encoder, name: str, mode: str, scores: dict[str, Any], queries: dict[str, Any]) -> None:
    """Rank-1 and mAP, raw and centred per camera, clean and corrupted; query scores of what the tables compare."""
    found = clean_and_corrupted(encoder, Synthetic(), mode, CORRUPTION, kept=KEPT)
    for condition in CONDITIONS:
        for feature, label in ((encoder.headline, "raw"), (encoder.headline + CENTRED, "centred")):
            scores[f"{name}/{condition}/{label}"] = found[condition].means(feature)
            if (mode, label) == ("visible", "centred"):
                queries[f"{name}/{condition}/{label}"] = found[condition].pooled(feature)


def begin(name: str) -> FolderLock | None:
    """The cell's lock, or None where another process works on it."""
    (RUNS / name).mkdir(parents=True, exist_ok=True)
    lock = FolderLock(RUNS / name, 0)
    try:
        lock.acquire()
    except DapgError:
        return None
    return lock


def cells(options: argparse.Namespace) -> Iterable[tuple[str, str, int]]:
    """Seeds outermost, so that every arm has one before any has two."""
    for seed in options.seeds:
        for start in options.inits:
            for arm in ARMS:
                if any(fnmatch.fnmatch(arm, pattern) for pattern in options.only.split()):
                    yield arm, start, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="patterns of arms")
    parser.add_argument("--inits", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    parser.add_argument("--table", action="store_true", help="print the tables from the files under results/stage1")
    options = parser.parse_args()
    if options.table:
        print("\n\n".join(tables()))
        return
    torch.set_num_threads(1)
    for arm, start, seed in cells(options):
        name = f"{arm}-{start}-{seed}"
        done = (OUT / f"{name}.json").exists()
        if options.list:
            print(f"{'done' if done else '-':5} {name}")
        if options.list or done:
            continue
        lock = begin(name)
        if lock is None:
            continue
        try:
            print(f"{time.strftime('%H:%M')} {name}", flush=True)
            write_json(OUT / f"{name}.json", run(arm, start, seed))
        finally:
            lock.release()


# Tables


def tables() -> list[str]:
    """Markdown from the stored cells: for each start the scores, then paired differences from stage 1."""
    stored = [read_json(path) for path in sorted(OUT.glob("*.json"))]
    found = []
    for start in STARTS:
        by_arm = {arm: [cell for cell in stored if (cell["arm"], cell["start"]) == (arm, start)] for arm in ARMS}
        by_arm = {arm: part for arm, part in by_arm.items() if part}
        if by_arm:
            found += [scores_table(start, by_arm), differences_table(start, by_arm)]
    return [table for table in found if table]


def scores_table(start: str, by_arm: dict[str, list[dict[str, Any]]]) -> str:
    """Rank-1 (frozen) and mAP (tuned), centred per camera, per cent, mean over seeds; and what is kept of it."""
    lines = [
        f"Start: {start}. Per cent, features centred per camera, mean over seeds.",
        "",
        "| arm | seeds | frozen rank-1, visible: clean / seen / unseen | tuned mAP, visible: clean / seen / unseen "
        "| kept: seen / unseen | tuned mAP, infrared → visible: clean / seen / unseen | effective rank "
        "| pre-training seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, part in by_arm.items():
        frozen = [mean(part, f"frozen/visible/{condition}/centred", "rank-1") for condition in CONDITIONS]
        visible = [mean(part, f"tuned/visible/{condition}/centred", "mAP") for condition in CONDITIONS]
        infrared = [mean(part, f"tuned/all/{condition}/centred", "mAP") for condition in CONDITIONS]
        kept = " / ".join(f"{value / visible[0]:.2f}" for value in visible[1:])
        spread = np.mean([cell["logs"].get("effective_rank", float("nan")) for cell in part])
        seconds = np.mean([cell["pretrain_seconds"] for cell in part])
        cells = [listed(frozen), listed(visible), kept, listed(infrared), f"{spread:.1f}", f"{seconds:.0f}"]
        lines.append(f"| {arm} | {len(part)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences_table(start: str, by_arm: dict[str, list[dict[str, Any]]]) -> str:
    """Stage 1 minus each other arm: tuned mAP, visible to visible, with 95 % intervals over persons and seeds."""
    if "dapg" not in by_arm or len(by_arm) < 2:
        return ""
    lines = [
        f"Start: {start}. Stage 1 (`dapg`) minus each other arm: tuned mAP, visible to visible, centred, percentage "
        "points with 95 % intervals (bootstrap over test persons within seeds).",
        "",
        "| minus | clean | seen | unseen |",
        "|---|---|---|---|",
    ]
    widths = []
    for arm, part in by_arm.items():
        if arm == "dapg":
            continue
        cells = []
        for condition in CONDITIONS:
            key = f"tuned/visible/{condition}/centred"
            sides = [
                [read_query_scores(OUT / cell["per_query"])[key] for cell in side] for side in (part, by_arm["dapg"])
            ]
            gap = compare(*sides)["mAP"]
            widths.append((gap.high - gap.low) / 2)
            cells.append(f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines.append(
        f"\nThe smallest gain that these cells can show (half an interval): {100 * np.mean(widths):.1f} points."
    )
    return "\n".join(lines)


def mean(part: list[dict[str, Any]], key: str, measure: str) -> float:
    """Per cent, over seeds."""
    return 100 * float(np.mean([cell["scores"][key][measure] for cell in part]))


def listed(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
