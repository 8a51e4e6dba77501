"""A gallery of a few hand-written features, without a network or an image file."""

import hashlib
from collections.abc import Sequence

import numpy as np

from dapg.core.types import Modality
from dapg.features.networks import ModelCard
from dapg.gallery.audit import Actor
from dapg.gallery.database import Database
from dapg.gallery.gallery import start
from dapg.gallery.indexing import add_feature
from dapg.gallery.search import Query

CARD = ModelCard("hash of a network", "{}", "by hand", "feature", 64, "near", "none", "none")
ME = Actor("me", "test")


def tables(database: Database) -> Database:
    """Empty tables in a new database."""
    database.migrate()
    start(database, CARD, ME, "by hand")
    return database


def put(
    database: Database,
    vector: Sequence[float],
    camera: str = "gate",
    track: str = "",
    time: float | None = None,
    modality: Modality = Modality.VISIBLE,
    person: str | None = None,
) -> int:
    """One image; its number. Its content is as unique as its number."""
    with database.transaction():
        database.count("version", 1)
        database.execute("INSERT INTO cameras (name) VALUES (?) ON CONFLICT DO NOTHING", camera)
        place = int(database.value("SELECT id FROM cameras WHERE name = ?", camera))
        following = None
        if track:
            database.execute("INSERT INTO tracks (camera, name) VALUES (?, ?) ON CONFLICT DO NOTHING", place, track)
            following = int(database.value("SELECT id FROM tracks WHERE camera = ? AND name = ?", place, track))
        count = int(database.value("SELECT COALESCE(MAX(id), 0) + 1 FROM pictures"))
        number = database.value(
            "INSERT INTO pictures (sha256, box, path, camera, track, time, modality, quality, person, added) "
            "VALUES (?, '', ?, ?, ?, ?, ?, 1.0, ?, 0.0) RETURNING id",
            sha256_of(count), f"/pictures/{count}.png", place, following, time, int(modality), person,
        )  # fmt: skip
        database.execute("INSERT INTO crops VALUES (?, ?)", number, f"image {number}".encode())
        model = int(database.value("SELECT id FROM models WHERE state = 'active'"))
        add_feature(database, int(number), model, unit(vector).astype(np.float16))
    return int(number)


def sha256_of(number: int) -> str:
    """The hash of the image that ``put`` makes as the n-th."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def unit(vector: Sequence[float]) -> np.ndarray:
    """A vector of length one, with zeros up to the width of the card."""
    array = np.zeros(CARD.width, dtype=np.float32)
    array[: len(vector)] = vector
    return array / np.linalg.norm(array)


def query(vector: Sequence[float]) -> Query:
    """A query with this feature."""
    return Query(unit(vector).astype(np.float16).astype(np.float32), Modality.INFRARED, ("hash of a query",))
