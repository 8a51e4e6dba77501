"""Scores of the fine-tuners on the embedded people, clean and corrupted, from several first weights.

usage: python benchmarks/finetuning_scores.py [--preset tiny] [--methods agw cil caj pmwgcn] [--inits random imagenet]
                                              [--seeds 0 1 2] [--steps 0] [--out outputs/finetune-scores]
       python benchmarks/finetuning_scores.py --table

``--inits`` are random (the preset's network), imagenet (the embedded MobileNetV2), or folders of finished
pre-trainings. ``pmwgcn-mask``, ``pmwgcn-wavelet`` and ``pmwgcn-graph`` are the reconstruction without that part. Runs
are resumed and finished ones reused; each leaves a file below results/finetune, and the table is made from these files
alone. Each seed is finished for all methods before the next begins.
"""

import argparse
import hashlib
import json
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dapg.core.files import read_json, write_json
from dapg.core.settings import to_dict
from dapg.evaluation.bootstrap import MEASURES, intervals, read_query_scores
from dapg.evaluation.robustness import CorruptionSettings
from dapg.evaluation.stage import EvaluateSettings, evaluate
from dapg.methods.runs import BackboneConfig
from dapg.recipes.finetuning import settings
from dapg.train.stage import FinetuneSettings, finetune

RESULTS = Path(__file__).resolve().parents[1] / "results" / "finetune"


def recipe(label: str, init: str, seed: int, preset: str, steps: int) -> FinetuneSettings:
    """The preset's settings; ``pmwgcn-PART`` takes that part away."""
    method, _, missing = label.partition("-")
    chosen = settings(method, preset)
    if missing == "mask":
        chosen = replace(chosen, method=replace(chosen.method, mask=0.0))
    elif missing:
        chosen = replace(chosen, method=replace(chosen.method, block=replace(chosen.method.block, **{missing: False})))
    if init == "imagenet":
        chosen = replace(chosen, backbone=BackboneConfig("mobilenet_v2", init="imagenet", last_stride=1))
    elif init != "random":
        chosen = replace(chosen, backbone=replace(chosen.backbone, init=init))
    train = replace(chosen.train, steps=steps) if steps else chosen.train
    return replace(chosen, train=train, seed=seed, device="cpu")


def short_hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def run(chosen: FinetuneSettings, label: str, init: str, preset: str, repeats: int, out: Path) -> None:
    """Train and score once; write the result file."""
    name = f"{label}-{Path(init).name}-{chosen.seed}"
    folder = out / preset / name
    trained = finetune(replace(chosen, out=str(folder)))
    corruption = (
        CorruptionSettings(types=("all",), detail="lists", repeats=repeats) if repeats else CorruptionSettings()
    )
    scores = folder / (f"all-corrupted-{repeats}" if repeats else "all")
    scored = evaluate(
        EvaluateSettings(str(folder), mode="all", corruption=corruption, ranked_lists=0, workers=0, out=str(scores)),
        torch.device("cpu"),
    )
    values = to_dict(chosen)
    for key in ("out", "device", "seed"):
        del values[key]
    feature = scored["feature"]
    result = {
        "method": label,
        "init": Path(init).name,
        "network": chosen.backbone.name,
        "preset": preset,
        "seed": chosen.seed,
        "settings_hash": short_hash(values),
        "settings": values,
        "training_data": trained["data"],
        "test_data": scored["data"],
        "weights": scored["weights"],
        "steps": trained["steps"],
        "seconds": trained["seconds"],
        "feature": feature,
        "clean": {**_measures(scored["scores"][feature]), "intervals": scored["intervals"]},
        "corrupted": {
            row["name"]: {**{m: row["scores"][feature][m] for m in MEASURES}, "intervals": row["intervals"]}
            for row in scored.get("corrupted", [])
        },
        "query_scores": (scores / scored["per_query"]).relative_to(out).as_posix(),
        "corruption": to_dict(corruption),
    }
    write_json(RESULTS / preset / f"{name}.json", result)


def _measures(scores: dict[str, Any]) -> dict[str, float]:
    return {"rank-1": scores["cmc"][0], "mAP": scores["mAP"], "mINP": scores["mINP"]}


def table(preset: str, out: Path) -> str:
    """Mean over seeds (standard deviation), and the interval of clean rank-1 over test persons and seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((RESULTS / preset).glob("*.json")):
        result = read_json(path)
        groups[result["init"], result["method"]].append(result)
    lines = [
        "| first weights | method | steps | seeds | rank-1 | 95 % of rank-1 | mAP | corrupted rank-1 | seen | unseen "
        "| corrupted mAP |\n|---|---|---|---|---|---|---|---|---|---|---|"
    ]
    for (init, method), results in sorted(groups.items(), key=lambda item: (item[0][0] != "random", item[0])):
        steps = {result["steps"] for result in results}
        if len({result["settings_hash"] for result in results}) > 1:
            raise SystemExit(f"results of {method} from {init} come from different settings; delete the older ones")
        low, high = _interval(results, out)
        cells = [
            _spread([result["clean"]["rank-1"] for result in results]),
            f"{100 * low:.1f} to {100 * high:.1f}",
            _spread([result["clean"]["mAP"] for result in results]),
            *(_corrupted(results, name, "rank-1") for name in ("all", "seen", "unseen")),
            _corrupted(results, "all", "mAP"),
        ]
        lines.append(f"| {init} | {method} | {max(steps)} | {len(results)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _corrupted(results: list[dict[str, Any]], name: str, measure: str) -> str:
    if not all(result["corrupted"] for result in results):
        return "not scored"
    return _spread([result["corrupted"][name][measure] for result in results])


def _spread(values: list[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * statistics.stdev(values):.1f})"


def _interval(results: list[dict[str, Any]], out: Path) -> tuple[float, float]:
    """Over persons and seeds where the query scores are still there, else of the only seed."""
    paths = [out / result["query_scores"] for result in results]
    if all(path.is_file() for path in paths):
        feature = results[0]["feature"]
        found = intervals([read_query_scores(path)[feature] for path in paths])["rank-1"]
        return found.low, found.high
    if len(results) > 1:
        raise SystemExit(f"an interval over seeds needs the query scores of all: {', '.join(map(str, paths))}")
    stored = results[0]["clean"]["intervals"]["rank-1"]
    return stored["low"], stored["high"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--methods", nargs="+", default=["agw", "cil", "caj", "pmwgcn"])
    parser.add_argument("--inits", nargs="+", default=["random", "imagenet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2, help="corrupted test sets of each list; 0: clean only")
    parser.add_argument("--out", type=Path, default=Path("outputs/finetune-scores"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        for seed in options.seeds:
            for init in options.inits:
                for label in options.methods:
                    chosen = recipe(label, init, seed, options.preset, options.steps)
                    run(chosen, label, init, options.preset, options.repeats, options.out)
    print(table(options.preset, options.out))


if __name__ == "__main__":
    main()
