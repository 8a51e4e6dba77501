"""Another network for a gallery: its features are added beside the old ones, then all switch at once."""

import time

import numpy as np
import torch

from dapg.core.errors import UsageError
from dapg.core.images import decode
from dapg.core.progress import progress_bar
from dapg.core.types import Modality
from dapg.data.sightings import refuse_other_infrared
from dapg.features.networks import ModelCard, Network
from dapg.gallery.audit import Actor, append
from dapg.gallery.database import Database
from dapg.gallery.indexing import add_feature
from dapg.gallery.search import picture_file
from dapg.gallery.verdicts import PICTURES, infrared_kinds


def migrate(database: Database, network: Network, batch_size: int, actor: Actor) -> int:
    """Re-encode all images; searches use the old features until the last one is there. How many were encoded.

    A killed migration goes on where it stopped. Images that others add meanwhile are encoded too, before the switch;
    thresholds of the old network do not hold for the new one and go with it.

    Raises:
        UsageError: the gallery is of this network already, is being re-encoded with a third one, or has images of
            another kind of infrared than the network knows.
        DataError: an image that is not stored in the gallery is gone.
    """
    model = _building(database, network)
    total, encoded = int(database.value("SELECT COUNT(*) FROM pictures")), 0
    with progress_bar("re-encode", "image", total, total - _missing(database, model)) as bar:
        while True:
            rows = database.query(
                "SELECT id, modality FROM pictures WHERE id NOT IN (SELECT picture FROM features WHERE model = ?) "
                "ORDER BY id LIMIT ?",
                model, batch_size,
            )  # fmt: skip
            if not rows and _switch(database, network, model, actor):
                break
            _encode(database, network, model, [(int(number), Modality(kind)) for number, kind in rows])
            encoded += len(rows)
            bar.update(len(rows))
    database.forget()
    return encoded


def _building(database: Database, network: Network) -> int:
    card = network.card
    with database.transaction():
        pictures = {holder: kind for holder, kind in infrared_kinds(database).items() if holder == PICTURES}
        refuse_other_infrared(pictures, card.infrared, f"{card.name} is")
        state = database.value("SELECT state FROM models WHERE hash = ?", card.hash)
        if state == "active":
            raise UsageError(f"the gallery is encoded with {card.name} already")
        if state is None:
            if database.value("SELECT 1 FROM models WHERE state = 'building'"):
                raise UsageError("the gallery is being re-encoded with another network; end that first, or run it on")
            insert_model(database, card, "building")
        return int(database.value("SELECT id FROM models WHERE hash = ?", card.hash))


def insert_model(database: Database, card: ModelCard, state: str) -> None:
    """Enter a network's card."""
    database.execute(
        "INSERT INTO models (hash, spec, name, feature, width, infrared, licence, data_terms, state, added) "
        "VALUES (?,?,?,?,?,?,?,?,?,?)",
        card.hash, card.spec, card.name, card.feature, card.width, card.infrared, card.licence, card.data_terms, state,
        time.time(),
    )  # fmt: skip


def _missing(database: Database, model: int) -> int:
    statement = "SELECT COUNT(*) FROM pictures WHERE id NOT IN (SELECT picture FROM features WHERE model = ?)"
    return int(database.value(statement, model))


def _encode(database: Database, network: Network, model: int, rows: list[tuple[int, Modality]]) -> None:
    if not rows:
        return
    images = torch.stack([decode(picture_file(database, number), network.input_size) for number, _ in rows])
    vectors = network.encode_mixed(images, [kind for _, kind in rows])
    with database.transaction():
        database.count("version", 1)
        for (number, _), vector in zip(rows, vectors, strict=True):
            if database.value("SELECT 1 FROM pictures WHERE id = ?", number):  # else deleted meanwhile
                add_feature(database, number, model, np.asarray(vector))


def _switch(database: Database, network: Network, model: int, actor: Actor) -> bool:
    """In one transaction: nothing is missing, the new network is active, the old one and its features are gone."""
    with database.transaction():
        database.count("version", 1)
        if _missing(database, model):
            return False
        database.execute("DELETE FROM models WHERE id <> ?", model)
        database.execute("UPDATE models SET state = 'active' WHERE id = ?", model)
        database.count("epoch", 1)
        append(database, actor, "migrate", {"model": network.card.hash, "name": network.card.name})
    return True
