"""The demo: the whole method on the embedded people, minutes on two cores, and a page that says what came out.

Stage 1 on unlabelled images, persons generated in other poses, stage 2, AGW from both stages, from ImageNet and from
random weights, scores on persons never seen, clean and corrupted, and ranked lists of queries drawn by the seed. What
does not depend on each other runs two at a time. ``fast`` takes the package's trained networks instead of training.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from dapg.core.errors import UsageError
from dapg.core.run_folder import RESULT
from dapg.core.scales import SCALES
from dapg.core.types import JsonObject
from dapg.core.words import without_folders
from dapg.data.sets.synthetic import Synthetic
from dapg.evaluation.comparison import combine_results, compare_results
from dapg.evaluation.corrupted_scores import CorruptionSettings
from dapg.evaluation.evaluate import EvaluateSettings, evaluate
from dapg.models.weights.addresses import zoo
from dapg.models.weights.pose_weights import load_generator
from dapg.pipelines.demo_search import LISTED, PERSONS, search
from dapg.pose.generate import GenerateSettings, generate
from dapg.recipes import alignment, finetuning, pretraining
from dapg.report.collect import collect
from dapg.report.demo_page import OURS, Bounds, DemoPage, Gap, Scored, write_demo
from dapg.report.run_page import write_page
from dapg.training.align import align
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain
from dapg.training.training_settings import AlignSettings, FinetuneSettings, PretrainSettings

SCALE, PRETRAINING, ALIGNMENT, FINETUNING, MODE = "small", "dapg", "dapg_align", "agw", "all-100"
LENGTHS = {"pretrain": 130, "align": 100}
"""Steps of stage 1 and of stage 2, less than half of the scale's, so that the demo takes minutes."""
TITLE = "Who is it in the dark? The demo of DAPG on synthetic people"
TRAINED = {"stage-2": "both stages", "stage-1": "stage 1", "imagenet": "ImageNet", "random": "random weights"}
"""Where AGW starts from -> in words."""
READY = {"stage-1": "agw-dapg-small", "imagenet": "agw-imagenet-small"}
"""The same -> name of a trained network of the package."""
Step = tuple[str, Callable[[], object]]
"""What is said, and what is done."""


@dataclass(frozen=True)
class Demo:
    """Where the demo writes, and with what it runs."""

    out: Path
    seed: int = 0
    steps: int = 0
    """Steps of each training; 0: the demo's."""
    device: str = "cpu"
    generator: str = "embedded"
    """Of other poses: embedded, a file, or the folder of a finished `dapg pose train`."""
    aligned_images: int = 600
    """Unlabelled images whose persons are generated in other poses, and that stage 2 is trained on."""
    fast: bool = False
    """Train nothing: score the package's own networks."""
    processes: int = 2
    """Trainings at a time; 1: all in this process."""

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
            return f"Stage 2 (poses and alignment) is left out: {error}"
        return ""

    def stage_1(self) -> PretrainSettings:
        """Robustness pre-training on the unlabelled images, from ImageNet."""
        base = pretraining(PRETRAINING, SCALE)
        train = replace(base.train, steps=self.steps or LENGTHS["pretrain"])
        return replace(base, train=train, seed=self.seed, out=str(self.out / "stage-1"), device=self.device)

    def poses(self) -> GenerateSettings:
        """Persons that stage 2 aligns, in the four canonical poses."""
        return GenerateSettings(
            out=str(self.out / "poses"),
            split=self.stage_2().data.split,
            generator=self.generator,
            subset=self.aligned_images,
            seed=self.seed,
            device=self.device,
        )

    def stage_2(self) -> AlignSettings:
        """Alignment of stage 1's network on unlabelled images."""
        base = alignment(ALIGNMENT, SCALE, self.stage_1())
        return replace(
            base,
            data=replace(base.data, split="unlabelled", subset=self.aligned_images),
            train=replace(base.train, steps=self.steps or LENGTHS["align"]),
            generated=str(self.out / "poses"),
            seed=self.seed,
            out=str(self.out / "stage-2"),
            device=self.device,
        )

    def fine_tuning(self, start: str) -> FinetuneSettings:
        """AGW on the training persons, from the run ``start``, or from weights of that name."""
        base = finetuning(FINETUNING, SCALE, "random" if start == "random" else "imagenet")
        train = replace(base.train, steps=self.steps or base.train.steps)
        backbone = replace(base.backbone, init=str(self.out / start) if start.startswith("stage") else start)
        out = str(self.out / f"agw-from-{start}")
        return replace(base, train=train, backbone=backbone, seed=self.seed, out=out, device=self.device)

    def model(self, start: str) -> str:
        """A fine-tuned network, as everything that scores takes it."""
        return READY[start] if self.fast else self.fine_tuning(start).out

    def evaluation(self, start: str) -> EvaluateSettings:
        """Its scores on the test persons, clean and corrupted."""
        height, width = SCALES[SCALE].decoded or (0, 0)
        corruption = CorruptionSettings(("all",), height=height, width=width, repeats=1, detail="lists")
        return EvaluateSettings(
            self.model(start),
            mode=MODE,
            corruption=corruption,
            ranked_lists=0,
            seed=self.seed,
            device=self.device,
            out=str(self.out / f"scores-agw-from-{start}"),
        )


