"""One self-contained HTML page for an experiment: tables, checks, heat maps, ranked lists, curves and what it cost."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dapg.core.files import atomic_write_text
from dapg.core.types import JsonObject
from dapg.report.benchmark_page import drift_drawing
from dapg.report.plots import Gain, Point, clean_against_corrupted, gain_curves, loss_curves, severity_maps
from dapg.report.ranked_list import Figure, ranked_list
from dapg.report.render import render
from dapg.report.score_tables import Row

Points = Mapping[str, Sequence[Point]]
"""Panel -> its points."""
Curves = Mapping[str, Mapping[str, Sequence[Sequence[Sequence[int | float]]]]]
"""Panel -> name -> the (step, loss) pairs of each seed."""


@dataclass(frozen=True)
class Table:
    """Rows below a heading."""

    heading: str
    rows: Sequence[Row]
    note: str = ""
    source: str = ""
    """Where its figures come from; folded."""


@dataclass(frozen=True)
class Section:
    """Tables of one question."""

    title: str
    tables: Sequence[Table]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class ExperimentPage:
    """What is on the page; parts without content are left out."""

    title: str
    conclusion: Sequence[str]
    """What the figures say, in sentences with their intervals."""
    points: Points
    """Clean against corrupted; panels with fewer than two points compare nothing and are left out."""
    sections: Sequence[Section]
    curves: Curves
    sources: Sequence[Table]
    """Commits, commands, hours, machines; the page's last section."""
    gains: Mapping[str, Sequence[Gain]] = field(default_factory=dict)
    """Panel -> its curve of gains."""
    notes: Sequence[str] = ()
    """Paragraphs below the conclusion."""
    pictures: Sequence[JsonObject] = field(default=())
    """As ``experiment/heat_maps.py`` stores them."""
    without_pictures: str = ""
    """Said where there are none."""


def write_experiment(path: Path, page: ExperimentPage) -> None:
    """Write the page; the same content gives the same bytes."""
    panels = {name: part for name, part in page.points.items() if len(part) > 1}
    text = render(
        "experiment_page.html",
        title=page.title,
        page=page,
        points=clean_against_corrupted(panels) if panels else "",
        gains=gain_curves(page.gains) if page.gains else "",
        severities=[(group, _severity_maps(group)) for group in page.pictures],
        disagreements=[(group, list(_disagreements(group))) for group in page.pictures],
        curves=loss_curves(page.curves) if page.curves else "",
    )
    atomic_write_text(path, text)


def _severity_maps(group: JsonObject) -> str:
    measured, titles = group["severities"], group["titles"]
    models = [(titles[who], measured["clean"][who], measured["mAP"][who]) for who in ("ours", "other")]
    maps = severity_maps(measured["names"], measured["levels"], models)
    cells = measured.get("cells", {})  # not in files of earlier versions
    return maps + "".join(drift_drawing(cells[who], f"{titles[who]}: FPIR, per cent") for who in cells)


def _disagreements(group: JsonObject) -> Iterator[tuple[str, list[list[Figure]]]]:
    """Whose answers, and the list: each query twice."""
    stored = group["disagreements"]
    images = {name: base64.b64decode(content) for name, content in stored["pictures"].items()}
    for entry in stored["lists"]:
        for who in ("ours", "other"):
            yield who, ranked_list(images.__getitem__, {"query": entry["query"], "answers": entry[who]})
