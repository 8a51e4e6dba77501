"""Pre-train a backbone on unlabelled pictures of people."""

from typing import TYPE_CHECKING

from dapg.commands._settings import parse, take_option, take_positional, wants_help
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.settings import read_yaml

if TYPE_CHECKING:
    from dapg.train.loop import Validate
    from dapg.train.stage import PretrainSettings

_HELP = """usage: dapg pretrain METHOD [--preset {{{presets}}}] [OPTIONS]

Pre-train a backbone on unlabelled pictures of people. Killed runs go on where they stopped when the same command is
given again; a finished run is reused.

methods:
{methods}

  dapg pretrain METHOD --help    all options of a method, with the preset's values

examples:
  dapg pretrain mocov2 --preset tiny --out outputs/pretrain/first
  dapg pretrain simclr --preset tiny --data /path/to/pictures --train.steps 500
  dapg pretrain mocov2 --preset gpu --data luperson=/data/LUPerson --data.subset 20000
  dapg pretrain mocov2 --config outputs/pretrain/first/config.yaml --seed 1 --out outputs/pretrain/second
  torchrun --nproc-per-node 4 -m dapg pretrain mocov2 --data luperson=/data/LUPerson
"""


def main(words: list[str], program: str) -> None:
    """Parse, run, and say where the result is."""
    from pathlib import Path

    methods = plugins.names("methods.pretraining")
    if wants_help(words):
        from dapg.recipes.presets import PRESETS

        listed = "\n".join(f"  {name:12}  {plugins.summary('methods.pretraining', name)}" for name in methods)
        print(_HELP.format(presets=",".join(PRESETS), methods=listed), end="")
        return
    method, words = _method(words, methods, program)
    preset, words = take_option(words, "--preset", "recommended")

    from dapg.core import distributed
    from dapg.recipes.pretraining import settings as recipe
    from dapg.train.stage import pretrain

    description = f"{plugins.summary('methods.pretraining', method)}\nValues shown are those of --preset {preset}."
    settings = parse(f"{program} {method}", recipe(method, preset), words, description, positionals=("name",))
    _say_how_long(settings, preset)
    result = pretrain(settings, _validation(settings))
    if distributed.rank() == 0:
        folder = Path(settings.out)
        done = "already finished, reused" if result.get("reused") else "done"
        print(
            f"{done}: {result['steps']} steps in {result['seconds']:.0f} s "
            f"({result['pictures_per_second']:.0f} pictures/s), loss {result['logs'].get('loss', float('nan')):.3f}"
        )
        if result["extended_from"]:
            print(f"this run was extended; before: {result['extended_from']}")
        if result["bad_images"]:
            print(f"{len(result['bad_images'])} unreadable pictures were replaced; {folder / 'result.json'} lists them")
        print(f"weights for the next stage: {folder / 'backbone.safetensors'}")


def _validation(settings: "PretrainSettings") -> "Validate | None":
    """The scores the loop asks for, by the rules of the data set that is trained on."""
    if not settings.validation:
        return None
    from dapg.core.device import resolve_device
    from dapg.data.source import open_dataset
    from dapg.evaluation.stage import validator

    validate: Validate = validator(open_dataset(settings.data), settings.validation, resolve_device(settings.device))
    return validate


def _say_how_long(settings: "PretrainSettings", preset: str) -> None:
    """Before the first step, from measured speeds; the progress bar knows better once it runs."""
    from dapg.core import distributed
    from dapg.recipes.presets import expected_seconds

    train = settings.train
    seconds = expected_seconds(preset, settings.name, train.steps * train.batch_size)
    if seconds and distributed.rank() == 0:
        print(f"about {seconds:.0f} s on two cores for {train.steps} steps (docs/results.md)", flush=True)


def _method(words: list[str], methods: list[str], program: str) -> tuple[str, list[str]]:
    """The method by place, or from the --config file; where both name one they must agree."""
    config, _ = take_option(words, "--config", "")
    stored = _stored_method(config) if config else None
    if stored is not None and (not words or words[0].startswith("-")):
        words = [stored, *words]
    method, rest = take_positional(words, "method", methods, program)
    if stored not in (None, method):
        raise UsageError(f"{config} holds settings of {stored}, not of {method}")
    return method, rest


def _stored_method(config: str) -> str | None:
    from pathlib import Path

    stored = read_yaml(Path(config))
    if stored.get("stage", "pretrain") != "pretrain":
        raise UsageError(f"{config} is not the settings of a pre-training run, but of `{stored['stage']}`")
    name = stored.get("name")
    return None if name is None else str(name)