def run_demo(demo: Demo, say: Callable[[str], None], registered: str = "") -> JsonObject:
    """Run every step (finished ones are reused) and write the page; returns its path, its first sentence and scores.

    Args:
        demo: what to run.
        say: takes a line of progress.
        registered: what registered comparisons have shown, in words, for the page.
    """
    without = "" if demo.fast else demo.without_stage_2()
    lanes = _scoring_only(demo) if demo.fast else _lanes(demo, bool(without))
    if without:
        say(without)
    total = sum(map(len, lanes)) + 2
    counted = iter(range(1, total + 1))

    def announce(title: str) -> None:
        say(f"[{next(counted)}/{total}] {title}")

    _run(lanes, demo.processes, announce)
    starts = [start for start in TRAINED if (demo.out / f"scores-agw-from-{start}").is_dir()]
    announce(f"searches in a gallery of {PERSONS} persons, clean and in fog")
    dataset = Synthetic()
    searches = {start: search(demo.model(start), dataset, demo.seed, demo.device) for start in starts[:2]}
    announce("page")
    return _pages(demo, starts, searches, [line for line in (without, registered) if line])


def _lanes(demo: Demo, without_stage_2: bool) -> list[list[Step]]:
    """Steps that follow one another, in lanes that do not depend on each other."""
    stage_1, stage_2 = demo.stage_1(), demo.stage_2()
    ours: list[Step] = [("stage 1: robustness pre-training on the unlabelled images", partial(pretrain, stage_1))]
    if not without_stage_2:
        ours += [
            (f"{demo.aligned_images} persons in four poses each", partial(generate, stage_2.data, demo.poses())),
            ("stage 2: alignment with the persons in other poses", partial(align, stage_2)),
        ]
    ours += _tuned_and_scored(demo, "stage-1" if without_stage_2 else "stage-2")
    return [ours, [*_tuned_and_scored(demo, "imagenet"), *_tuned_and_scored(demo, "random")]]


def _tuned_and_scored(demo: Demo, start: str) -> list[Step]:
    tuning = f"AGW on 200 persons from {TRAINED[start]}"
    return [
        (tuning, partial(finetune, demo.fine_tuning(start))),
        (f"scores of AGW from {TRAINED[start]}, clean and corrupted", partial(evaluate, demo.evaluation(start))),
    ]


def _scoring_only(demo: Demo) -> list[list[Step]]:
    ready = [start for start, name in READY.items() if name in zoo()]
    return [[(f"scores of {READY[start]}", partial(evaluate, demo.evaluation(start)))] for start in ready]


def _run(lanes: Sequence[Sequence[Step]], processes: int, announce: Callable[[str], None]) -> None:
    """Each lane's steps in order; lanes side by side, in processes of their own, where there are several."""
    if processes == 1:
        for title, work in (step for lane in lanes for step in lane):
            announce(title)
            work()
        return
    threads = max(1, torch.get_num_threads() // processes)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool,
        ThreadPoolExecutor(len(lanes)) as drivers,
    ):

        def drive(lane: Sequence[Step]) -> None:
            for title, work in lane:
                announce(title)
                pool.submit(work).result()

        for finished in [drivers.submit(drive, lane) for lane in lanes]:
            finished.result()


def _pages(demo: Demo, starts: Sequence[str], searches: JsonObject, notes: Sequence[str]) -> JsonObject:
    runs = [run for run in collect([demo.out]) if run.stage != "evaluate" or _start_of(run.folder) in starts]
    results = {_start_of(run.folder): run.result for run in runs if run.stage == "evaluate" and run.result}
    scored = [_with_intervals(demo, starts, Scored.of(start, TRAINED[start], results[start])) for start in starts]
    details = demo.out / "details.html"
    write_page(runs, details, "Everything that the demo trained and scored")
    sheet = demo.out / "stage-2" / "positives.jpg"
    page = DemoPage(
        title=TITLE,
        scored=scored,
        searches={TRAINED[start]: search for start, search in searches.items()},
        seed=demo.seed,
        persons=PERSONS,
        listed=LISTED,
        poses=sheet.read_bytes() if sheet.exists() and not demo.fast else b"",
        notes=notes,
        serve=f"dapg serve --demo {without_folders(str(demo.out))}",
        details=details.name,
    )
    sentence = write_demo(demo.out / "report.html", page)
    return {"page": demo.out / "report.html", "sentence": sentence, "table": page.table()}


def _with_intervals(demo: Demo, starts: Sequence[str], scored: Scored) -> Scored:
    """With intervals over test persons, and ours minus it, unless it is ours itself."""
    own = Path(demo.evaluation(scored.start).out)
    together = combine_results([own])
    bounds = _bounds(together["clean"]), _bounds(together["corrupted"]["all"])
    ours = next((start for start in OURS if start in starts), "")
    if not ours or scored.start in OURS:
        return replace(scored, intervals=bounds)
    best = Path(demo.evaluation(ours).out)
    return replace(scored, intervals=bounds, behind=(_gap(own, best, ""), _gap(own, best, "all")))


def _bounds(scores: JsonObject) -> Bounds:
    interval = scores["intervals"]["mAP"]
    return 100 * interval["low"], 100 * interval["high"]


def _gap(other: Path, ours: Path, corrupted: str) -> Gap:
    (comparison,) = compare_results([other], [ours], corrupted=corrupted)
    difference = comparison["differences"]["mAP"]
    return Gap(*(100 * difference[name] for name in ("value", "low", "high")))


def trained_network(folder: Path) -> str:
    """The network that a finished demo's search page takes: ours where there is one; empty: no demo is there."""
    for start in TRAINED:
        if (folder / f"agw-from-{start}" / RESULT).is_file():
            return str(folder / f"agw-from-{start}")
    return next((READY[start] for start in READY if (folder / f"scores-agw-from-{start}" / RESULT).is_file()), "")


def _start_of(folder: Path) -> str:
    return folder.name.removeprefix("scores-agw-from-")
