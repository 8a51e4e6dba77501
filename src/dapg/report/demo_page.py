"""The demo's page: what this run shows, in a computed sentence; ranked lists of queries that nobody chose."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dapg.core.files import atomic_write_text
from dapg.core.types import JsonObject
from dapg.report.ranked_list import ranked_list
from dapg.report.render import render
from dapg.report.score_tables import Row, to_markdown

OURS = ("stage-2", "stage-1")
"""Starts that are ours."""


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
    """mAP on pictures corrupted by all types."""
    unseen: float
    """mAP on those of types that stage 1 does not draw."""

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
    """Start in words -> what ``pipelines/demo_search.py`` found from it."""
    seed: int
    persons: int
    listed: int
    poses: bytes
    """JPEG sheet of generated poses; empty: none."""
    notes: Sequence[str]
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
                "mAP": f"{scored.clean:.1f}",
                "mAP corrupted": f"{scored.corrupted:.1f}",
                "mAP unseen corruptions": f"{scored.unseen:.1f}",
            }
            for scored in self.scored
        ]


def first_sentence(scored: Sequence[Scored]) -> str:
    """What a run shows: the first network's scores, and the others' beside them; ours is first where there is one."""
    ours, *others = sorted(scored, key=lambda network: network.start not in OURS)
    beside = "".join(
        f"; from {other.title} {other.clean:.1f} and {other.corrupted:.1f} "
        f"({_gap(other.clean - ours.clean)} and {_gap(other.corrupted - ours.corrupted)})"
        for other in others
    )
    return (
        f"In this run AGW from {ours.title} reaches an mAP of {ours.clean:.1f} % on clean and "
        f"{ours.corrupted:.1f} % on corrupted pictures{beside}."
    )


def _gap(points: float) -> str:
    return f"{abs(points):.1f} {'more' if points > 0 else 'less'}"


def write_demo(path: Path, page: DemoPage) -> str:
    """Write the page; returns its first sentence."""
    sentence = first_sentence(page.scored)
    searches = []
    for start, found in page.searches.items():
        for name, words in (("clean", "clean"), ("fog", "gallery in fog")):
            part = found[name]
            images = {place: base64.b64decode(content) for place, content in part["images"].items()}
            lists = [ranked_list(images.__getitem__, entry) for entry in part["lists"]]
            searches.append({"start": start, "where": words, **part, "lists": lists})
    atomic_write_text(
        path,
        render("demo_page.html", title=page.title, page=page, sentence=sentence, rows=page.rows(), searches=searches),
    )
    return sentence
