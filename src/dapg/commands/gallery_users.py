"""Who may use the server of a gallery: names, roles, tokens."""

from dataclasses import dataclass
from typing import Literal

from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg gallery users GALLERY [--add NAME --role viewer|operator|admin] [--remove NAME]

List users, let somebody in (the token is shown once; only its hash is stored), or let somebody in no longer. A viewer
looks, an operator also indexes, judges and exports, an admin also deletes and manages users.

examples:
  dapg gallery users outputs/gallery --add anna --role operator
  dapg gallery users outputs/gallery --remove anna
"""


@dataclass(frozen=True)
class UserSettings:
    """Whom."""

    add: str = ""
    """Name of somebody to let in."""
    role: Literal["viewer", "operator", "admin"] = "viewer"
    """What that one may do."""
    remove: str = ""
    """Name of somebody to let in no longer."""


def main(words: list[str], program: str) -> None:
    """Parse, change, list."""
    folder, words = take_positional(words, "GALLERY", None, program)
    settings = parse(program, UserSettings(), words, _HELP)

    from dapg.data.sightings import clock
    from dapg.gallery.gallery import Gallery

    gallery = Gallery(folder)
    if settings.remove:
        gallery.remove_user(settings.remove)
    if settings.add:
        print(f"token of {settings.add}, shown this once: {gallery.add_user(settings.add, settings.role)}")
    for user in gallery.users():
        print(f"{user.role:8}  {user.name}, since {clock(user.added)}")
