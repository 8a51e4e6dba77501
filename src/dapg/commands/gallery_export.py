"""A search as a case: images, answers, verdicts and audit entries in a zip file with hashes."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional
from dapg.core.errors import UsageError
from dapg.core.ranges import CountOrZero

_HELP = """usage: dapg gallery export GALLERY --search NUMBER --out FILE.zip [--reason TEXT]

Write what a search found, what people said about it and its audit entries to a zip file with a list of SHA-256
hashes.

example:
  dapg gallery export outputs/gallery --search 12 --out outputs/case-17.zip --reason "case 17"
"""


@dataclass(frozen=True)
class ExportSettings:
    """Which case."""

    search: CountOrZero = 0
    """Number of the search, as dapg search prints it."""
    out: str = ""
    """The zip file."""
    reason: str = ""
    """For the audit."""


def main(words: list[str], program: str) -> None:
    """Parse, write."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, ExportSettings(), words, _HELP)
    if not settings.search or not settings.out:
        raise UsageError(f"{program} needs --search NUMBER and --out FILE.zip")

    from dapg.gallery.gallery import Gallery

    gallery = Gallery(folder)
    gallery.acting(gallery.actor.name, settings.reason).export(settings.search, settings.out)
    print(f"written: {settings.out} (if these are real people: deletion from the gallery does not reach this file)")
