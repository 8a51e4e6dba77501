"""Is a gallery whole, its audit unbroken, and everything deleted really gone?"""

from dataclasses import dataclass

from dapg.commands._next import refuse_problems
from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg gallery check GALLERY [--text TEXT,TEXT,...]

Check the database, the audit, that every image has its feature and its file, and search every file of the gallery,
byte by byte, for features and file hashes of deleted images, and for --text (such as a deleted name). Exit code 1
when something is wrong. Out of reach: backups, exported cases, file system snapshots, and a PostgreSQL server's own
files.

example:
  dapg gallery check outputs/gallery --text "visitor 12"
"""


@dataclass(frozen=True)
class CheckSettings:
    """What else must be gone."""

    text: str = ""
    """Words that must not occur in any file, commas between them."""


def main(words: list[str], program: str) -> None:
    """Parse, check, print problems."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, CheckSettings(), words, _HELP)

    from dapg.gallery.gallery import Gallery

    problems = Gallery(folder).check([text.strip() for text in settings.text.split(",") if text.strip()])
    refuse_problems(folder, problems)
    print("everything is as it should be")
