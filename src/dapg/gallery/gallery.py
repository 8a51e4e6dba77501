"""A gallery in a folder: index, search, judge, delete, and account for all of it. ``dapg.Gallery`` is this class."""

import contextlib
import copy
import getpass
import hashlib
import io
import json
import secrets
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from dapg.core.any_images import AnyImage, encoded, single_images
from dapg.core.errors import BusyError, DataError, UsageError
from dapg.core.files import atomic_write_bytes, atomic_write_text, folder_lock, write_json
from dapg.core.images import decode, looks_infrared
from dapg.core.schema import read_json
from dapg.core.types import JsonObject, Modality
from dapg.data.sightings import refuse_other_infrared
from dapg.features.build_encoder import BUILT_IN
from dapg.features.networks import ModelCard, Network, NetworkSettings, load_network, thresholds_file
from dapg.gallery import audit as auditing
from dapg.gallery import deletion, verdicts
from dapg.gallery import search as searching
from dapg.gallery import users as accounts
from dapg.gallery.audit import Actor
from dapg.gallery.database import FILE, Database, Filters, SqliteDatabase
from dapg.gallery.encoding import remove_pieces
from dapg.gallery.indexing import Indexer, IndexReport, IndexSettings
from dapg.gallery.migration import insert_model, migrate
from dapg.gallery.postgres import PostgresDatabase, without_password
from dapg.gallery.search import Picture, Query, SearchResult

ABOUT = "gallery.json"
SQLITE = "sqlite"
_BEGUN = ".unfinished"
"""In the folder of a gallery that is being made."""


class _About(TypedDict):
    store: str


