"""The gate of the experiment: does its instrument learn? It must pass before arms are compared.

See docs/explanation/experiment.md.

    scripts/render_people.sh KIT FOLDER gate train400
    OMP_NUM_THREADS=1 python benchmarks/instrument.py --gate FOLDER/gate --people FOLDER/train400 --out gate

Trains AGW with channel mixing at scale ``small`` from ImageNet on 400 rendered persons and on the embedded 200, two
seeds each, and a control whose infrared images belong to other persons, in training and test. Each is scored on the
gate's own 200 persons in two galleries of 100, ten trials each. The exit code is 1 where a figure misses its limit.
Finished trainings and scores in ``--out`` are not made again; ``--word`` runs a part, such as one seed or fine-tuner.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch

from dapg.core.files import write_json
from dapg.core.run_folder import commit
from dapg.core.runtime import Cache, Runtime
from dapg.core.scales import SCALES
from dapg.core.settings import merge
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record
from dapg.data.sets.synthetic import INFRARED_CAMERAS, Synthetic
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.features.build_encoder import build_encoder
from dapg.features.table import CENTRED
from dapg.recipes import finetuning
from dapg.training.finetune import finetune
from dapg.training.training_settings import FinetuneSettings

SEARCH, WITHIN = "all-100", "visible-100"
LIMITS = {
    "agw 400": {"rank-1": (35.0, 100.0), "mAP": (33.0, 100.0), "visible": (65.0, 100.0), "seconds": (0.0, 120.0)},
    "agw 200": {"rank-1": (28.0, 100.0), "mAP": (26.0, 100.0), "seconds": (0.0, 120.0)},
    "control": {"rank-1": (0.0, 2.5), "mAP": (0.0, 4.0)},
}
"""Smallest and largest value of each run's mean over seeds. Chance is 1 % at rank-1 and 2.5 % mAP."""
COLUMNS = ("rank-1", "mAP", "all", "seen", "unseen", "visible", "visible, all", "seconds", "scoring")
CORRUPTED = (0.5, 0.9)
"""Corrupted mAP as a share of clean mAP."""
SEEDS = 2


def runs(out: Path, people: str) -> dict[str, list[FinetuneSettings]]:
    """What is trained: the gate's own runs first, then each fine-tuner beside them, by name."""
    larger, embedded = DataConfig("synthetic", people), DataConfig("synthetic", split="train")

    def seeds(method: str, name: str, data: DataConfig, count: int = SEEDS) -> list[FinetuneSettings]:
        chosen = replace(finetuning(method, "small", "imagenet"), data=data)
        place = name.replace(", ", " ").replace(" ", "-")
        return [replace(chosen, seed=seed, out=str(out / f"{place}-{seed}")) for seed in range(count)]

    chosen = {
        "agw 400": seeds("agw", "agw 400", larger),
        "agw 200": seeds("agw", "agw 200", embedded),
        "control": seeds("agw", "control", embedded, 1),
    }
    for method in ("baseline", "caj", "cil", "pmwgcn"):
        chosen[f"{method} 200"] = seeds(method, f"{method} 200", embedded)
    for method in ("agw", "cil"):
        mixing = seeds(method, f"{method} 200, plain", embedded)
        chosen[f"{method} 200, plain"] = [merge(run, {"method": {"views": {"mixing": None}}}) for run in mixing]
    return chosen


def dealt(dataset: Synthetic, person: int, camera: int) -> list[Record]:
    """A person's images, the infrared ones those of the next person of the split."""
    source = person
    if camera in INFRARED_CAMERAS:
        (split,) = (name for name in ("train", "val", "test") if person in dataset.persons(name))
        people = dataset.persons(split)
        source = people[(people.index(person) + 1) % len(people)]
    modality = Modality.INFRARED if camera in INFRARED_CAMERAS else Modality.VISIBLE
    return [Record(path, person, camera, modality) for path in dataset._files.get((source, camera), [])]


def figures(settings: FinetuneSettings, gate: Synthetic, cache: Cache) -> dict[str, float]:
    """Train and score one run: per cent and processor seconds."""
    started = time.process_time()
    finetune(settings)
    trained = time.process_time()
    encoder = build_encoder(settings.out, settings.backbone, (0, 0), 0, torch.device("cpu"))
    height, width = SCALES["small"].decoded or (0, 0)
    corruption = CorruptionSettings(types=("all",), repeats=1, detail="lists", height=height, width=width)
    modes = clean_and_corrupted(encoder, gate, [SEARCH, WITHIN], corruption, Runtime(cache=cache))
    clean = modes[SEARCH]["clean"].means(encoder.headline)
    return {
        "rank-1": 100 * clean["rank-1"],
        "mAP": 100 * clean["mAP"],
        **{name: 100 * modes[SEARCH][name].means(encoder.headline)["mAP"] for name in ("all", "seen", "unseen")},
        "visible": 100 * modes[WITHIN]["clean"].means(encoder.headline + CENTRED)["mAP"],
        "visible, all": 100 * modes[WITHIN]["all"].means(encoder.headline + CENTRED)["mAP"],
        "seconds": trained - started,
        "scoring": time.process_time() - trained,
    }


def mean(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(value[name] for value in values) / len(values) for name in values[0]}


def verdicts(name: str, found: dict[str, float]) -> list[str]:
    """Which limits a run misses, in words."""
    missed = [
        f"{name}: {measure} {found[measure]:.1f}, not in {low:g} ... {high:g}"
        for measure, (low, high) in LIMITS.get(name, {}).items()
        if not low <= found[measure] <= high
    ]
    share = found["all"] / found["mAP"]
    if name.startswith("agw ") and not CORRUPTED[0] <= share <= CORRUPTED[1]:
        missed.append(f"{name}: corrupted mAP is {share:.2f} of clean, not {CORRUPTED[0]} ... {CORRUPTED[1]}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", required=True, help="the gate's persons (seed 5)")
    parser.add_argument("--people", required=True, help="400 training persons (seed 7)")
    parser.add_argument("--out", type=Path, default=Path("outputs/instrument"))
    parser.add_argument("--word", default="", help="only the runs whose name contains it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gate, cache = Synthetic(options.gate), Cache()
    missed: list[str] = []
    print("| run | seeds | rank-1 | mAP | corrupted | seen | unseen | visible | the same, corrupted | s | scoring, s |")
    print("|---" * 11 + "|")
    for name, trainings in runs(options.out, options.people).items():
        if options.word not in name:
            continue
        found = []
        for settings in trainings:
            file = Path(f"{settings.out}.json")
            if not file.exists():
                if name == "control":
                    with patch.object(Synthetic, "_shots", dealt):
                        values = figures(settings, Synthetic(options.gate), Cache())
                else:
                    values = figures(settings, gate, cache)
                write_json(file, {**values, "commit": commit(), "machine": platform.platform()})
            stored = json.loads(file.read_text())
            found.append({key: value for key, value in stored.items() if key not in ("commit", "machine")})
        average = mean(found)
        columns = " | ".join(f"{value:.1f}" for value in map(average.__getitem__, COLUMNS))
        print(f"| {name} | {len(found)} | {columns} |", flush=True)
        missed += verdicts(name, average)
    print("\n" + ("\n".join(missed) or "passed"))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
