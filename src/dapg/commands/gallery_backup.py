"""A consistent copy of a gallery, while others go on working."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional
from dapg.core.errors import UsageError

_HELP = """usage: dapg gallery backup GALLERY --out FOLDER

Copy a gallery into a new folder, which is a gallery itself. It keeps what is deleted from the gallery later: delete
old backups as you delete people. Of a PostgreSQL gallery use the server's own tools.

example:
  dapg gallery backup outputs/gallery --out backups/2026-11-28
"""


@dataclass(frozen=True)
class BackupSettings:
    """Where to."""

    out: str = ""
    """A new folder."""


def main(words: list[str], program: str) -> None:
    """Parse, copy."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, BackupSettings(), words, _HELP)
    if not settings.out:
        raise UsageError(f"{program} needs --out FOLDER")

    from dapg.gallery.gallery import Gallery

    Gallery(folder).backup(settings.out)
    print(f"written: {settings.out}")