class Gallery:
    """Images of persons in a folder, searched exactly by the features of one network.

    Safe to share between threads; several processes may use one folder.
    """

    def __init__(self, folder: Path | str, device: str = "auto", model: str = "") -> None:
        """Open an existing gallery.

        Args:
            folder: of the gallery.
            device: where its network computes.
            model: where the network is now, if it is not where it was when the gallery was made.

        Raises:
            UsageError: there is no gallery in the folder.
            DataError: its database is gone, or empty.
        """
        self.folder, self._device, self._moved = Path(folder), device, model
        if not (self.folder / ABOUT).is_file():
            raise UsageError(f"{folder} is no gallery; dapg index {folder} SOURCE --model MODEL makes one")
        self.database = _connect(self.folder, str(read_json(self.folder / ABOUT, _About)["store"]))
        self.actor = Actor(_login())
        self._networks: dict[str, Network] = {}
        self.database.migrate()
        if not self.database.value("SELECT 1 FROM meta"):
            raise DataError(f"the database of the gallery {folder} is empty; put back a copy")
        with contextlib.suppress(BusyError):  # what a killed deletion left to do; at the next opening otherwise
            self.database.forget()

    @classmethod
    def create(
        cls, folder: Path | str, network: NetworkSettings | str, device: str = "auto", store: str = SQLITE
    ) -> "Gallery":
        """A new, empty gallery.

        Args:
            folder: made where it is missing; it must be empty.
            network: whose features it holds, by what ``dapg.load`` takes or with settings.
            device: where that computes.
            store: ``sqlite``, or the address of a PostgreSQL database (``postgresql://...``) with pgvector.

        Raises:
            UsageError: the folder is not empty, or there is no such network.
        """
        folder, network = Path(folder), NetworkSettings(network) if isinstance(network, str) else network
        _refuse_used(folder)
        loaded = Network(network, device)
        with _being_made(folder) as identity:
            database = _connect(folder, store, True)
            database.migrate()
            start(database, loaded.card, Actor(_login()), identity)
            database.close()
            write_json(folder / ABOUT, {"store": without_password(store), "id": identity})
        gallery = cls(folder, device)
        gallery._networks[loaded.card.hash] = loaded
        gallery._take_thresholds(network.model)
        return gallery

    def acting(self, user: str, reason: str = "") -> "Gallery":
        """The same gallery, on behalf of somebody: what is done with it is audited under that name and reason."""
        other = copy.copy(self)
        other.actor = Actor(user, reason)
        return other

    def close(self) -> None:
        """Let the database go."""
        self.database.close()

    # Network

    def card(self) -> ModelCard:
        """The network that the gallery's features come from."""
        row = self.database.query(
            "SELECT hash, spec, name, feature, width, infrared, licence, data_terms FROM models WHERE state = 'active'"
        )[0]
        return ModelCard(*row)

    def network(self) -> Network:
        """That network, loaded when it is first asked for.

        Raises:
            UsageError: it is not where it was, or another one lies there.
        """
        card = self.card()
        if card.hash not in self._networks:
            self._networks[card.hash] = load_network(card, self._device, self._moved)
        return self._networks[card.hash]

    def model_number(self) -> int:
        """Its number in the database."""
        return int(self.database.value("SELECT id FROM models WHERE state = 'active'"))

    # Index

    def index(self, sources: str | Path | Sequence[str], settings: IndexSettings | None = None) -> IndexReport:
        """Take images in: folders of crops, CSV lists, data sets (NAME or NAME=PATH), videos.

        Raises:
            UsageError: ``settings.network`` names another network than the gallery's; see ``migrate``.
            DataError: a source is not there, or its list has a mistake.
        """
        settings = settings or IndexSettings()
        if settings.network.model:
            wanted = Network(settings.network, settings.device)
            if wanted.card.hash != self.card().hash:
                raise UsageError(
                    f"the gallery is encoded with {self.card().name}, not with {wanted.card.name}; features of two "
                    "networks never meet: give --migrate true to re-encode it"
                )
            self._networks[wanted.card.hash] = wanted
        names = [sources] if isinstance(sources, str | Path) else sources
        indexer = Indexer(self.database, self.folder, self.network(), settings, self.actor)
        return indexer.run([str(name) for name in names])

    def migrate(self, network: NetworkSettings, batch_size: int = 64) -> int:
        """Re-encode all images with another network, and switch to it when the last one is done; how many it were.

        Raises:
            UsageError: it is the gallery's network already.
        """
        loaded = Network(network, self._device)
        count = migrate(self.database, loaded, batch_size, self.actor)
        self._networks, self._moved = {loaded.card.hash: loaded}, ""
        self._take_thresholds(network.model)
        return count

    # Thresholds

    def set_thresholds(self, result: JsonObject) -> None:
        """Take what ``thresholds.measure`` made of this gallery's network.

        Raises:
            UsageError: it is of another network, or of another kind of infrared than that has learnt from.
        """
        card = self.card()
        if result["model"] != card.hash:
            raise UsageError(f"these are thresholds of {result['name']}, not of the gallery's {card.name}")
        kind, model = str(result["infrared"]), self.model_number()
        with self.database.transaction():
            self.database.execute("DELETE FROM thresholds WHERE model = ?", model)
            refuse_other_infrared(verdicts.infrared_kinds(self.database), kind, "these thresholds are")
            for pair in result["pairs"]:
                lights = [int(Modality[pair[side].upper()]) for side in ("query", "gallery")]
                content = json.dumps({**pair, "infrared": kind, "data": result["data"]})
                self.database.execute("INSERT INTO thresholds VALUES (?, ?, ?, ?)", model, *lights, content)
            auditing.append(self.database, self.actor, "set thresholds", {"model": card.hash, "data": result["data"]})

    def _take_thresholds(self, model: str) -> None:
        """Those that lie beside the network, if they are of this one."""
        if model not in BUILT_IN and thresholds_file(model).is_file():
            result = read_json(thresholds_file(model))
            if result["model"] == self.card().hash:
                self.set_thresholds(result)

    # Search

    def encode(self, images: AnyImage | Sequence[AnyImage], modality: Modality | None = None) -> Query:
        """One or several images of one person as a query: the mean of their features, of unit length.

        Args:
            images: paths, encoded files, Pillow images, arrays or tensors.
            modality: kind of light; None: infrared if most of them are grey.

        Raises:
            DataError: one of them is no image.
            UsageError: no image, a file that cannot be read, or an array or tensor that is no image.
        """
        data = [encoded(image) for image in single_images(images)]
        if not data:
            raise UsageError("a search needs an image")
        network = self.network()
        decoded = torch.stack([decode(content, network.input_size, None, name) for content, name in data])
        grey = sum(looks_infrared(image) for image in decoded)
        light = modality or (Modality.INFRARED if 2 * grey > len(data) else Modality.VISIBLE)
        mean = network.encode(decoded, light).mean(axis=0, dtype=np.float32)
        length = float(np.linalg.norm(mean))
        feature = (mean / max(length, 1e-12)).astype(np.float16).astype(np.float32)
        return Query(feature, light, tuple(hashlib.sha256(content).hexdigest() for content, _ in data))

    def search(
        self,
        images: AnyImage | Sequence[AnyImage] | Query,
        modality: Modality | str | None = None,
        filters: Filters | None = None,
        top: int = 20,
        infrared: str = "unknown",
    ) -> SearchResult:
        """The tracks (and images without a track) most similar to the person in the images.

        Args:
            images: one or several images of one person: paths, encoded files, Pillow images, arrays, tensors, or what
                ``encode`` made.
            modality: kind of light of the images, ``visible`` or ``infrared``; None: guessed.
            filters: which images of the gallery are searched.
            top: number of answers.
            infrared: kind of infrared of the images, near or thermal, where it is known.

        Raises:
            DataError: a file is no image, or damaged.
            UsageError: an image that cannot be read, an unknown camera or kind of light, another kind of infrared than
                that of the gallery, or the network is not where it was.
        """
        started, filters = time.time(), filters or Filters()
        light = None if modality is None else Modality.named(modality)
        query = images if isinstance(images, Query) else self.encode(images, light)
        if query.modality == Modality.INFRARED:
            refuse_other_infrared(verdicts.infrared_kinds(self.database), infrared, "the query is")
        model, card = self.model_number(), self.card()
        if len(query.feature) != card.width:
            raise UsageError("the gallery was re-encoded with another network meanwhile; encode the query again")
        version = self.database.count("version")
        tables = verdicts.thresholds_of(self.database, model, query.modality)
        answers = searching.answers(self.database, model, query, filters, top, tables)
        number = self._write_search(query, filters, answers, (started, version, card.hash))
        return SearchResult(number, query.modality, tuple(answers), version, card.hash, filters)

    def _write_search(
        self, query: Query, filters: Filters, answers: Sequence[searching.Answer], facts: tuple[float, int, str]
    ) -> int:
        started, version, model = facts
        plain = {**asdict(filters), "modality": filters.modality and filters.modality.name.lower()}
        with self.database.transaction():
            number = self.database.value(
                "INSERT INTO searches (started, ended, actor, reason, model, version, modality, filters) "
                "VALUES (?,?,?,?,?,?,?,?) RETURNING id",
                started, time.time(), self.actor.name, self.actor.reason, model, version, int(query.modality),
                json.dumps(plain),
            )  # fmt: skip
            rows = [
                (number, place, answer.picture.number, answer.score, answer.verdict.word if answer.verdict else "")
                for place, answer in enumerate(answers, 1)
                if self.database.value("SELECT 1 FROM pictures WHERE id = ?", answer.picture.number)
            ]
            self.database.many("INSERT INTO results VALUES (?,?,?,?,?)", rows)
            body = {
                "search": number,
                "started": started,
                "ended": time.time(),
                "gallery": self.identity,
                "version": version,
                "model": model,
                "query_modality": query.modality.name.lower(),
                "filters": plain,
                "results": [[picture, round(score, 6), word] for _, _, picture, score, word in rows],
            }
            secret: JsonObject = {"queries": deletion.unburied(self.database, query.hashes)}
            auditing.append(self.database, self.actor, "search", body, secret)
        return int(number)

    @property
    def identity(self) -> str:
        """A name of the gallery that no other one has."""
        return str(self.database.value("SELECT value FROM meta WHERE key = 'id'"))

    def known(self, numbers: Sequence[int]) -> list[Picture]:
        """What is known about images, in this order; numbers that there are not are left out."""
        return searching.pictures(self.database, numbers)

    def picture(self, number: int) -> Picture:
        """What is known about an image.

        Raises:
            DataError: there is no such image.
        """
        known = searching.pictures(self.database, [number])
        if not known:
            raise DataError(f"the gallery has no image {number}")
        return known[0]

    def picture_file(self, number: int) -> bytes:
        """The image itself, encoded (JPEG, PNG, ...).

        Raises:
            DataError: there is no such image, or its file, which is not stored in the gallery, is gone.
        """
        return searching.picture_file(self.database, number)

    def pictures(self, after: int = 0, limit: int = 100, person: str | None = None) -> list[Picture]:
        """Images with larger numbers than ``after``, in order: page by page."""
        return searching.listed(self.database, after, limit, person)

    # People's words

    def verdict(self, number: int, picture: int, same: bool, note: str = "") -> int:
        """A person's word on an answer of a search: the same person as in the query, or not; its number.

        Raises:
            UsageError: the search did not find this image.
        """
        with self.database.transaction():
            if not self.database.value("SELECT 1 FROM results WHERE search = ? AND picture = ?", number, picture):
                raise UsageError(f"search {number} has no image {picture} among its answers")
            verdict = self.database.value(
                "INSERT INTO verdicts (search, picture, actor, time, same, note) VALUES (?,?,?,?,?,?) RETURNING id",
                number, picture, self.actor.name, time.time(), int(same), note,
            )  # fmt: skip
            body = {"search": number, "picture": picture, "same": same, "verified_by": self.actor.name}
            auditing.append(self.database, self.actor, "verdict", body)
        return int(verdict)

    def timeline(self, number: int) -> list[Picture]:
        """The images of a search that people called the same person (by their last word on each), oldest first."""
        rows = self.database.query(
            "SELECT picture FROM verdicts v WHERE search = ? AND same = 1 AND id = (SELECT MAX(id) FROM verdicts w "
            "WHERE w.search = v.search AND w.picture = v.picture)",
            number,
        )
        sightings = searching.pictures(self.database, [int(row[0]) for row in rows])
        return sorted(sightings, key=lambda picture: (picture.time is None, picture.time or 0, picture.number))

    def label(self, pictures: Sequence[int], person: str | None) -> None:
        """Give images a name, or take it away."""
        with self.database.transaction():
            self.database.many("UPDATE pictures SET person = ? WHERE id = ?", [(person, number) for number in pictures])
            auditing.append(
                self.database, self.actor, "label", {"pictures": list(pictures), "named": person is not None}
            )

    # Deletion

    def delete(self, pictures: Sequence[int] = (), person: str | None = None) -> int:
        """Remove images, by number or all of a named person, for good; how many were removed.

        Crops, features, results, query hashes and the cached matrix go with them; a tombstone keeps each from being
        taken in again.

        Raises:
            UsageError: nobody is called so.
            BusyError: deleted, but another process still reads an old state; run ``check`` later.
        """
        remove_pieces(self.folder)
        return deletion.delete(self.database, self.numbers(pictures, person), self.actor)

    def numbers(self, pictures: Sequence[int] = (), person: str | None = None) -> list[int]:
        """The numbers given, and those of all images of a named person.

        Raises:
            UsageError: nobody is called so.
        """
        return [*pictures, *(deletion.pictures_of(self.database, person) if person is not None else ())]

    def set_retention(self, days: dict[str, float]) -> None:
        """Days that images of a class (unknown, matched, confirmed) are kept; 0 keeps them for ever.

        Raises:
            UsageError: there is no such class.
        """
        unknown = sorted(set(days) - set(deletion.CLASSES))
        if unknown:
            raise UsageError(f"{unknown[0]!r} is no class of images; classes are {', '.join(deletion.CLASSES)}")
        with self.database.transaction():
            for name, count in days.items():
                self.database.execute("DELETE FROM retention WHERE class = ?", name)
                if count:
                    self.database.execute("INSERT INTO retention VALUES (?, ?)", name, count)
            auditing.append(self.database, self.actor, "set retention", {"days": days})

    def retention(self) -> dict[str, float]:
        """Class -> days; a class that is not there is kept for ever."""
        return {name: float(days) for name, days in self.database.query("SELECT class, days FROM retention")}

    def enforce_retention(self) -> int:
        """Delete what has been kept for longer than its class allows; how many images."""
        numbers = deletion.overdue(self.database, time.time())
        remove_pieces(self.folder)
        return deletion.delete(self.database, numbers, self.actor, "retention") if numbers else 0

    def check(self, texts: Sequence[str] = ()) -> list[str]:
        """Everything that is wrong, a line each: damage, a broken audit, and in the bytes of all files whatever is left
        of deleted images, or of ``texts``.
        """
        return deletion.check(self.database, texts)

    # Accounts

    def audit(self, after: int = 0, limit: int = 1000) -> list[auditing.Entry]:
        """Entries with larger numbers than ``after``, oldest first: page by page."""
        return auditing.entries(self.database, after, limit)

    def verify_audit(self, expected: str = "") -> tuple[list[str], str]:
        """What is wrong with the chain of the audit, and its last hash, to be kept elsewhere and ``expected`` later."""
        return auditing.verify(self.database, expected)

    def add_user(self, name: str, role: accounts.Role) -> str:
        """Let somebody use the server; the token, which cannot be shown again."""
        return accounts.add(self.database, name, role, self.actor)

    def remove_user(self, name: str) -> None:
        """Let somebody use it no longer."""
        accounts.remove(self.database, name, self.actor)

    def users(self) -> list[accounts.User]:
        """Everybody with a token."""
        return accounts.listed(self.database)

    def user(self, token: str) -> accounts.User | None:
        """Whose token it is."""
        return accounts.of_token(self.database, token)

    def info(self) -> JsonObject:
        """Counts, network, thresholds, retention."""
        count = self.database.value
        cameras = self.database.query(
            "SELECT c.name, p.modality, COUNT(*), MIN(p.time), MAX(p.time) FROM pictures p "
            "JOIN cameras c ON c.id = p.camera GROUP BY c.name, p.modality ORDER BY c.name, p.modality"
        )
        files = self.database.query("SELECT state, COUNT(*) FROM files GROUP BY state ORDER BY state")
        spoken = self.database.query("SELECT query, gallery, content FROM thresholds ORDER BY query, gallery")
        return {
            "id": self.identity,
            "version": self.database.count("version"),
            "pictures": count("SELECT COUNT(*) FROM pictures"),
            "persons": count("SELECT COUNT(DISTINCT person) FROM pictures"),
            "tracks": count("SELECT COUNT(*) FROM tracks"),
            "searches": count("SELECT COUNT(*) FROM searches"),
            "deleted": count("SELECT COUNT(DISTINCT picture) FROM tombstones"),
            "files": dict(files),
            "classes": deletion.classes(self.database),
            "retention_days": self.retention(),
            "cameras": [
                {"name": name, "modality": Modality(kind).name.lower(), "pictures": n, "first": first, "last": last}
                for name, kind, n, first, last in cameras
            ],
            "model": {name: value for name, value in asdict(self.card()).items() if name != "spec"},
            "thresholds": [
                {"query": Modality(q).name.lower(), "gallery": Modality(g).name.lower(), "said": json.loads(c)["said"]}
                for q, g, c in spoken
            ],
        }

    # Copies

    def backup(self, folder: Path | str) -> None:
        """A consistent copy in a new folder, while others go on working. It keeps what is deleted here later.

        Raises:
            UsageError: the folder is not empty.
        """
        target = Path(folder)
        with _being_made(target):
            self.database.backup(target)
            write_json(target / ABOUT, read_json(self.folder / ABOUT))
        auditing.append(self.database, self.actor, "backup", {})

    def export(self, number: int, path: Path | str) -> None:
        """A search as a case: its images, answers, verdicts and audit entries in a zip file, with a list of hashes.

        Raises:
            UsageError: there is no such search.
            DataError: the file of an image is gone.
        """
        auditing.append(self.database, self.actor, "export", {"search": number})
        atomic_write_bytes(path, self._case(number))

    def _case(self, number: int) -> bytes:
        columns = ("started", "ended", "actor", "reason", "model", "version", "modality", "filters")
        rows = self.database.query(f"SELECT {', '.join(columns)} FROM searches WHERE id = ?", number)
        if not rows:
            raise UsageError(f"the gallery has no search {number}")
        results = self.database.query(
            "SELECT place, picture, score, verdict FROM results WHERE search = ? ORDER BY place", number
        )
        spoken = self.database.query(
            "SELECT picture, actor, time, same, note FROM verdicts WHERE search = ? ORDER BY id", number
        )
        known = {picture.number: picture for picture in searching.pictures(self.database, [row[1] for row in results])}
        entries = list[auditing.Entry]()
        while page := self.audit(entries[-1].number if entries else 0):
            entries += page
        case = {
            "search": dict(zip(columns, rows[0], strict=True)),
            "gallery": self.identity,
            "answers": [
                {"place": place, "score": score, "verdict": word, **asdict(known[picture])}
                for place, picture, score, word in results
            ],
            "verdicts": [dict(zip(("picture", "by", "time", "same", "note"), row, strict=True)) for row in spoken],
            "timeline": [picture.number for picture in self.timeline(number)],
            "audit": [asdict(entry) for entry in entries if entry.body.get("search") == number],
        }
        files = {"case.json": json.dumps(case, indent=2, ensure_ascii=False).encode()}
        for _, picture, _, _ in results:
            data = self.picture_file(picture)
            suffix = (Image.open(io.BytesIO(data)).format or "bin").lower()
            files[f"pictures/{picture}.{suffix}"] = data
        sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in {**files, "SHA256SUMS": sums.encode()}.items():
                archive.writestr(name, data)
        return stream.getvalue()


