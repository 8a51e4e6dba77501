"""The demo's page: what this run shows, in a computed sentence; ranked lists of queries that nobody chose."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dapg.core.files import atomic_write_text
from dapg.core.types import JsonObject
from dapg.report.plots import Point, clean_and_corrupted
from dapg.report.ranked_list import ranked_list
from dapg.report.render import render
from dapg.report.score_tables import Row, to_markdown

OURS = ("stage-2", "stage-1")
"""Starts that are ours."""
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Gap:
    """A difference in points of mAP and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``+0.5 (-0.2 to +1.2)``."""
        return f"{_signed(self.value)} ({_signed(self.low)} to {_signed(self.high)})"


@dataclass(frozen=True)
class Scored:
    """A fine-tuned network's scores, in per cent."""

    start: str
    title: str
    """Where its fine-tuning started from, in words."""
    rank_1: float
    clean: float
    """mAP."""
    corrupted: float
    """mAP on images corrupted by all types."""
    unseen: float
    """mAP on those of types that stage 1 does not draw."""
    intervals: tuple[Bounds, Bounds] | None = None
    """Of mAP on clean and on corrupted images."""
    behind: tuple[Gap, Gap] | None = None
    """Our network minus this one, on clean and on corrupted images; None of ours itself."""

    @classmethod
    def of(cls, start: str, title: str, result: JsonObject) -> "Scored":
        """From an evaluation's result."""
        feature = str(result["feature"])
        mean = result["scores"][feature]
        corrupted = {row["name"]: 100 * row["scores"][feature]["mAP"] for row in result["corrupted"]}
        return cls(start, title, 100 * mean["cmc"][0], 100 * mean["mAP"], corrupted["all"], corrupted["unseen"])


@dataclass(frozen=True)
class DemoPage:
    """What the page shows."""

    title: str
    scored: Sequence[Scored]
    searches: Mapping[str, JsonObject]
    """Start in words -> what ``pipelines/demo_search.py`` returned for it."""
    seed: int
    persons: int
    listed: int
    poses: bytes
    """JPEG sheet of generated poses; empty: none."""
    notes: Sequence[str]
    serve: str
    """The command that opens a search page on these results."""
    details: str
    """File name of the page with everything else."""

    def table(self) -> str:
        """The scores as Markdown."""
        return to_markdown(self.rows())

    def rows(self) -> list[Row]:
        """The scores."""
        return [
            {
                "AGW from": scored.title,
                "rank-1": f"{scored.rank_1:.1f}",
                "mAP": _with_interval(scored.clean, scored.intervals and scored.intervals[0]),
                "mAP corrupted": _with_interval(scored.corrupted, scored.intervals and scored.intervals[1]),
                "mAP unseen corruptions": f"{scored.unseen:.1f}",
            }
            for scored in self.scored
        ]


def first_sentence(scored: Sequence[Scored]) -> str:
    """What a run shows: the first network's scores, and how far it is from the others; ours comes first."""
    ours, *others = sorted(scored, key=lambda network: network.start not in OURS)
    gaps = "".join(f"; the difference to {other.title} is {_points(ours, other)} points" for other in others)
    reached = (
        f"In this run AGW from {ours.title} reaches an mAP of {ours.clean:.1f} % on clean and "
        f"{ours.corrupted:.1f} % on corrupted images"
    )
    return f"{reached}{gaps}."


def _points(ours: Scored, other: Scored) -> str:
    """Ours minus another on clean and on corrupted images, with intervals where they are known."""
    if other.behind:
        return "{} and {}".format(*other.behind)
    return f"{_signed(ours.clean - other.clean)} and {_signed(ours.corrupted - other.corrupted)}"


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"


def _with_interval(value: float, bounds: Bounds | None) -> str:
    return f"{value:.1f}" if bounds is None else f"{value:.1f} ({bounds[0]:.1f}–{bounds[1]:.1f})"


def write_demo(path: Path, page: DemoPage) -> str:
    """Write the page; returns its first sentence."""
    sentence = first_sentence(page.scored)
    points = [Point(scored.title, scored.clean, scored.corrupted, *(scored.intervals or ())) for scored in page.scored]
    text = render(
        "demo_page.html",
        title=page.title,
        page=page,
        sentence=sentence,
        rows=page.rows(),
        drawing=clean_and_corrupted(points),
        searches=[(words, _search(page.searches, name)) for name, words in (("clean", "clean"), ("fog", "in fog"))],
    )
    atomic_write_text(path, text)
    return sentence


def _search(searches: Mapping[str, JsonObject], name: str) -> JsonObject:
    """Shares by start, and query by query the answers of each network."""
    shares, by_query = [], []
    for start, part in ((start, searches[start][name]) for start in searches):
        shares.append(
            {
                "AGW from": start,
                "queries": str(part["queries"]),
                "found at rank 1": f"{100 * part['first']:.0f} %",
                "found in the first five": f"{100 * part['five']:.0f} %",
            }
        )
        images = {place: base64.b64decode(content) for place, content in part["images"].items()}
        lists = [ranked_list(images.__getitem__, entry)[0] for entry in part["lists"]]
        by_query.append([(start, figures) for figures in lists])
    return {"shares": shares, "queries": list(zip(*by_query, strict=True))}
