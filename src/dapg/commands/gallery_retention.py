"""How long images are kept, by class, and the deletion of what is overdue."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional
from dapg.core.ranges import Weight
from dapg.core.words import counted

_HELP = """usage: dapg gallery retention GALLERY [--unknown DAYS] [--matched DAYS] [--confirmed DAYS] [--enforce BOOL]

Say for how many days images are kept after they were taken in, and delete what is overdue. Classes: unknown
(nothing has connected the image with a query), matched (a search called it the same person), confirmed (a person
did, or named it).

examples:
  dapg gallery retention outputs/gallery --unknown 3 --matched 30
  dapg gallery retention outputs/gallery --enforce true
"""


@dataclass(frozen=True)
class RetentionSettings:
    """Days by class."""

    unknown: Weight | None = None
    """Days; 0 keeps for ever; null leaves it as it is."""
    matched: Weight | None = None
    """Likewise."""
    confirmed: Weight | None = None
    """Likewise."""
    enforce: bool = False
    """Delete what is overdue now; dapg serve does so by itself."""


def main(words: list[str], program: str) -> None:
    """Parse, set, delete, print."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, RetentionSettings(), words, _HELP)

    from dapg.gallery.deletion import CLASSES
    from dapg.gallery.gallery import Gallery

    gallery = Gallery(folder)
    given = {name: days for name in CLASSES if (days := getattr(settings, name)) is not None}
    if given:
        gallery.set_retention(given)
    if settings.enforce:
        print(f"{counted(gallery.enforce_retention(), 'image')} deleted")
    counts, days = gallery.info()["classes"], gallery.retention()
    for name in CLASSES:
        print(f"{name:9}  {counts[name]:>9,} images, {f'{days[name]:g} days' if name in days else 'for ever'}")
