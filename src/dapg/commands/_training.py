"""Shared by the training commands: their help, the method by place or from a file, what came out."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dapg.commands._next import dapg, finished
from dapg.commands._settings import take_option, take_positional
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.scales import PRESETS
from dapg.core.settings import flat, read_yaml, to_dict, to_plain
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject
from dapg.core.words import counted

if TYPE_CHECKING:
    from dapg.training.training_settings import PretrainSettings

COMMON = (
    "method. data.split data.subset backbone.width loader.workers train.steps train.epochs train.batch_size "
    "train.accumulation train.precision train.optimizer.lr seed out device"
)
"""Settings of every training that the short help shows."""

_OPTIONS = f"[--preset {'|'.join(PRESETS)}]\n       [--start random|imagenet] [--NAME VALUE ...]"
_KINDS = {"pretrain": "pre-training", "align": "alignment", "finetune": "fine-tuning"}


def methods_page(program: str, folder: str, about: str, examples: str) -> str:
    """Help of a training command without a method: what it does, and the methods there are."""
    methods = "\n".join(f"  {name:12}  {plugins.summary(folder, name)}" for name in plugins.names(folder))
    return (
        f"usage: {program} METHOD {_OPTIONS}\n\n{about}\n\nmethods:\n{methods}\n\n"
        f"  {program} METHOD --help    settings of a method, with the preset's values\n\nexamples:\n{examples}"
    )


def method_page(program: str, folder: str, method: str, preset: str, examples: str) -> str:
    """First part of a method's help."""
    return (
        f"usage: {program} {method} {_OPTIONS}\n\n{plugins.summary(folder, method)}\n\nexamples:\n{examples}\n"
        f"Values below are those of --preset {preset}."
    )


def take_method(words: list[str], folder: str, stage: str, program: str) -> tuple[str, list[str]]:
    """The method by place, or from the --config file; where both name one they must agree.

    Raises:
        UsageError: no or an unknown method, or settings of another method or stage.
    """
    config, _ = take_option(words, "--config", "")
    stored = _stored_method(config, stage) if config else None
    if stored is not None and (not words or words[0].startswith("-")):
        words = [stored, *words]
    own = "one of your own needs --plugins FOLDER"
    method, rest = take_positional(words, "method", plugins.names(folder), program, own)
    if stored not in (None, method):
        raise UsageError(f"{config} holds settings of {stored}, not of {method}")
    return method, rest


def _stored_method(config: str, stage: str) -> str | None:
    stored = read_yaml(Path(config))
    if stored.get("stage", stage) != stage:
        raise UsageError(f"{config} is not the settings of a {_KINDS[stage]} run, but of `{stored['stage']}`")
    name = stored.get("name")
    return None if name is None else str(name)


def data_option(data: DataConfig) -> str:
    """`` --data NAME=ROOT`` and how grey is read, as a shell takes it; nothing for the embedded people."""
    from dapg.data.source import root_of

    root = root_of(data)
    if root is None:
        return ""
    words = ["", "--data", shlex.quote(f"{data.name}={root}")]
    if data.percentiles:
        words += ["--data.percentiles", f"'[{','.join(f'{value:g}' for value in data.percentiles)}]'"]
    elif data.bits != 16:
        words += ["--data.bits", str(data.bits)]
    if data.names:
        words += ["--data.names", shlex.quote(data.names)]
    return " ".join(words)


def tuning_step(settings: "PretrainSettings", preset: str, start: str) -> tuple[str, str]:
    """The fine-tuning that goes on from a finished pre-training or alignment, for ``say_next``."""
    from dapg.core.scales import SCALES
    from dapg.recipes import finetuning

    words: list[object] = ["finetune", "agw", "--preset", preset, *(["--start", start] if start else [])]
    usual, used = (flat(to_dict(item.backbone)) for item in (finetuning("agw", preset, start), settings))
    for name in usual.keys() | used.keys():
        if name not in ("init", "last_stride") and used.get(name) != usual.get(name):
            words += [f"--backbone.{name}", to_plain(getattr(settings.backbone, name))]
    labelled = SCALES[preset].stages["finetune"].data == "synthetic" and not data_option(settings.data)
    return "fine-tune from it, on persons seen in both kinds of light", dapg(
        *words, "--init", settings.out, *([] if labelled else ["--data", "LABELLED"])
    )


def say_result(result: JsonObject, out: str) -> None:
    """What a finished run did, for the terminal."""
    from dapg.core import distributed

    if distributed.rank() > 0:
        return
    print(
        f"{finished(result)}: {counted(result['steps'], 'step')} in {result['seconds']:.0f} s "
        f"({result['pictures_per_second']:.0f} images/s), last loss {result['logs'].get('loss', float('nan')):.3f}"
    )
    if result["extended_from"]:
        print(f"this run was extended; before: {result['extended_from']}")
    if result["bad_images"]:
        listed = Path(out) / "result.json"
        print(f"replaced: {counted(len(result['bad_images']), 'unreadable image')}, listed in {listed}")
