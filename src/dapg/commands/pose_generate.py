"""Generate every person of a data set in canonical poses: images and a manifest."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_source
from dapg.commands._training import data_option

_HELP = """usage: dapg pose generate DATA [--poses canonical] [--generator embedded] --out FOLDER

Turn every visible image of a data set into the four canonical poses (front, left, back, right). Images without
usable key points, and infrared ones, are listed in the manifest and go on unchanged. An interrupted run goes on where
it stopped.

examples:
  dapg pose generate synthetic --out outputs/pose/generated
  dapg pose generate /path/to/images --key_points keypoints/key_points.npz --poses front,back --out outputs/pose/mine
  dapg pose generate market1501=/data/Market-1501 --generator outputs/pose/gan --workers 4 --out outputs/market
"""


def main(words: list[str], program: str) -> None:
    """Parse, generate, print counts."""
    from dapg.pose.generate import GenerateSettings, generate

    config, words = take_source(words, "DATA", program)
    settings = parse(program, GenerateSettings(), words, _HELP)
    counts = generate(config, settings)
    for name, count in counts.items():
        print(f"{name}: {count}")
    print(f"written: {settings.out}")
    stage_2 = dapg("align", "--preset", "small", "--init", "RUN", "--generated", settings.out)
    say_next(
        ("do they hit their poses?", dapg("pose", "check", settings.out)),
        ("stage 2 with them", stage_2 + data_option(config)),
    )
