"""Pre-train a backbone on unlabelled images of people."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_option, wants_help
from dapg.commands._training import COMMON, data_option, method_page, methods_page, say_result, take_method, tuning_step

_FOLDER = "methods.pretraining"
_ABOUT = """\
Pre-train a backbone on unlabelled images of people. Killed runs go on where they stopped when the same command is
given again; a finished run is reused."""
_EXAMPLES = """\
  dapg pretrain {method} --preset small --out outputs/pretrain/first
  dapg pretrain {method} --preset small --data /path/to/images --train.steps 500
  dapg pretrain {method} --preset gpu --data luperson=/data/LUPerson --data.subset 20000
  dapg pretrain {method} --config outputs/pretrain/first/config.yaml --seed 1 --out outputs/pretrain/second
  torchrun --nproc-per-node 4 -m dapg pretrain {method} --data luperson=/data/LUPerson
"""


def main(words: list[str], program: str) -> None:
    """Parse, run, and say where the result is."""
    if wants_help(words):
        print(methods_page(program, _FOLDER, _ABOUT, _EXAMPLES.format(method="mocov2")), end="")
        return
    method, words = take_method(words, _FOLDER, "pretrain", program)
    preset, words = take_option(words, "--preset", "recommended")
    start, words = take_option(words, "--start", "")

    from pathlib import Path

    from dapg.core import distributed
    from dapg.recipes import pretraining, validation
    from dapg.training.pretrain import pretrain

    about = method_page(program, _FOLDER, method, preset, _EXAMPLES.format(method=method))
    defaults = pretraining(method, preset, start)
    settings = parse(f"{program} {method}", defaults, words, about, ("name",), f"{COMMON} validation")
    result = pretrain(settings, validation(settings))
    say_result(result, settings.out)
    if distributed.rank() == 0:
        print(f"weights for the next stage: {Path(settings.out) / 'backbone.safetensors'}")
        stage_2 = dapg("align", "--preset", preset, "--init", settings.out, "--generator", "embedded")
        say_next(
            tuning_step(settings, preset, start),
            ("or stage 2 first: persons in other poses", stage_2 + data_option(settings.data)),
        )
