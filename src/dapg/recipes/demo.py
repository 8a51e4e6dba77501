"""The demo: the whole method at its smallest, on the embedded people; minutes on two cores.

Stage 1 on unlabelled pictures, AGW fine-tuning from it and from random weights, scores of both on clean and on
corrupted pictures of persons never seen, and a page. It shows that the machinery works; its margins mean nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dapg.evaluation.robustness import CorruptionSettings
from dapg.evaluation.stage import EvaluateSettings, evaluate
from dapg.methods.runs import BackboneConfig
from dapg.recipes.finetuning import settings as finetuning
from dapg.recipes.presets import expected_seconds
from dapg.recipes.pretraining import settings as pretraining
from dapg.report.collect import collect
from dapg.report.page import write_page
from dapg.report.tables import corruption_rows, score_rows, to_markdown
from dapg.train.stage import FinetuneSettings, PretrainSettings, finetune, pretrain

PRETRAINING, FINETUNING, MODE = "dapg", "agw", "all"
TITLE = "dapg demo: synthetic people, infrared to visible, clean and corrupted"


@dataclass(frozen=True)
class Demo:
    """Where the demo writes, and with what it runs."""

    out: Path
    seed: int = 0
    steps: int = 0
    """Steps of each training; 0: the preset's."""
    device: str = "cpu"

    def stage_1(self) -> PretrainSettings:
        """Robustness pre-training on the unlabelled pictures."""
        base = pretraining(PRETRAINING, "demo")
        train = replace(base.train, steps=self.steps or base.train.steps)
        return replace(base, train=train, seed=self.seed, out=str(self.out / "stage-1"), device=self.device)

    def fine_tuning(self, name: str, init: str) -> FinetuneSettings:
        """AGW on the training persons, from ``init``."""
        base = finetuning(FINETUNING, "demo")
        train = replace(base.train, steps=self.steps or base.train.steps)
        backbone = replace(base.backbone, init=init)
        out = str(self.out / name)
        return replace(base, train=train, backbone=backbone, seed=self.seed, out=out, device=self.device)

    def evaluations(self) -> list[EvaluateSettings]:
        """Both fine-tuned networks, clean and corrupted; beside them what needs no training."""
        base = EvaluateSettings(model="histogram", mode=MODE, height=128, width=64, seed=self.seed, device=self.device)
        corruption = CorruptionSettings(types=("all",), repeats=1, detail="lists")
        trained = [
            replace(base, model=str(self.out / name), corruption=corruption, out=str(self.out / f"scores-{name}"))
            for name in ("agw-from-stage-1", "agw-from-random")
        ]
        imagenet = BackboneConfig("mobilenet_v2", init="imagenet")
        return [
            *trained,
            replace(base, out=str(self.out / "scores-histogram")),
            replace(base, model="imagenet", backbone=imagenet, out=str(self.out / "scores-imagenet")),
        ]


def run_demo(demo: Demo, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every stage (finished ones are reused) and write the page; returns its path and the score tables."""
    stage_1 = demo.stage_1()
    say(f"[1/5] stage 1: robustness pre-training on the unlabelled pictures{_expected(stage_1, 'demo')}")
    pretrain(stage_1)
    for number, (name, init) in enumerate((("agw-from-stage-1", stage_1.out), ("agw-from-random", "random")), start=2):
        tuned = demo.fine_tuning(name, init)
        start = "stage 1" if init == stage_1.out else "random weights"
        say(f"[{number}/5] AGW fine-tuning on 100 persons from {start}{_expected(tuned, 'demo')}")
        finetune(tuned)
    say("[4/5] scores on 100 persons never seen, clean and corrupted, beside two baselines")
    for scoring in demo.evaluations():
        evaluate(scoring, torch.device(demo.device))
    say("[5/5] report")
    runs = collect([demo.out])
    page = demo.out / "report.html"
    write_page(runs, page, TITLE)
    reported = {str(run.result["feature"]) for run in runs if run.stage == "evaluate" and run.result}
    rows = [row for row in score_rows(runs) if row["feature"] in reported]
    return {"page": page, "table": f"{to_markdown(rows)}\n{to_markdown(corruption_rows(runs))}"}


def _expected(settings: PretrainSettings | FinetuneSettings, preset: str) -> str:
    """How long a training takes, where it has been measured."""
    seconds = expected_seconds(preset, settings.name, settings.train.steps * settings.train.batch_size)
    return f", about {seconds:.0f} s on two cores" if seconds else ""