def start(database: Database, card: ModelCard, actor: Actor, identity: str) -> None:
    """Fill the tables of a new gallery, unless a killed attempt to make the same one came so far.

    Raises:
        UsageError: the database holds another gallery, or this one was begun with another network.
    """
    with database.transaction():
        held = database.value("SELECT value FROM meta WHERE key = 'id'")
        if held == identity and database.value("SELECT 1 FROM models WHERE hash = ?", card.hash):
            return
        if held is not None:
            raise UsageError("the database holds a gallery already; open it by its folder, or give an empty database")
        meta = {"id": identity, "secret": secrets.token_hex(32), "made": str(time.time())}
        counters = {"version": "0", "epoch": "0", "entries": "0"}
        database.many("INSERT INTO meta VALUES (?, ?)", list({**meta, **counters}.items()))
        insert_model(database, card, "active")
        auditing.append(database, actor, "create", {"gallery": identity, "model": card.hash})


@contextlib.contextmanager
def _being_made(folder: Path) -> Iterator[str]:
    """Around the making of a gallery in a new folder; of what a killed attempt left there the identity stays.

    Raises:
        UsageError: the folder holds something else, or another process has made a gallery in it meanwhile.
        BusyError: another process is making one.
    """
    _refuse_used(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        _refuse_used(folder)
        mark = folder / _BEGUN
        identity = (mark.read_text() if mark.exists() else "") or str(uuid.uuid4())
        atomic_write_text(mark, identity)
        for path in _contents(folder):
            if path != mark:
                path.unlink()
        yield identity
        mark.unlink()


def _refuse_used(folder: Path) -> None:
    if (folder / ABOUT).exists():
        raise UsageError(f"{folder} holds a gallery already; give another folder")
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give a folder")
    if _contents(folder) and not (folder / _BEGUN).exists():
        raise UsageError(f"{folder} is not empty and holds no gallery; give another folder")


def _contents(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".lock.")] if folder.exists() else []


def _connect(folder: Path, store: str, new: bool = False) -> Database:
    if store == SQLITE:
        if not new and not (folder / FILE).is_file():
            raise DataError(f"{folder / FILE}, the database of the gallery, is gone; put back a copy")
        return SqliteDatabase(folder)
    if store.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(store)
    raise UsageError(f"{store!r} is no store; use sqlite or postgresql://HOST/DATABASE")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown user"
