"""What is in a gallery: images, cameras, network, thresholds, retention."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional
from dapg.core.settings import dump_yaml

_HELP = """usage: dapg gallery info GALLERY [--json BOOL]

What is in a gallery: counts, cameras, the network with its licence and the terms of what it learnt from, thresholds,
retention.

example:
  dapg gallery info outputs/gallery
"""


@dataclass(frozen=True)
class InfoSettings:
    """How it is shown."""

    json: bool = False
    """As JSON instead of YAML."""


def main(words: list[str], program: str) -> None:
    """Parse, print."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, InfoSettings(), words, _HELP)

    import json

    from dapg.gallery.gallery import Gallery

    facts = Gallery(folder).info()
    print(json.dumps(facts, indent=2, ensure_ascii=False) if settings.json else dump_yaml(facts).rstrip())
