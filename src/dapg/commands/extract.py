"""Features of a data set or a folder of images, by a trained run or any other model, into one array."""

from dapg.commands._next import finished
from dapg.commands._settings import parse, take_positional
from dapg.core.words import counted

_HELP = """usage: dapg extract MODEL --data DATA --out FOLDER [--feature NAME] [--workers N] [--NAME VALUE ...]

Encode every image once. FOLDER then holds features.npy (a row of 32-bit numbers for each image), images.csv (path,
person, camera, kind of light and box of each row) and result.json. An image that cannot be read has a row of NaN and
is named in result.json. A killed command goes on where it stopped; how many workers there are changes no byte.

examples:
  dapg extract outputs/agw --data synthetic --data.split test --out outputs/features
  dapg extract agw-imagenet-small --data /path/to/images --workers 8 --out outputs/features
  dapg extract imagenet --backbone resnet50 --data /shared/crops --engine slurm --workers 40 --out /shared/features
"""
_COMMON = "data.split feature batch_size engine.workers device out"


def main(words: list[str], program: str) -> None:
    """Parse, extract, say what there is and where."""
    model, words = take_positional(words, "MODEL", None, program)

    from dapg.features.extract_shards import FEATURES, ExtractSettings, extract_features

    settings = parse(program, ExtractSettings(model), words, _HELP, ("model",), _COMMON)
    result = extract_features(settings)
    print(f"{finished(result)}: {counted(result['images'], 'image')}, {result['dimension']} numbers each")
    if result["unreadable"]:
        path, reason = next(iter(result["unreadable"].items()))
        print(f"{counted(len(result['unreadable']), 'unreadable image')}, rows of NaN; first {path}: {reason}")
    print(f"features: {settings.out}/{FEATURES}")
