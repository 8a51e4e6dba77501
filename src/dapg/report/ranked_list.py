"""A query and its answers as rows of figures for the pages: images, and maps of what makes them alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dapg.core.types import JsonObject
from dapg.report.plots import overlay

Read = Callable[[str], bytes]
_MARKS = {"right": ("✓", "same person"), "wrong": ("✗", "another person")}
"""What tells answers apart without colour, and what a screen reader says of it."""


@dataclass(frozen=True)
class Figure:
    """One image of a ranked list."""

    kind: str
    """query, right, wrong or unknown."""
    image: bytes
    """A JPEG file; empty where it is lost."""
    title: str
    lines: tuple[str, ...] = ()
    """Below the image: camera, similarity, and what else is known."""

    @property
    def mark(self) -> str:
        """A sign for right and wrong answers."""
        return _MARKS.get(self.kind, ("", ""))[0]

    @property
    def meaning(self) -> str:
        """The sign in words."""
        return _MARKS.get(self.kind, ("", ""))[1]


def ranked_list(read: Read, entry: JsonObject, maps: Any = None) -> list[list[Figure]]:
    """A row of images, query first, and one of maps below it where there are some.

    Args:
        read: the JPEG file of an entry's ``picture``; empty where there is none.
        entry: as ``features.ranked_lists.describe_lists`` makes it.
        maps: (1 + answers, h, w), 0 ... 1, or None.
    """
    shown = [entry["query"], *entry["answers"]]
    rows = [[_figure(read(person["picture"]), person) for person in shown]]
    if maps is not None:
        mapped = [figure.image and overlay(figure.image, maps[place]) for place, figure in enumerate(rows[0])]
        rows.append([Figure(figure.kind, image, figure.title) for figure, image in zip(rows[0], mapped, strict=True)])
    return rows


def _figure(image: bytes, entry: JsonObject) -> Figure:
    match = entry.get("match")
    kind = "query" if "match" not in entry else "unknown" if match is None else "right" if match else "wrong"
    facts = [entry["path"], f"person {entry['person']}", *filter(None, [entry.get("corruption")])]
    similarity = f"{entry['similarity']:.2f}" if isinstance(entry.get("similarity"), float) else ""
    camera = "" if entry["camera"] == -1 else f"camera {entry['camera']}"
    lines = ["query" if kind == "query" else similarity, camera]
    return Figure(kind, image, ", ".join(facts), tuple(filter(None, lines)))
