"""The demo: unlabelled synthetic people, a pre-training, scores beside baselines, and a page. Minutes on two cores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dapg.data.source import DataConfig
from dapg.evaluation.stage import EvaluateSettings, evaluate
from dapg.methods.runs import BackboneConfig
from dapg.recipes.presets import expected_seconds
from dapg.recipes.pretraining import settings as pretraining
from dapg.report.collect import collect
from dapg.report.page import write_page
from dapg.report.tables import score_rows, to_markdown
from dapg.train.stage import PretrainSettings, pretrain

METHODS = ("mocov2", "simclr")
MODE = "visible"


def training_settings(out: Path, method: str, seed: int, steps: int, device: str) -> PretrainSettings:
    """One of the demo's pre-trainings on the embedded unlabelled pictures."""
    base = pretraining(method, "demo")
    train = replace(base.train, steps=steps) if steps else base.train
    return replace(base, train=train, seed=seed, out=str(out / method), device=device)


def evaluations(out: Path, seed: int, device: str) -> list[EvaluateSettings]:
    """The trained networks, then what they must beat: untrained weights, colours alone, ImageNet."""
    small = pretraining(METHODS[0], "demo")
    size = small.method.views
    base = EvaluateSettings(
        model="random",
        data=DataConfig(),
        mode=MODE,
        backbone=small.backbone,
        height=size.height,
        width=size.width,
        seed=seed,
        device=device,
        workers=1,
    )
    runs = [replace(base, model=str(out / name), out=str(out / f"scores-{name}")) for name in METHODS]
    imagenet = BackboneConfig("mobilenet_v2", init="imagenet")
    return [
        *runs,
        replace(base, out=str(out / "scores-random")),
        replace(base, model="histogram", out=str(out / "scores-histogram")),
        replace(base, model="imagenet", backbone=imagenet, height=128, width=64, out=str(out / "scores-imagenet")),
    ]


def run_demo(out: Path, seed: int, steps: int, device: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every stage (finished ones are reused) and write the page; returns its path and the score table."""
    for number, method in enumerate(METHODS, start=1):
        settings = training_settings(out, method, seed, steps, device)
        seconds = expected_seconds("demo", method, settings.train.steps * settings.train.batch_size) or 0
        say(
            f"[{number}/{len(METHODS) + 2}] pre-training {method} on the embedded unlabelled pictures, "
            f"about {seconds:.0f} s on two cores"
        )
        pretrain(settings)
    say(f"[{len(METHODS) + 1}/{len(METHODS) + 2}] scores on persons never seen, beside three baselines")
    target = torch.device(device)
    for scoring in evaluations(out, seed, device):
        evaluate(scoring, target)
    say(f"[{len(METHODS) + 2}/{len(METHODS) + 2}] report")
    runs = collect([out])
    page = out / "report.html"
    write_page(runs, page, "dapg demo: synthetic people, visible to visible across cameras")
    return {"page": page, "table": to_markdown(score_rows(runs))}
