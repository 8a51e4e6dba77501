"""What to run: complete settings of every method at every scale, and the scores asked for during training.

The scales are in ``core/scales.py``; what a method has of its own is in its file (``Method.recipe``). Measured times
are in docs/results/speed.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.run_folder import CONFIG
from dapg.core.runtime import Runtime
from dapg.core.scales import SCALES, Scale, Stage, require_preset
from dapg.core.schema import read_settings
from dapg.core.settings import from_dict, to_dict
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import JsonObject
from dapg.data.loading import LoaderConfig
from dapg.data.source import open_dataset
from dapg.evaluation.validation import validator
from dapg.methods.alignment.base import AlignmentConfig
from dapg.methods.base import Method, MethodConfig, Recipe
from dapg.methods.runs import method_class
from dapg.training.loop import MakeValidate, Validate
from dapg.training.training_settings import AlignSettings, FinetuneSettings, PretrainSettings


def pretraining(method: str, preset: str = "recommended", start: str = "") -> PretrainSettings:
    """Complete settings of a method of ``methods/pretraining`` at a scale.

    Args:
        method: its name.
        preset: the scale.
        start: one of the scale's starts (random, imagenet); empty: the stage's usual one.

    Raises:
        UsageError: unknown method, preset or start.
    """
    return PretrainSettings(**_settings("pretrain", method, preset, start))


def finetuning(method: str, preset: str = "recommended", start: str = "") -> FinetuneSettings:
    """The same of a method of ``methods/finetuning``."""
    settings = FinetuneSettings(**_settings("finetune", method, preset, start))
    return replace(settings, pictures=SCALES[preset].pictures)


def alignment(
    method: str, preset: str = "recommended", init: str | PretrainSettings = "", start: str = ""
) -> AlignSettings:
    """The same of a method of ``methods/alignment``, fitted to the run that it goes on from.

    Args:
        method: its name.
        preset: the scale.
        init: where the first weights come from; empty: ``start``. Of a run's folder the network, the input size and
            the head's shape are taken over too, and just so of the settings of a run that need not have been made yet.
        start: one of the scale's starts.
    """
    chosen = AlignSettings(**_settings("align", method, preset, start))
    if isinstance(init, PretrainSettings):
        return _following(chosen, to_dict(init), init.out)
    if init and (Path(init) / CONFIG).is_file():
        return _following(chosen, read_settings(Path(init) / CONFIG, _Before), init)
    return replace(chosen, backbone=replace(chosen.backbone, init=init)) if init else chosen


class _Before(TypedDict):
    backbone: dict[str, object]
    method: NotRequired[dict[str, object]]


def _following(chosen: AlignSettings, before: JsonObject, init: str) -> AlignSettings:
    """The same for the network of an earlier run."""
    backbone = replace(from_dict(BackboneConfig, before["backbone"], f"settings of {init}: backbone."), init=init)
    assert isinstance(chosen.method, AlignmentConfig)
    method = chosen.method.following(before.get("method", {}))
    height, width = method.views.size
    return replace(chosen, backbone=backbone, method=method, loader=replace(chosen.loader, height=height, width=width))


def _settings(stage: Stage, name: str, preset: str, start: str) -> JsonObject:
    """Fields of a training's settings."""
    require_preset(preset)
    kind, scale = method_class(stage, name), SCALES[preset]
    recipe = kind.recipe(_usual(kind, stage, scale, start))
    out = f"outputs/{stage}/{name}" + ("" if scale.settings == "recommended" else f"-{scale.name}")
    parts = {part: getattr(recipe, part) for part in ("method", "data", "backbone", "loader", "train")}
    return {"name": name, "out": out, **parts}


def _usual(kind: type[Method], stage: Stage, scale: Scale, start: str) -> Recipe:
    """What every method of a stage has at a scale."""
    usual = scale.stages[stage]
    start = start or usual.start
    if start not in scale.starts:
        raise UsageError(f"--preset {scale.name} starts from {' or '.join(scale.starts)}, not from {start!r}")
    named: dict[str, Callable[[], MethodConfig]]
    named = {"default": kind.Config, "recommended": kind.recommended, "paper": kind.paper}
    method = named[scale.settings]().at(scale)
    height, width = (stage == "pretrain" and scale.decoded) or method.views.size
    labelled = stage == "pretrain" and kind.needs_labels
    return Recipe(
        scale=scale,
        method=method,
        data=DataConfig(usual.data, split=scale.labelled if labelled else usual.split),
        backbone=replace(scale.starts[start].backbone, last_stride=usual.last_stride),
        loader=LoaderConfig(height=height, width=width, workers=scale.workers),
        train=scale.starts[start].train[stage],
    )


def validation(settings: PretrainSettings) -> Validate | None:
    """The scores a pre-training or alignment asks for, by the rules of the data set that is trained on."""
    if not settings.validation:
        return None
    return validator(open_dataset(settings.data), settings.validation, Runtime(resolve_device(settings.device)))


def make_validate(settings: FinetuneSettings) -> MakeValidate:
    """The scores a fine-tuning asks for, by the rules of the data set that is trained on."""
    runtime, further = Runtime(resolve_device(settings.device)), None
    if settings.corrupted_scores:
        from dapg.evaluation.corrupted_scores import CorruptionSettings, corrupted_means

        height, width = settings.method.views.size
        corruption = CorruptionSettings(
            ("all",), height=height, width=width, seed=settings.seed, repeats=1, detail="lists"
        )
        further = corrupted_means(corruption, runtime)
    return lambda dataset, mode, persons: validator(dataset, mode, runtime, persons, further)
