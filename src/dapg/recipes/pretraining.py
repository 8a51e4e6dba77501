"""What to run in pre-training: complete settings for each method at each scale.

``demo`` proves the machinery in a minute, ``tiny`` is for experiments on two cores (at most four minutes a training),
``gpu`` for one GPU (under an hour), ``recommended`` and ``paper`` for LUPerson-sized data. Measured times are in
docs/results.md.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dapg.core.device import resolve_device
from dapg.core.presets import require_preset
from dapg.core.runtime import Runtime
from dapg.data.loading import LoaderConfig
from dapg.data.source import DataConfig, open_dataset
from dapg.evaluation.validation import validator
from dapg.methods.runs import BackboneConfig, method_class
from dapg.train.loop import TrainConfig, Validate
from dapg.train.optimizers import OptimizerConfig, ScheduleConfig
from dapg.train.pretrain import PretrainSettings

LABELLED = ("supervised", "pnl")
"""Methods that learn from labels; PNL's may be pseudo-persons."""


_BEYOND = {"dapg": {"channel": 0.5}}
"""What ``recommended`` adds to a method as it helped in the experiments (docs/results.md); not for the matrix."""


def settings(method: str, preset: str = "recommended") -> PretrainSettings:
    """Complete settings of a method at a scale.

    Raises:
        UsageError: unknown method or preset.
    """
    require_preset(preset)
    kind = method_class("pretrain", method)
    builders: dict[str, Callable[[str, Any], PretrainSettings]] = {
        "recommended": lambda name, config: _recommended(name, replace(config, **_BEYOND.get(name, {}))),
        "paper": lambda name, config: _paper(name, kind.paper()),
        "gpu": _gpu,
        "tiny": _tiny,
        "demo": _demo,
    }
    return builders[preset](method, kind.Config())


def validation(settings: PretrainSettings) -> Validate | None:
    """The scores the loop asks for, by the rules of the data set that is trained on."""
    if not settings.validation:
        return None
    runtime = Runtime(resolve_device(settings.device))
    return validator(open_dataset(settings.data), settings.validation, runtime)


def _recommended(name: str, config: Any) -> PretrainSettings:
    """ResNet-50 at 256 x 128, 200 epochs, cosine, linear scaling from 256 pictures (LUPerson's schedule).

    SimCLR and BYOL take LARS as published (lightly's ImageNet benchmarks: 0.3 and 0.45 per 256 pictures, ten warm-up
    epochs). DAPG, whose own rate does not train (see ``_paper``), takes MoCo's with ten warm-up epochs. PNL takes
    0.4 per 1536 pictures, 90 epochs, steps at 40 and 80 (DengpanFu/LUPerson-NL); VTBR
    0.2 per 128, 2 % warm-up and clipped gradients (JeremyXSC/VTBR). Supervised takes Adam and the steps of
    the AGW baseline on one modality (mangye16/ReID-Survey).
    """
    if name == "supervised":
        return _supervised(config)
    optimizer, schedule = OptimizerConfig("sgd", lr=0.03, weight_decay=1e-4), ScheduleConfig(by_epoch=True)
    if name == "dapg":
        schedule = replace(schedule, warmup=10.0)
    if name == "pnl":
        optimizer = replace(optimizer, lr=0.4, lr_batch=1536)
        schedule = ScheduleConfig("step", by_epoch=True, milestones=(40.0, 80.0))
    if name == "vtbr":
        optimizer, schedule = (
            OptimizerConfig("sgd", lr=0.2, lr_batch=128, weight_decay=1e-4),
            ScheduleConfig(warmup=4.0),
        )
    if name in _LARS_RATE:
        optimizer = OptimizerConfig("lars", lr=_LARS_RATE[name], weight_decay=1e-6)
        schedule = ScheduleConfig(warmup=10.0)
    return PretrainSettings(
        name=name,
        method=config,
        data=DataConfig(name="luperson"),
        backbone=BackboneConfig("resnet50"),
        train=TrainConfig(
            epochs=90.0 if name == "pnl" else 200.0,
            batch_size=256,
            optimizer=optimizer,
            schedule=schedule,
            precision="bf16",
            clip_norm=10.0 if name == "vtbr" else 0.0,
        ),
        loader=LoaderConfig(workers=8),
        out=f"outputs/pretrain/{name}",
    )


