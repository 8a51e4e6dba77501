"""Remove images or a person from a gallery for good, and make sure that nothing is left."""

from dataclasses import dataclass

from dapg.commands._next import refuse_problems
from dapg.commands._settings import parse, take_positional
from dapg.core.errors import UsageError
from dapg.core.ranges import CountOrZero
from dapg.core.words import counted

_HELP = """usage: dapg gallery delete GALLERY --person NAME | --pictures N,N,... [--reason TEXT]

Remove crops, features, results, query hashes and the cached matrix; a tombstone (keyed digests) keeps the images
from being taken in again. Then every file of the gallery is searched, byte by byte, for what must be gone. Files
outside the gallery, backups, exported cases and file system snapshots are yours to delete; a PostgreSQL server keeps
its own logs.

example:
  dapg gallery delete outputs/gallery --person "visitor 12" --reason "request of 28 November"
"""


@dataclass(frozen=True)
class DeleteSettings:
    """What goes, and why."""

    person: str = ""
    """All images that people gave this name."""
    pictures: tuple[CountOrZero, ...] = ()
    """Numbers of images."""
    reason: str = ""
    """For the audit, which is kept: no personal data."""


def main(words: list[str], program: str) -> None:
    """Parse, delete, look for remains."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, DeleteSettings(), words, _HELP)
    if not settings.person and not settings.pictures:
        raise UsageError(f"{program} needs --person NAME or --pictures N,N,...")

    from pathlib import Path

    from dapg.gallery.gallery import Gallery

    gallery = Gallery(folder)
    numbers = gallery.numbers(settings.pictures, settings.person or None)
    outside = [picture.path for picture in gallery.known(numbers) if Path(picture.path).is_file()]
    count = gallery.acting(gallery.actor.name, settings.reason).delete(numbers)
    print(f"{counted(count, 'image')} deleted")
    for path in outside[:20]:
        print(f"yours to delete, outside the gallery: {path}")
    if len(outside) > 20:
        print(f"... and {len(outside) - 20:,} more files outside the gallery")
    refuse_problems(folder, gallery.check())
    print("nothing is left of them in the gallery's files")
