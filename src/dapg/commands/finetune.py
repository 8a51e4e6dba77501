"""Fine-tune for visible-infrared re-identification."""

from dapg.commands._settings import parse, take_option, wants_help
from dapg.commands._training import list_methods, say_how_long, say_result, take_method
from dapg.core import plugins

_FOLDER = "methods.finetuning"
_HELP = """usage: dapg finetune METHOD [--preset {{{presets}}}] [OPTIONS]

Train a two-stream network on persons seen in visible and infrared light. Killed runs go on where they stopped when the
same command is given again; a finished run is reused.

methods:
{methods}

  dapg finetune METHOD --help    all options of a method, with the preset's values

examples:
  dapg finetune agw --preset tiny --out outputs/finetune/first
  dapg finetune agw --preset tiny --init outputs/pretrain/first --out outputs/finetune/second
  dapg finetune agw --data sysu=/data/SYSU-MM01 --init resnet50-19c8e357.pth
  dapg finetune agw --preset paper --data sysu=/data/SYSU-MM01 --init outputs/pretrain/dapg --selection validation
Then score it: dapg evaluate outputs/finetune/first --mode all
"""


def main(words: list[str], program: str) -> None:
    """Parse, run, and say where the result is."""
    if wants_help(words):
        from dapg.recipes.presets import PRESETS

        print(_HELP.format(presets=",".join(PRESETS), methods=list_methods(_FOLDER)), end="")
        return
    method, words = take_method(words, _FOLDER, "finetune", program)
    preset, words = take_option(words, "--preset", "recommended")

    from dapg.core import distributed
    from dapg.recipes.finetuning import make_validate
    from dapg.recipes.finetuning import settings as recipe
    from dapg.train.stage import finetune

    description = f"{plugins.summary(_FOLDER, method)}\nValues shown are those of --preset {preset}."
    settings = parse(f"{program} {method}", recipe(method, preset), words, description, positionals=("name",))
    say_how_long(settings, preset)
    result = finetune(settings, make_validate(settings))
    say_result(result, settings.out)
    if distributed.rank() == 0:
        print(f"score it: dapg evaluate {settings.out}")
