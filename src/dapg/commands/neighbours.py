"""Nearest neighbours among crops of your own videos, judged by tracks or by a few labels of yours."""

from dapg.commands._next import PER_CENT, dapg, say_next, within
from dapg.commands._settings import parse, take_positional
from dapg.core.words import counted

_HELP = """usage: dapg neighbours MODEL --crops DIR [--people FILE.csv] --out FOLDER [--NAME VALUE ...]

Rank every crop that `dapg data crop` made against all others, leaving out what was filmed within two seconds. Without
labels, crops of the query's track should come before those of people who were in the image with it. With --people,
a copy of manifest.csv with a column `person` filled in where you know who it is, crops of the same person in other
tracks should come first. MODEL is a finished run, a weights file, random, imagenet or histogram.

examples:
  dapg neighbours outputs/pretrain/mine --crops outputs/crops --out outputs/neighbours/mine
  dapg neighbours imagenet --backbone mobilenet_v2 --crops outputs/crops --out outputs/neighbours/imagenet
  dapg neighbours histogram --crops outputs/crops --people people.csv --out outputs/neighbours/histogram
  dapg compare outputs/neighbours/imagenet outputs/neighbours/mine
"""


def main(words: list[str], program: str) -> None:
    """Parse, rank, print."""
    from dataclasses import replace
    from pathlib import Path

    from dapg.core.errors import UsageError
    from dapg.features.neighbours import SHEET, NeighbourSettings, neighbours

    model, words = take_positional(words, "MODEL", None, program)
    settings = parse(program, NeighbourSettings(model), words, _HELP, positionals=("model",))
    if not settings.crops:
        raise UsageError(f"{program} needs --crops DIR, the folder that `dapg data crop` made")
    if not settings.out:
        settings = replace(settings, out=f"outputs/neighbours/{Path(model).name}")
    result = neighbours(settings)
    print(f"{result['protocol']}: {result['valid_queries']} of {result['queries']} crops have a match to find")
    if result["labels_without_crop"]:
        print(f"left out, as no crop fits: {counted(result['labels_without_crop'], 'label')}")
    print(PER_CENT)
    for name in ("rank-1", "mAP", "mINP"):
        interval = result["intervals"][name]
        persons = f"{interval['persons']} {result['test']}"
        print(f"{name:7} {100 * interval['value']:5.1f}   {within(interval)} over {persons}")
    print(f"rank-1 by guessing {100 * result['chance']:.1f}")
    sheet = Path(settings.out) / SHEET
    print(f"written: {Path(settings.out) / 'result.json'}, {sheet} (not to be shared if it shows real people)")
    say_next(("is another model better?", dapg("compare", settings.out, "OTHER")))
