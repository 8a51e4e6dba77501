"""Pages from the templates beside this file: every value is escaped but for the drawings of ``plots``."""

import base64
import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


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
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment


def _is_number(text: str) -> bool:
    return text.removeprefix("+").replace(".", "", 1).replace("-", "", 1).replace(" %", "").isdigit()


def render(template: str, **values: object) -> str:
    """The text of a page; a value that its template asks for and does not get is an error."""
    return _environment().get_template(template).render(values)
