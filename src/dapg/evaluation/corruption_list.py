"""Fixed lists of corrupted test pictures: a data file says what happens to which picture; its hash goes into results.

``vi-c 1.0`` (``assets/corruption_lists``) has types, constants, severities, seeds and sides, and the rule behind every
random number, so that another program can make the same pictures.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.files import ASSETS, sha256
from dapg.corruptions import library

NEWEST = "vi-c-1.0"
_FOLDER = ASSETS / "corruption_lists"


@dataclass(frozen=True)
class CorruptionList:
    """One list, as its file says."""

    name: str
    sha256: str
    """Of the file."""
    types: tuple[str, ...]
    """Of visible pictures, in the order that assignments count in."""
    severities: tuple[int, ...]
    height: int
    width: int
    """Pixels of the picture that is corrupted."""
    seed: int
    protocols: Mapping[str, Mapping[str, Any]]
    """Which kind of light and which side of a trial are corrupted, by name; the first is the default."""


def names() -> list[str]:
    """Of all lists, as ``--list`` takes them."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def text(name: str = NEWEST) -> str:
    """The file of a list.

    Raises:
        UsageError: there is no such list.
    """
    if name not in names():
        raise UsageError(f"no list of corruptions is called {name!r}{nearest(name, names())}; known: {names()}")
    return (_FOLDER / f"{name}.json").read_text(encoding="utf-8")


@functools.cache
def corruption_list(name: str = NEWEST) -> CorruptionList:
    """A list by its name.

    Raises:
        UsageError: there is no such list.
        DataError: it is of another version of the draws than this package makes.
    """
    stored = json.loads(text(name))
    if stored["draws"] != library.DRAWS:
        raise DataError(
            f"{stored['name']} is a list of version {stored['draws']} of the draws, and this package makes version "
            f"{library.DRAWS}: take the release of dapg that the list came with"
        )
    return CorruptionList(
        name=stored["name"],
        sha256=sha256(_FOLDER / f"{name}.json"),
        types=tuple(stored["visible"]),
        severities=tuple(stored["severities"]),
        height=stored["picture"]["height"],
        width=stored["picture"]["width"],
        seed=stored["seed"],
        protocols=stored["protocols"],
    )


def provenance(types: tuple[str, ...], height: int, width: int, seed: int) -> dict[str, Any]:
    """What results say of their corrupted images: list, hash, version of the draws, and what is not the list's.

    Scores compare when all of it is equal. ``changed`` is empty for pictures that the list itself has.
    """
    newest = corruption_list()
    ours = {"height": newest.height, "width": newest.width, "seed": newest.seed}
    changed: dict[str, Any] = {
        key: value for key, value in (("height", height), ("width", width), ("seed", seed)) if value != ours[key]
    }
    foreign = [name for name in library.expand(types) if name not in (*newest.types, library.NONE)]
    if foreign:
        changed["types"] = foreign
    return {"list": newest.name, "sha256": newest.sha256, "draws": library.DRAWS, "changed": changed}
