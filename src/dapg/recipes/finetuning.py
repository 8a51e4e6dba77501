"""What to run in fine-tuning: complete settings for each method at each scale.

``paper`` is the published recipe to the letter, ``recommended`` the same without the slips of its code; both are for
SYSU-MM01, RegDB and LLCM. ``gpu``, ``tiny`` and ``demo`` are for the embedded synthetic people: ``tiny`` for
experiments on two cores (at most four minutes a training), ``demo`` proves the machinery within a minute. Measured
times are in docs/results.md.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dapg.core.device import resolve_device
from dapg.core.presets import require_preset
from dapg.core.runtime import Runtime
from dapg.data.loading import LoaderConfig
from dapg.data.source import DataConfig
from dapg.evaluation.corrupted_scores import CorruptionSettings
from dapg.evaluation.validation import validator
from dapg.methods.runs import BackboneConfig, method_class
from dapg.train.finetune import FinetuneSettings, MakeValidate
from dapg.train.loop import TrainConfig
from dapg.train.optimizers import OptimizerConfig, ScheduleConfig


def settings(method: str, preset: str = "recommended") -> FinetuneSettings:
    """Complete settings of a method at a scale.

    Raises:
        UsageError: unknown method or preset.
    """
    require_preset(preset)
    kind = method_class("finetune", method)
    builders: dict[str, Callable[[str, Any], FinetuneSettings]] = {
        "recommended": _recommended,
        "paper": lambda name, _: _paper(name, kind.paper()),
        "gpu": _gpu,
        "tiny": _tiny,
        "demo": _demo,
    }
    return builders[preset](method, kind.Config())


def make_validate(settings: FinetuneSettings) -> MakeValidate:
    """The scores the loop asks for, by the rules of the data set that is trained on."""
    runtime = Runtime(resolve_device(settings.device))
    views = settings.method.views
    corruption = None
    if settings.corrupted_scores:
        corruption = CorruptionSettings(
            types=("all",), repeats=1, detail="lists", height=views.height, width=views.width, seed=settings.seed
        )
    return lambda dataset, mode, persons: validator(dataset, mode, runtime, persons, corruption)


_EPOCHS = {"caj": 100.0}
"""Published lengths that are not AGW's 81 epochs (train_ext.py of CAJ)."""


def _recommended(name: str, config: Any) -> FinetuneSettings:
    """AGW's schedule (train.py of its code) in bf16: SGD 0.1, ten warm-up epochs, x 0.1 at 20 and 50, 81 epochs."""
    return FinetuneSettings(
        name=name,
        method=config,
        data=DataConfig(name="sysu"),
        backbone=BackboneConfig("resnet50", init="imagenet", last_stride=1),
        loader=LoaderConfig(height=config.views.height, width=config.views.width, workers=8),
        train=TrainConfig(
            epochs=_EPOCHS.get(name, 81.0),
            batch_size=64,
            optimizer=OptimizerConfig("sgd", lr=0.1, lr_batch=0, weight_decay=5e-4, nesterov=True),
            schedule=ScheduleConfig("step", warmup=10.0, milestones=(20.0, 50.0), by_epoch=True),
            precision="bf16",
            checkpoint_every=1000,
        ),
        out=f"outputs/finetune/{name}",
    )


def _paper(name: str, config: Any) -> FinetuneSettings:
    """The same in single precision, with the method's published quirks."""
    base = _recommended(name, config)
    return replace(base, train=replace(base.train, precision="fp32"), out=f"outputs/finetune/{name}-paper")


def _gpu(name: str, config: Any) -> FinetuneSettings:
    """ResNet-50 from random weights on the embedded people, one GPU, some minutes."""
    base = _recommended(name, config)
    return replace(
        base,
        data=DataConfig(),
        backbone=replace(base.backbone, init="random"),
        out=f"outputs/finetune/{name}-gpu",
    )


_TINY_STEPS = {"cil": 200}
"""A CIL step encodes three views of each picture and takes more than three times as long as AGW's."""


def _tiny(name: str, config: Any) -> FinetuneSettings:
    """A quarter-width ResNet-18 at 128 x 64 with AdamW, 64 pictures a step."""
    return FinetuneSettings(
        name=name,
        method=_small(config, 128, 64),
        backbone=BackboneConfig("resnet18", width=0.25, last_stride=1),
        loader=LoaderConfig(height=128, width=64, workers=1),
        train=TrainConfig(
            steps=_TINY_STEPS.get(name, 400),
            batch_size=64,
            optimizer=OptimizerConfig("adamw", lr=2e-3, lr_batch=0, weight_decay=0.02),
            schedule=ScheduleConfig(unit="steps", warmup=40.0),
            checkpoint_every=100,
        ),
        out=f"outputs/finetune/{name}-tiny",
    )


def _demo(name: str, config: Any) -> FinetuneSettings:
    """The tiny network at 64 x 32 for less than a minute: shows that everything runs, not how well it can."""
    base = _tiny(name, config)
    return replace(
        base,
        method=_small(config, 64, 32),
        loader=replace(base.loader, height=64, width=32),
        train=replace(base.train, steps=150, checkpoint_every=50),
        out=f"outputs/finetune/{name}-demo",
    )


def _small(config: Any, height: int, width: int) -> Any:
    """The method's settings for a small input; the padding shrinks with it, and new weights get the full rate."""
    padding = round(config.views.padding * height / config.views.height)
    return replace(config, views=replace(config.views, height=height, width=width, padding=padding), trunk_rate=1.0)
