"""Score generated images: do their key points hit the pose they were made for?"""

from dataclasses import dataclass
from typing import Any, Literal

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_option, take_positional
from dapg.core.words import counted

_HELP = """usage: dapg pose check FOLDER [--estimator {blazepose,onnx}] [--NAME VALUE ...]

Find the key points of the images that dapg pose generate made, and write into manifest.csv which share of them hits
the target pose (PCK at 0.2 of the torso). dapg align --least_score then drops images that miss it.

examples:
  dapg pose check outputs/pose/generated
  dapg align --generated outputs/pose/generated --least_score 0.5 --init outputs/pretrain/first
"""


@dataclass(frozen=True)
class CheckSettings:
    """What finds the key points."""

    estimator: Any
    """Its settings."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """An image that cannot be read: leave it without a score and count it, or stop (fail)."""


def main(words: list[str], program: str) -> None:
    """Parse, score, print means."""
    folder, words = take_positional(words, "FOLDER", None, program)
    name, words = take_option(words, "--estimator", "blazepose")

    from dapg.pose.check import check_generated
    from dapg.pose.estimate import estimator_class

    kind = estimator_class(name)
    settings = parse(program, CheckSettings(kind.Config()), words, _HELP)
    result = check_generated(folder, kind(settings.estimator), settings.on_bad_image)
    print(f"{counted(result['pictures'], 'image')}; mean share of key points that hit the pose (1 is best):")
    for pose, score in result["mean_score"].items():
        print(f"  {pose:8} {score:.3f}")
    if result["unreadable"]:
        name, reason = next(iter(result["unreadable"].items()))
        print(f"without a score: {counted(len(result['unreadable']), 'unreadable image')}; first {name}: {reason}")
    stage_2 = dapg("align", "--preset", "small", "--init", "RUN", "--generated", folder, "--least_score", 0.5)
    say_next(("stage 2 with the better ones", stage_2))
