"""Align a pre-trained backbone with persons: the same person in other poses and colours (stage 2)."""

from dapg.commands._next import say_next
from dapg.commands._settings import parse, take_option, wants_help
from dapg.commands._training import COMMON, method_page, methods_page, say_result, take_method, tuning_step
from dapg.core.settings import flat, read_yaml
from dapg.core.words import counted

_FOLDER = "methods.alignment"
_METHOD = "dapg_align"
_ABOUT = f"""\
Stage 2: go on from a pre-training run; an image must find its person in another pose and other colours. Images in
other poses come from dapg pose generate. Killed runs go on where they stopped when the same command is given again.
METHOD is {_METHOD} unless given."""
_EXAMPLES = """\
  dapg align --preset small --init outputs/pretrain/first --generated outputs/pose/generated --out outputs/align/first
  dapg align --init outputs/pretrain/dapg --data market1501=/data/Market-1501-v15.09.15 --generated generated
arms of the ablation:
  dapg align --preset small --init outputs/pretrain/first --positives original    # channels only, no pose
  dapg align --preset small --init outputs/pretrain/first --positives shuffled --generated outputs/pose/generated
  dapg align --preset small --init outputs/pretrain/first --positives true        # other images, by labels
"""


def main(words: list[str], program: str) -> None:
    """Parse, run, and say where the result is."""
    if wants_help(words):
        print(methods_page(program, _FOLDER, _ABOUT, _EXAMPLES), end="")
        return
    named = bool(words) and not words[0].startswith("-")
    if not named and not take_option(words, "--config", "")[0]:
        words = [_METHOD, *words]
    method, words = take_method(words, _FOLDER, "align", program)
    preset, words = take_option(words, "--preset", "recommended")
    start, words = take_option(words, "--start", "")
    init = _init(words)

    from pathlib import Path

    from dapg.core import distributed
    from dapg.recipes import alignment, validation
    from dapg.training.align import align

    about = method_page(program, _FOLDER, method, preset, _EXAMPLES)
    common = f"{COMMON} positives generated generator least_score"
    settings = parse(f"{program} {method}", alignment(method, preset, init, start), words, about, ("name",), common)
    result = align(settings, validation(settings))
    say_result(result, settings.out)
    if distributed.rank() == 0:
        without = result.get("companions", {}).get("sources_without", 0)
        if without:
            print(f"{counted(without, 'image')} had no other image of the person and were aligned with themselves")
        print(f"weights for the next stage: {Path(settings.out) / 'backbone.safetensors'}")
        say_next(tuning_step(settings, preset, start))


def _init(words: list[str]) -> str:
    """Where the first weights come from, by option or by the --config file."""
    from pathlib import Path

    for option in ("--init", "--backbone.init"):
        weights, _ = take_option(words, option, "")
        if weights:
            return weights
    config, _ = take_option(words, "--config", "")
    return str(flat(read_yaml(Path(config))).get("backbone.init", "")) if config else ""
