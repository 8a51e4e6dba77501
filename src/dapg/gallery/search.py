"""From a query feature to answers: the images of a track vote, and its best one stands for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dapg.core.errors import DataError
from dapg.core.images import cut
from dapg.core.types import JsonObject, Modality
from dapg.data.sightings import clock
from dapg.gallery.database import Database, Filters, Row
from dapg.gallery.matrix import Table
from dapg.gallery.verdicts import Threshold, Verdict

VOTERS = 3
"""The vote of a track is the mean score of so many of its images, the most similar ones."""


@dataclass(frozen=True)
class Picture:
    """What the gallery knows about one of its images."""

    number: int
    path: str
    camera: str
    track: str
    time: float | None
    """Seconds since 1970, or since a video began."""
    modality: Modality
    quality: float
    """Sharpness: variance of the Laplacian, grey levels squared."""
    person: str | None
    """The name that people gave."""


@dataclass(frozen=True)
class Answer:
    """A track, or an image that belongs to none, with its most similar image."""

    picture: Picture
    score: float
    """Cosine of query and image."""
    vote: float
    """Mean of the best scores of the track; answers are in this order."""
    pictures: int
    """Images of the track that passed the filters."""
    verdict: Verdict | None
    """Same person, ask a person, or unknown; None where the gallery has no thresholds for these kinds of light."""


@dataclass(frozen=True)
class Query:
    """One or several images of one person, as a feature."""

    feature: Float32[np.ndarray, "D"]
    modality: Modality
    hashes: tuple[str, ...]
    """SHA-256 of each image's file."""


@dataclass(frozen=True)
class SearchResult:
    """Answers, best first."""

    number: int
    """Of the search, for verdicts and the audit."""
    modality: Modality
    """Of the query, given or guessed."""
    answers: tuple[Answer, ...]
    version: int
    """Of the gallery; it grows with every change."""
    model: str
    """Hash of the network."""
    filters: Filters = field(default_factory=Filters)

    @property
    def by_camera(self) -> dict[str, Answer]:
        """Best answer of each camera."""
        best: dict[str, Answer] = {}
        for answer in self.answers:
            best.setdefault(answer.picture.camera, answer)
        return best

    def to_json(self) -> JsonObject:
        """Plain values."""
        return {
            "search": self.number,
            "query_modality": self.modality.name.lower(),
            "version": self.version,
            "model": self.model,
            "answers": [_plain(answer) for answer in self.answers],
            "best_by_camera": {camera: answer.picture.number for camera, answer in self.by_camera.items()},
        }


def _plain(answer: Answer) -> JsonObject:
    picture, verdict = answer.picture, answer.verdict
    return {
        "picture": picture.number,
        "path": picture.path,
        "camera": picture.camera,
        "track": picture.track,
        "time": picture.time,
        "clock": clock(picture.time),
        "modality": picture.modality.name.lower(),
        "person": picture.person,
        "score": round(answer.score, 6),
        "vote": round(answer.vote, 6),
        "pictures": answer.pictures,
        "verdict": verdict and {"word": verdict.word, "probability": round(verdict.probability, 4)},
    }


def answers(
    database: Database,
    model: int,
    query: Query,
    filters: Filters,
    top: int,
    thresholds: Mapping[Modality, Threshold],
) -> list[Answer]:
    """The ``top`` tracks with the highest votes, exactly.

    A track whose best image was not among those looked at cannot have a higher vote than the last of them: more are
    looked at until that is below the last vote that counts.
    """
    count = 4 * top
    while True:
        hits = database.nearest(model, query.feature, filters, count)
        ranked = _votes(database, model, query, filters, hits)
        if len(hits) < count or (len(ranked) >= top and ranked[top - 1][0] > hits["score"][-1]):
            break
        count *= 4
    chosen = ranked[:top]
    known = {picture.number: picture for picture in pictures(database, [int(best["picture"]) for _, best, _ in chosen])}
    listed = []
    for vote, best, voters in chosen:
        picture = known.get(int(best["picture"]))
        if picture is not None:  # else deleted since a moment ago
            threshold = thresholds.get(picture.modality)
            score = float(best["score"])
            listed.append(Answer(picture, score, vote, voters, threshold.judge(score) if threshold else None))
    return listed


def _votes(
    database: Database, model: int, query: Query, filters: Filters, hits: Table
) -> list[tuple[float, np.void, int]]:
    """(vote, best image, number of images) of the tracks that the hits belong to, highest vote first."""
    tracks = np.unique(hits["track"][hits["track"] > 0]).tolist()
    members = [hits[hits["track"] < 0]]
    if tracks:
        members.append(database.of_tracks(model, query.feature, filters, tracks))
    groups: dict[int, list[np.void]] = {}
    for hit in np.concatenate(members):
        groups.setdefault(int(hit["track"]), []).append(hit)
    votes = [
        (float(np.mean([hit["score"] for hit in group[:VOTERS]], dtype=np.float64)), group[0], len(group))
        for group in groups.values()
    ]
    return sorted(votes, key=lambda vote: (-vote[0], int(vote[1]["picture"])))


def pictures(database: Database, numbers: Sequence[int]) -> list[Picture]:
    """Images by number, in that order; numbers that there are not are left out."""
    marks = ",".join("?" * len(numbers))
    rows = database.query(f"{_SELECT} WHERE p.id IN ({marks})", *numbers) if numbers else []
    by_number = {int(row[0]): _picture(row) for row in rows}
    return [by_number[number] for number in numbers if number in by_number]


def listed(database: Database, after: int, limit: int, person: str | None = None) -> list[Picture]:
    """Images with larger numbers than ``after``, of one person perhaps, in order of number."""
    where, values = ("AND p.person = ?", [person]) if person is not None else ("", [])
    rows = database.query(f"{_SELECT} WHERE p.id > ? {where} ORDER BY p.id LIMIT ?", after, *values, limit)
    return [_picture(row) for row in rows]


def _picture(row: Row) -> Picture:
    number, path, camera, track, time, modality, quality, person = row
    return Picture(number, path, camera, track, time, Modality(modality), quality, person)


_SELECT = (
    "SELECT p.id, p.path, c.name, COALESCE(t.name, ''), p.time, p.modality, p.quality, p.person FROM pictures p "
    "JOIN cameras c ON c.id = p.camera LEFT JOIN tracks t ON t.id = p.track"
)


def picture_file(database: Database, number: int) -> bytes:
    """The encoded image: the stored crop, or the file at its path, cut to its box.

    Raises:
        DataError: there is no such image, or its file is gone.
    """
    rows = database.query(
        "SELECT p.path, p.box, c.data FROM pictures p LEFT JOIN crops c ON c.picture = p.id WHERE p.id = ?", number
    )
    if not rows:
        raise DataError(f"the gallery has no image {number}")
    path, box, data = rows[0]
    if data is not None:
        return bytes(data)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"image {number}: {path}: {error.strerror or error}") from error
    left, top, right, bottom = map(int, box.split(",")) if box else (0, 0, 0, 0)
    return cut(data, (left, top, right, bottom)) if box else data
