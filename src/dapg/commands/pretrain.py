"""Pre-train a backbone on unlabelled pictures of people."""

from dapg.commands._settings import parse, take_option, wants_help
from dapg.commands._training import list_methods, say_result, take_method
from dapg.core import plugins

_FOLDER = "methods.pretraining"
_HELP = """usage: dapg pretrain METHOD [--preset {{{presets}}}] [--start random|imagenet] [OPTIONS]

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
    if wants_help(words):
        from dapg.core.scales import PRESETS

        print(_HELP.format(presets=",".join(PRESETS), methods=list_methods(_FOLDER)), end="")
        return
    method, words = take_method(words, _FOLDER, "pretrain", program)
    preset, words = take_option(words, "--preset", "recommended")
    start, words = take_option(words, "--start", "")

    from pathlib import Path

    from dapg.core import distributed
    from dapg.recipes import pretraining, validation
    from dapg.train.pretrain import pretrain

    description = f"{plugins.summary(_FOLDER, method)}\nValues shown are those of --preset {preset}."
    settings = parse(
        f"{program} {method}", pretraining(method, preset, start), words, description, positionals=("name",)
    )
    result = pretrain(settings, validation(settings))
    say_result(result, settings.out)
    if distributed.rank() == 0:
        print(f"weights for the next stage: {Path(settings.out) / 'backbone.safetensors'}")
