"""Pages from the templates beside this file: every value is escaped but for the drawings of ``plots``."""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

OPEN = 8
"""Sections that are open at first; the rest of a page is folded."""


class _Sheet:
    """What a page collects while it is rendered: its sections for the contents, and its images, each stored once."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str]] = []
        self.images: dict[str, bytes] = {}
        self._open = 0

    def section(self, title: str, folded: bool = False) -> tuple[str, bool]:
        """Its anchor, and whether it is open."""
        anchor = re.sub(r"\W+", "-", title.lower()).strip("-")
        anchor += f"-{len(self.sections)}" if anchor in dict(self.sections) else ""
        self.sections.append((anchor, title))
        shown = not folded and self._open < OPEN
        self._open += shown
        return anchor, shown

    def image(self, content: bytes) -> str:
        """The name under which the page's foot holds an image."""
        name = f"i{hashlib.sha256(content).hexdigest()[:12]}"
        self.images[name] = content
        return name


@functools.cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["number"] = _is_number
    environment.filters["filled"] = _filled
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( %)?( [(±].*)?")
"""A figure, perhaps with its interval or spread behind it."""


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _filled(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows without columns that are empty in all of them."""
    return [{name: row[name] for name in row if any(other[name] for other in rows)} for row in rows]


def render(template: str, **values: object) -> str:
    """The text of a page; a value that its template asks for and does not get is an error."""
    return _environment().get_template(template).render(sheet=_Sheet(), **values)
