"""Public as ``dapg.train``: one call from a folder of images to a trained network."""

from collections.abc import Mapping
from pathlib import Path

from dapg.core import plugins
from dapg.core.errors import UsageError, nearest
from dapg.core.scales import Stage
from dapg.core.settings import merge, nested
from dapg.core.types import JsonObject
from dapg.data.source import parse_source
from dapg.methods.runs import FOLDERS
from dapg.recipes import alignment, finetuning, make_validate, pretraining, validation
from dapg.training.align import align
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain


def train(
    data: str | Path,
    method: str = "dapg",
    *,
    out: str | Path = "",
    init: str | Path = "",
    preset: str = "small",
    steps: int = 0,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Train a network on a folder of images; ``dapg.load`` takes what is returned.

    A pre-training method (``dapg``, ``mocov2``, ...) takes any images of people. A fine-tuning method (``agw``, ...)
    takes persons seen in visible and infrared light: a folder with ``labels.csv``, or a public data set. The alignment
    ``dapg_align`` goes on from ``init``, and takes ``settings={"generator": "embedded"}`` or generated poses. Called
    again, a training that was interrupted goes on, and a finished one is reused.

    Args:
        data: a folder of images, or a data set as ``NAME`` or ``NAME=PATH`` (``synthetic`` is embedded).
        method: a file of ``dapg/methods``; it decides between pre-training, alignment and fine-tuning.
        out: folder of the run; empty: below ``outputs``, by kind of training and method.
        init: where the first weights come from: ``random``, ``imagenet``, a weights file, or the folder of a run, such
            as an earlier ``train`` returned; empty: the preset's.
        preset: a scale of ``core/scales.py``. ``small`` takes minutes on one core; ``recommended`` is for a GPU.
        steps: optimiser steps; 0: the preset's.
        settings: further settings by their names on the command line, such as ``{"seed": 1, "train.batch_size": 32}``.

    Returns:
        The folder of the run, with weights, settings, scores and ``result.json``.

    Raises:
        UsageError: no such method, preset or setting, images without the labels a method needs, or a folder that holds
            another run.
        DataError: the folder holds no images, or a list in it is wrong.
        WeightsError, TrainingError: ``init`` does not fit, or the loss is no number any more.

    Example:
        >>> import tempfile
        >>> import dapg
        >>> out = tempfile.mkdtemp()
        >>> run = dapg.train(
        ...     "synthetic", "mocov2", out=out, init="random", preset="demo", steps=1,
        ...     settings={"train.batch_size": 4, "loader.workers": 0, "backbone.width": 0.125, "device": "cpu"},
        ... )
        >>> dapg.load(run, device="cpu").input_size
        (64, 32)
    """
    source = parse_source(str(data))
    chosen: JsonObject = {"data.name": source.name, "data.root": source.root, **(settings or {})}
    chosen |= {name: str(value) for name, value in (("out", out), ("backbone.init", init)) if value}
    if steps:
        chosen["train.steps"] = steps
    given = nested(chosen)
    match _stage(method):
        case "pretrain":
            pretraining_settings = merge(pretraining(method, preset), given)
            pretrain(pretraining_settings, validation(pretraining_settings))
            return Path(pretraining_settings.out)
        case "align":
            align_settings = merge(alignment(method, preset, str(init)), given)
            align(align_settings, validation(align_settings))
            return Path(align_settings.out)
        case "finetune":
            finetuning_settings = merge(finetuning(method, preset), given)
            finetune(finetuning_settings, make_validate(finetuning_settings))
            return Path(finetuning_settings.out)


def _stage(method: str) -> Stage:
    """The kind of training that has a method of this name.

    Raises:
        UsageError: none has; the nearest name is suggested.
    """
    methods = {name: stage for stage, folder in FOLDERS.items() for name in plugins.names(folder)}
    if method not in methods:
        raise UsageError(f"no method is called {method!r}{nearest(method, list(methods))}; known: {', '.join(methods)}")
    return methods[method]
