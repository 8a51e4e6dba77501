"""The demo: the whole method at its smallest, on the embedded people; minutes on two cores.

Stage 1 on unlabelled pictures, persons generated in other poses, stage 2, AGW fine-tuning from both stages, from stage
1 and from random weights, scores of all three on clean and on corrupted pictures of persons never seen, and a page. It
shows that the machinery works; its margins mean nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.runtime import Cache
from dapg.core.training import BackboneConfig
from dapg.core.types import JsonObject
from dapg.evaluation.corrupted_scores import CorruptionSettings
from dapg.evaluation.evaluate import EvaluateSettings, evaluate
from dapg.models.weights.pose_weights import load_generator
from dapg.pose.generate import GenerateSettings, generate
from dapg.recipes import alignment, finetuning, pretraining
from dapg.report.collect import collect
from dapg.report.run_page import write_page
from dapg.report.score_tables import corruption_rows, score_rows, to_markdown
from dapg.train.align import align
from dapg.train.finetune import finetune
from dapg.train.pretrain import pretrain
from dapg.train.training_settings import AlignSettings, FinetuneSettings, PretrainSettings

PRETRAINING, ALIGNMENT, FINETUNING, MODE = "dapg", "dapg_align", "agw", "all"
TITLE = "dapg demo: synthetic people, infrared to visible, clean and corrupted"


@dataclass(frozen=True)
class Demo:
    """Where the demo writes, and with what it runs."""

    out: Path
    seed: int = 0
    steps: int = 0
    """Steps of each training; 0: the preset's."""
    device: str = "cpu"
    generator: str = "embedded"
    """Of other poses: embedded, a file, or the folder of a finished `dapg pose train`."""
    aligned_pictures: int = 600
    """Pictures of the training persons that poses are generated for, and stage 2 is trained on; a third is infrared
    and left out."""

    def without_stage_2(self) -> str:
        """Why stage 2 cannot run; empty: it can. Only the package's own generator may be missing.

        Raises:
            UsageError, WeightsError: a generator that was asked for by name is not there, or damaged.
        """
        try:
            load_generator(self.generator)
        except UsageError as error:
            if self.generator != "embedded":
                raise
            return f"stage 2 (poses and alignment) is left out: {error}"
        return ""

    def stage_1(self) -> PretrainSettings:
        """Robustness pre-training on the unlabelled pictures."""
        base = pretraining(PRETRAINING, "demo")
        train = replace(base.train, steps=self.steps or base.train.steps)
        return replace(base, train=train, seed=self.seed, out=str(self.out / "stage-1"), device=self.device)

    def poses(self) -> GenerateSettings:
        """Persons that stage 2 aligns, in the four canonical poses."""
        return GenerateSettings(
            out=str(self.out / "poses"),
            split=self.stage_2().data.split,
            generator=self.generator,
            subset=self.aligned_pictures,
            seed=self.seed,
            device=self.device,
        )

    def stage_2(self) -> AlignSettings:
        """Alignment of stage 1's network on pictures of the training persons, whose labels are not used."""
        base = alignment(ALIGNMENT, "demo", self.stage_1())
        return replace(
            base,
            data=replace(base.data, subset=self.aligned_pictures),
            train=replace(base.train, steps=self.steps or base.train.steps),
            generated=str(self.out / "poses"),
            seed=self.seed,
            out=str(self.out / "stage-2"),
            device=self.device,
        )

    def fine_tuning(self, start: str) -> FinetuneSettings:
        """AGW on the training persons, from the run ``start``, or from weights of that name."""
        base = finetuning(FINETUNING, "demo")
        train = replace(base.train, steps=self.steps or base.train.steps)
        backbone = replace(base.backbone, init=str(self.out / start) if start.startswith("stage") else start)
        out = str(self.out / f"agw-from-{start}")
        return replace(base, train=train, backbone=backbone, seed=self.seed, out=out, device=self.device)

    def evaluations(self, starts: list[str]) -> list[EvaluateSettings]:
        """The fine-tuned networks, clean and corrupted; beside them what needs no training."""
        base = EvaluateSettings(model="histogram", mode=MODE, height=128, width=64, seed=self.seed, device=self.device)
        corruption = CorruptionSettings(types=("all",), repeats=1, detail="lists")
        trained = [
            replace(base, model=run, corruption=corruption, out=str(self.out / f"scores-{Path(run).name}"))
            for run in (self.fine_tuning(start).out for start in starts)
        ]
        imagenet = BackboneConfig("mobilenet_v2", init="imagenet")
        return [
            *trained,
            replace(base, out=str(self.out / "scores-histogram")),
            replace(base, model="imagenet", backbone=imagenet, out=str(self.out / "scores-imagenet")),
        ]


def run_demo(demo: Demo, say: Callable[[str], None]) -> JsonObject:
    """Run every stage (finished ones are reused) and write the page; returns its path and the score tables."""
    without = demo.without_stage_2()
    starts = ["stage-1", "random"] if without else ["stage-2", "stage-1", "random"]
    stage_1, stage_2, cache = demo.stage_1(), demo.stage_2(), Cache()
    steps: list[tuple[str, Callable[[], object]]] = [
        ("stage 1: robustness pre-training on the unlabelled pictures", partial(pretrain, stage_1))
    ]
    if not without:
        steps += [
            ("the training persons in four poses each", partial(generate, stage_2.data, demo.poses())),
            ("stage 2: alignment with the persons in other poses", partial(align, stage_2)),
        ]
    for start in starts:
        title = f"AGW fine-tuning on 200 persons from {_NAMES[start]}"
        steps.append((title, partial(finetune, demo.fine_tuning(start))))
    steps.append(
        (
            "scores on 200 persons never seen, clean and corrupted, beside two baselines",
            lambda: [evaluate(settings, cache) for settings in demo.evaluations(starts)],
        )
    )
    if without:
        say(without)
    for number, (title, work) in enumerate(steps, start=1):
        say(f"[{number}/{len(steps) + 1}] {title}")
        work()
    say(f"[{len(steps) + 1}/{len(steps) + 1}] report")
    runs = collect([demo.out])
    page = demo.out / "report.html"
    write_page(runs, page, TITLE, without)
    reported = {str(run.result["feature"]) for run in runs if run.stage == "evaluate" and run.result}
    rows = [row for row in score_rows(runs) if row["feature"] in reported]
    return {"page": page, "table": f"{to_markdown(rows)}\n{to_markdown(corruption_rows(runs))}"}


_NAMES = {"stage-2": "both stages", "stage-1": "stage 1 alone", "random": "random weights"}
