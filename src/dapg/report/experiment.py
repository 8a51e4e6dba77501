"""One self-contained HTML page for an experiment: its tables, and clean against corrupted scores as a picture."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from dapg.core.files import atomic_write_text
from dapg.report.page import stylesheet
from dapg.report.plots import clean_against_corrupted
from dapg.report.tables import Row, to_html

Points = Mapping[str, Sequence[tuple[str, float, float]]]
"""Panel -> (name, clean score, corrupted score) of each of its points, in per cent."""


def write_experiment(
    path: Path, title: str, notes: Sequence[str], tables: Sequence[tuple[str, Sequence[Row]]], points: Points
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: of the page.
        notes: paragraphs below it.
        tables: headings with the rows that stand under them.
        points: for the picture; panels without points are left out.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f'<p class="note">{html.escape(note)}</p>' for note in notes)]
    panels = {name: part for name, part in points.items() if part}
    if panels:
        parts += ["<h2>Clean against corrupted</h2>", clean_against_corrupted(panels)]
    for heading, rows in tables:
        parts += [f"<h2>{html.escape(heading)}</h2>", to_html(list(rows)) if rows else "<p>nothing has run yet</p>"]
    atomic_write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{stylesheet()}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n",
    )
