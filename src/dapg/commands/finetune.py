"""Fine-tune for visible-infrared re-identification."""

from typing import TYPE_CHECKING

from dapg.commands._next import PER_CENT, dapg, say_next
from dapg.commands._settings import parse, take_option, wants_help
from dapg.commands._training import COMMON, data_option, method_page, methods_page, say_result, take_method

if TYPE_CHECKING:
    from dapg.training.training_settings import FinetuneSettings

_FOLDER = "methods.finetuning"
_ABOUT = """\
Train a two-stream network on persons seen in visible and infrared light. Killed runs go on where they stopped when the
same command is given again; a finished run is reused."""
_EXAMPLES = """\
  dapg finetune {method} --preset small --out outputs/finetune/first
  dapg finetune {method} --preset small --init outputs/pretrain/first --out outputs/finetune/second
  dapg finetune {method} --preset small --start random --out outputs/finetune/third
  dapg finetune {method} --data sysu=/data/SYSU-MM01 --init resnet50-19c8e357.pth
  dapg finetune {method} --preset paper --data sysu=/data/SYSU-MM01 --init outputs/pretrain/dapg --selection validation
  dapg finetune {method} --data regdb=/data/RegDB --partitions all --init resnet50-19c8e357.pth
Then score it: dapg evaluate outputs/finetune/first --mode all
"""


def main(words: list[str], program: str) -> None:
    """Parse, run, and say where the result is."""
    if wants_help(words):
        print(methods_page(program, _FOLDER, _ABOUT, _EXAMPLES.format(method="agw")), end="")
        return
    method, words = take_method(words, _FOLDER, "finetune", program)
    preset, words = take_option(words, "--preset", "recommended")
    start, words = take_option(words, "--start", "")
    partitions, words = take_option(words, "--partitions", "")

    from dapg.core import distributed
    from dapg.recipes import finetuning, make_validate
    from dapg.training.finetune import finetune

    about = method_page(program, _FOLDER, method, preset, _EXAMPLES.format(method=method))
    common = f"{COMMON} images selection corrupted_scores"
    settings = parse(f"{program} {method}", finetuning(method, preset, start), words, about, ("name",), common)
    if partitions:
        _run_partitions(settings, partitions)
        return
    result = finetune(settings, make_validate(settings))
    say_result(result, settings.out)
    if distributed.rank() == 0:
        say_next(
            ("score it", dapg("evaluate", settings.out, further=data_option(settings.data))),
            ("or search with it", dapg("index", "GALLERY", "IMAGES", "--model", settings.out)),
        )


def _run_partitions(settings: "FinetuneSettings", text: str) -> None:
    """RegDB: one training a partition, then the table."""
    from pathlib import Path

    from dapg.core import distributed
    from dapg.pipelines.partitions import SUMMARY, parse_partitions, run_partitions

    def say(line: str) -> None:
        if distributed.rank() == 0:
            print(line, flush=True)

    summary = run_partitions(settings, parse_partitions(text), say)
    say(f"means over partitions (standard deviation); {PER_CENT}")
    for mode, features in summary["scores"].items():
        for feature, measures in features.items():
            numbers = "  ".join(
                f"{name} {100 * line['mean']:5.1f}" + (f" ({100 * line['std']:.1f})" if line["std"] is not None else "")
                for name, line in measures.items()
            )
            say(f"{mode}, {feature}: {numbers}")
    if not summary["comparable"]:
        say("not all ten published partitions: do not put the scores beside published ones")
    say(f"written: {Path(settings.out) / SUMMARY}")
