"""Same person, ask a person, or unknown: two thresholds on a similarity, and how probable "same" is at it.

What is stored is a small table that NumPy applies; ``thresholds.py`` makes it from labelled images.
"""

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dapg.core.settings import from_dict
from dapg.core.types import Modality
from dapg.gallery.database import Database

PICTURES = "images are"
Word = Literal["same", "ask", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a similarity means."""

    word: Word
    probability: float
    """That query and image show the same person, in a gallery like the one that the table was made from."""


@dataclass(frozen=True)
class Threshold:
    """A table for one pair of kinds of light, of one network."""

    same: float
    """From this score on: the same person."""
    ask: float
    """From this score on, up to ``same``: a person has to look."""
    scores: tuple[float, ...]
    """Rising."""
    probabilities: tuple[float, ...]
    """At these scores; in between they are interpolated."""
    infrared: str
    """Kind of infrared that it holds for."""
    said: str
    """Error rates in words."""

    def judge(self, score: float) -> Verdict:
        """The verdict on one score."""
        word: Word = "same" if score >= self.same else "ask" if score >= self.ask else "unknown"
        return Verdict(word, float(np.interp(score, self.scores, self.probabilities)))


def thresholds_of(database: Database, model: int, query: Modality) -> dict[Modality, Threshold]:
    """Kind of light of the gallery's images -> the table for queries of a kind of light."""
    rows = database.query("SELECT gallery, content FROM thresholds WHERE model = ? AND query = ?", model, int(query))
    tables = {}
    for gallery, content in rows:
        values = json.loads(content)
        known = {name: values[name] for name in Threshold.__dataclass_fields__}
        tables[Modality(gallery)] = from_dict(Threshold, known, "threshold ")
    return tables


def infrared_kinds(database: Database) -> dict[str, str]:
    """Who says so -> the kind of infrared (near, thermal), where it is known: network, images, thresholds."""
    rows = {
        "network is": database.query("SELECT infrared FROM models WHERE state = 'active'"),
        PICTURES: database.query("SELECT value FROM meta WHERE key = 'infrared'"),
        "thresholds are": [
            (json.loads(content)["infrared"],)
            for (content,) in database.query(
                "SELECT content FROM thresholds t JOIN models m ON m.id = t.model WHERE m.state = 'active'"
            )
        ],
    }
    return {holder: kinds[0][0] for holder, kinds in rows.items() if kinds and kinds[0][0] != "unknown"}