def _paper(name: str, config: Any) -> PretrainSettings:
    """The literal settings of the method's source.

    DAPG: Adam at 0.0075 (MoCo's SGD rate for the 64 pictures we suppose), 300 epochs, 20,000 pictures of LUPerson. It
    goes on after a collapse, and says so.
    """
    base = replace(_recommended(name, config), out=f"outputs/pretrain/{name}-paper")
    if name != "dapg":
        return base
    optimizer, schedule = OptimizerConfig("adam", lr=0.0075, lr_batch=0, weight_decay=0.0), ScheduleConfig()
    return replace(
        base,
        data=replace(base.data, subset=20_000),
        train=replace(
            base.train, epochs=300.0, batch_size=64, optimizer=optimizer, schedule=schedule, on_collapse="warn"
        ),
    )


_LARS_RATE = {"simclr": 0.3, "byol": 0.45}
"""Learning rate for 256 pictures of the methods that are published with LARS."""


def _supervised(config: Any) -> PretrainSettings:
    """ResNet-50 at 256 x 128 on Market-1501's training persons: Adam at 3.5e-4, 120 epochs, steps at 40 and 70."""
    return PretrainSettings(
        name="supervised",
        method=config,
        data=DataConfig(name="market1501", split="train"),
        backbone=BackboneConfig("resnet50", last_stride=1),
        train=TrainConfig(
            epochs=120.0,
            batch_size=64,
            optimizer=OptimizerConfig("adam", lr=3.5e-4, lr_batch=64, weight_decay=5e-4),
            schedule=ScheduleConfig("step", warmup=10.0, milestones=(40.0, 70.0)),
            precision="bf16",
        ),
        loader=LoaderConfig(workers=8),
        out="outputs/pretrain/supervised",
    )


def _gpu(name: str, config: Any) -> PretrainSettings:
    """ResNet-50 on one GPU in under an hour: 10,000 pictures, 200 epochs, bf16."""
    base = _recommended(name, config)
    return replace(base, data=_synthetic(name), out=f"outputs/pretrain/{name}-gpu")


_TINY_STEPS = {"dapg": 200}
"""Stage 1 encodes and corrupts four views of each picture: 300 steps take more than four minutes of two cores."""


def _tiny(name: str, config: Any) -> PretrainSettings:
    """A quarter-width ResNet-18 at 128 x 64 with AdamW, 64 pictures a step."""
    return PretrainSettings(
        name=name,
        method=small(config, 128, 64),
        data=_synthetic(name),
        backbone=BackboneConfig("resnet18", width=0.25),
        loader=LoaderConfig(height=128, width=64, workers=1),
        train=TrainConfig(
            steps=_TINY_STEPS.get(name, 300),
            batch_size=64,
            optimizer=OptimizerConfig("adamw", lr=2e-3, lr_batch=0, weight_decay=1e-4),
            schedule=ScheduleConfig(unit="steps", warmup=20.0),
            checkpoint_every=50,
        ),
        out=f"outputs/pretrain/{name}-tiny",
    )


def _demo(name: str, config: Any) -> PretrainSettings:
    """The tiny network at 64 x 32 for about half a minute: shows that everything runs, not how well it can."""
    base = _tiny(name, config)
    return replace(
        base,
        method=small(config, 64, 32),
        loader=replace(base.loader, height=64, width=32),
        train=replace(base.train, steps=120, checkpoint_every=40),
        out=f"outputs/pretrain/{name}-demo",
    )


def _synthetic(name: str) -> DataConfig:
    """Embedded people: the unlabelled ones, or, for a method that learns from labels, the training persons."""
    return DataConfig(split="train" if name in LABELLED else "")


def small(config: Any, height: int, width: int) -> Any:
    """The method's settings for a small input, a small head and little data.

    The noise chain works at the input's size, not at 256 x 128, which costs a fifth of the time; blurs and the like,
    whose severities are in pixels, are stronger there for the same severity (docs/training.md).
    """
    changes: dict[str, Any] = {"views": replace(config.views, height=height, width=width)}
    if hasattr(config, "chain"):
        changes["chain"] = replace(config.chain, height=height, width=width)
    if hasattr(config, "text_rate"):
        changes |= {"text_rate": 1.0, "width": 128, "attention_heads": 4, "hidden": 256, "vocabulary": 1_000}
    if hasattr(config, "head"):
        changes["head"] = replace(config.head, hidden_dim=256, output_dim=64)
    if hasattr(config, "momentum"):
        changes["momentum"] = 0.99
    if hasattr(config, "negatives"):
        changes["negatives"] = "batch"  # a momentum encoder of some hundred steps is hardly trained (docs/log.md)
    return replace(config, **changes)
