"""CSV that people open in a spreadsheet: no cell is a formula, and our own readers get back what was written.

Spreadsheets run a text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break as a formula, even if it is a
file's name. An apostrophe before it makes it text (OWASP, "CSV injection"). Numbers stay as they are.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

_FORMULA = re.compile(r"'*[=+\-@\t\r\n].", re.DOTALL)
_GUARDED = re.compile(r"'+[=+\-@\t\r\n].", re.DOTALL)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated lines of rows of cells."""
    lines: list[str] = []
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")  # what the end holds is quoted
    writer.writerows([_guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def plain_cell(cell: str) -> str:
    """A cell as it was before ``csv_text`` guarded it; any other text as it is."""
    return cell[1:] if _GUARDED.match(cell) else cell


def _guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
