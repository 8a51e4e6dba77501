"""One self-contained HTML page for an experiment: tables, checks, heat maps, ranked lists, curves and what it cost."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dapg.core.files import atomic_write_text
from dapg.core.types import JsonObject
from dapg.report.plots import clean_against_corrupted, loss_curves, severity_maps
from dapg.report.run_page import ranked_list, stylesheet
from dapg.report.score_tables import Row, to_html

Points = Mapping[str, Sequence[tuple[str, float, float]]]
"""Panel -> (name, clean score, corrupted score) of each of its points, in per cent."""
Curves = Mapping[str, Mapping[str, Sequence[Sequence[Sequence[int | float]]]]]
"""Panel -> name -> the (step, loss) pairs of each seed."""


@dataclass(frozen=True)
class Table:
    """Rows below a heading."""

    heading: str
    rows: Sequence[Row]
    note: str = ""


_NOTHING = "<p>Two methods to compare have not run yet.</p>"


@dataclass(frozen=True)
class ExperimentPage:
    """What stands on the page; parts without content say so or are left out."""

    title: str
    notes: Sequence[str]
    """Paragraphs below the title."""
    points: Points
    """Clean against corrupted; panels with fewer than two points compare nothing and are left out."""
    tables: Sequence[Table]
    checks: Sequence[Table]
    """The paper's text against its own tables, and beside what was measured here."""
    curves: Curves
    costs: Sequence[Table]
    """Commits, commands, hours, machines."""
    pictures: Sequence[JsonObject] = field(default=())
    """As ``experiment/heat_maps.py`` stores them."""
    without_pictures: str = ""
    """Said where there are none."""


def write_experiment(path: Path, page: ExperimentPage) -> None:
    """Write the page; the same content gives the same bytes."""
    panels = {name: part for name, part in page.points.items() if len(part) > 1}
    sections = [
        ("Clean against corrupted", clean_against_corrupted(panels) if panels else _NOTHING),
        ("Tables", _tables(page.tables)),
        ("The paper's text, checked", _tables(page.checks)),
        ("Corruptions and severities", _severities(page)),
        ("Where two methods disagree", _disagreements(page)),
        ("Training curves", _CURVES + loss_curves(page.curves) if page.curves else "<p>No curve is stored.</p>"),
        ("Where the numbers come from", _tables(page.costs)),
    ]
    links = " · ".join(f'<a href="#part-{number}">{_text(title)}</a>' for number, (title, _) in enumerate(sections))
    parts = [f'<h2 id="part-{number}">{_text(title)}</h2>{body}' for number, (title, body) in enumerate(sections)]
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in page.notes)
    atomic_write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(page.title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{stylesheet()}</style></head>'
        f"<body><h1>{_text(page.title)}</h1>{notes}<nav>{links}</nav>{''.join(parts)}</body></html>\n",
    )


_CURVES = (
    "<p>The loss of each seed over the steps, from what the cells' results keep. Losses of different pre-trainings are "
    "different things; fine-tunings of one panel share theirs.</p>"
)


def _tables(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        note = f'<p class="note">{_note(table.note)}</p>' if table.note else ""
        shown = to_html(list(table.rows)) if table.rows else _NOTHING
        parts.append(f"<h3>{_text(table.heading)}</h3>{note}{shown}")
    return "".join(parts)


def _severities(page: ExperimentPage) -> str:
    parts = []
    for group in page.pictures:
        found, titles = group["severities"], group["titles"]
        models = [(titles[who], found["clean"][who], found["mAP"][who]) for who in ("ours", "other")]
        parts.append(f"<h3>{_where(group)}</h3>" + severity_maps(found["names"], found["levels"], models))
    if not parts:
        return f"<p>{_note(page.without_pictures)}</p>"
    intro = (
        "<p>mAP in per cent of one network each, the seed in the middle: every picture of a test set gets the one "
        "corruption at the one severity, and the gallery is that of the first trial, so that these numbers are rougher "
        "than the tables'.</p>"
    )
    return intro + "".join(parts)


def _disagreements(page: ExperimentPage) -> str:
    parts = []
    for group in page.pictures:
        found, titles = group["disagreements"], group["titles"]
        counts = found["counts"]
        total = sum(counts.values())
        parts.append(
            f"<h3>{_where(group)}</h3><p>The first answer is right for both in {counts['both']} of {total} queries, "
            f"for neither in {counts['neither']}, for {_text(titles['ours'])} alone in {counts['ours']}, for "
            f"{_text(titles['other'])} alone in {counts['other']}. Drawn at random from the latter two:</p>"
        )
        pictures = {name: base64.b64decode(content) for name, content in found["pictures"].items()}
        for entry in found["lists"]:
            for who in ("ours", "other"):
                shown = ranked_list(pictures.__getitem__, {"query": entry["query"], "answers": entry[who]})
                parts.append(f'<p class="who">{_text(titles[who])}</p>{shown}')
    if not parts:
        return f"<p>{_note(page.without_pictures)}</p>"
    intro = (
        "<p>One query, searched by both in the gallery of the first trial; pictures are shown as they were searched, "
        "corrupted where the test set corrupts them (visible ones). Green ✓ is the query's person, red ✗ another "
        "one.</p>"
    )
    return intro + "".join(parts)


def _where(group: JsonObject) -> str:
    about = f"{group['data']['title']}, {group['data']['licence']}; {group['mode']}"
    return f"{_text(group['heading'])} <small>({_text(about)})</small>"


def _note(text: str) -> str:
    """Text with `code` in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(value: Any) -> str:
    return html.escape(str(value))
