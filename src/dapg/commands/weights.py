"""The models known by name, with their cards; or one of them, or of any address, checked and fetched if asked."""

from dataclasses import dataclass

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_words

_HELP = """usage: dapg weights [NAME|ADDRESS|PATH] [--download]

Without a name: the models of the zoo, each with what it was trained on, under which terms, its licence, use and scores.
With one: check its hash, say where it is, and print its card. Nothing is downloaded without --download.

addresses:
  https://host/file#sha256=HASH          a file; file:// likewise
  hf://owner/name@revision               a folder that `dapg export --hub` wrote, on the Hugging Face hub
  hf://owner/name@revision/file.pth      a single file there

Names and addresses stand wherever a weights file may: --init, dapg evaluate, dapg.load in Python. DAPG_ZOO names a zoo
file of your own, DAPG_CACHE the folder of downloads.

examples:
  dapg weights
  dapg weights mobilenet_v2-imagenet
  dapg weights hf://owner/name@v1.0 --download
"""


@dataclass(frozen=True)
class WeightsSettings:
    """What may be done."""

    download: bool = False
    """Download what is not on this machine yet."""


def main(words: list[str], program: str) -> None:
    """List, or locate and describe."""
    names, words = take_words(words)
    settings = parse(program, WeightsSettings(), words, _HELP)

    from dapg.features.build_encoder import card_of
    from dapg.models.weights.addresses import locate, zoo

    for name in names:
        source = locate(name, settings.download)
        print(f"{source.path.resolve()}\n{source.card or card_of(source.path)}")
    if not names:
        for model in zoo().values():
            print(f"{model.name}\n" + "".join(f"  {line}\n" for line in str(model.card).splitlines()))
        print("scores are in per cent, higher is better; in Python: dapg.load(NAME); as first weights: --init NAME")
        say_next(("score one", dapg("evaluate", "NAME")))
