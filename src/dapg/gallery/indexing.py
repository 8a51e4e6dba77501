"""From sources to rows: read, decode, encode, and commit batch by batch; what is committed survives any kill.

Reading and decoding run in threads ahead of the network. A picture is known by the SHA-256 of its file and its box:
seen again, under whatever name, it is a duplicate. A file whose size and time of change are known is not even read.
"""

import contextlib
import hashlib
import hmac
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from dapg.core.errors import DataError, UsageError
from dapg.core.images import cut, decode, sharpness
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count, Threads, Weight
from dapg.core.types import JsonObject
from dapg.data.cropping.videos import VIDEO_SUFFIXES
from dapg.data.listing import files_below, is_picture
from dapg.data.sightings import Box, Sighting, SourceSettings, sightings
from dapg.gallery.audit import Actor, append
from dapg.gallery.database import Database, Value
from dapg.gallery.networks import Network, NetworkSettings

T = TypeVar("T")
_SHOWN = 10


@dataclass(frozen=True)
class IndexSettings(SourceSettings, NetworkSettings):
    """What is taken in, and how."""

    copy: bool = True
    """Keep a copy of each picture (of a box: the crop) in the gallery; else only the path of its file."""
    watch: bool = False
    """Go on looking for new pictures until interrupted."""
    every: Weight = 5.0
    """Seconds between two looks."""
    batch_size: Count = 64
    """Pictures encoded at once."""
    threads: Threads = 2
    """Pictures read and decoded at a time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    @property
    def network(self) -> NetworkSettings:
        """The network alone."""
        return NetworkSettings(self.model, self.backbone, self.height, self.width)


@dataclass
class IndexReport:
    """What became of the pictures."""

    added: int = 0
    known: int = 0
    """Seen before at the same place."""
    duplicates: int = 0
    """The same file, box included, under another name."""
    damaged: int = 0
    deleted: int = 0
    """Left out because a deletion removed them for good."""
    seconds: float = 0.0
    network_seconds: float = 0.0
    """Of these, in the network."""
    notes: list[str] = field(default_factory=list)
    """The first duplicates and damaged files, in words."""

    def note(self, kind: str, text: str) -> None:
        """Count one of a kind, and remember the first of them."""
        count = getattr(self, kind) + 1
        setattr(self, kind, count)
        if count <= _SHOWN:
            self.notes.append(text)

    def counts(self) -> JsonObject:
        """The numbers alone."""
        return {name: getattr(self, name) for name in ("added", "known", "duplicates", "damaged", "deleted")}


@dataclass(frozen=True)
class _Decoded:
    sighting: Sighting
    key: str
    sha256: str
    crop: bytes
    image: UInt8[Tensor, "3 H W"]


@dataclass(frozen=True)
class _Damaged:
    sighting: Sighting
    key: str
    message: str


class Indexer:
    """Takes sightings into one gallery with one network."""

    def __init__(self, database: Database, folder: Path, network: Network, settings: IndexSettings) -> None:
        self.database, self.folder, self.network, self.settings = database, folder, network, settings
        self.model = int(database.value("SELECT id FROM models WHERE hash = ?", network.card.hash))
        self.keys = Keys(database)

    def run(self, sources: Sequence[str], actor: Actor) -> IndexReport:
        """Index all sources once, or again and again while watching; every run is one entry of the audit.

        Raises:
            DataError: a source is not there, or its list has a mistake.
        """
        report, started = IndexReport(), time.time()
        try:
            while True:
                for source in sources:
                    for part in _parts(source):
                        self._source(part, report)
                if not self.settings.watch:
                    break
                time.sleep(self.settings.every)
        except KeyboardInterrupt:
            if not self.settings.watch:
                raise
        finally:
            report.seconds = time.time() - started
            if report.added or report.damaged:
                append(self.database, actor, "index", {**report.counts(), "seconds": round(report.seconds, 1)})
        return report

    def _source(self, source: str, report: IndexReport) -> None:
        path = Path(source)
        video = path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
        stamp = (path.stat().st_size, path.stat().st_mtime_ns) if video else (-1, 0)
        key = self.keys.file(f"video {path.resolve()}", None)
        if video and self._known([key]) == {key: stamp}:
            return
        work = self.folder / "incoming"
        self._take_in(sightings(source, self.settings, work), report)
        if video:
            shutil.rmtree(work / path.name, ignore_errors=True)
            with contextlib.suppress(OSError):
                work.rmdir()
            with self.database.transaction():
                self._mark([(key, *stamp, "video", None)])

    def _take_in(self, found: Sequence[Sighting], report: IndexReport) -> None:
        limit = time.time_ns() - 2_000_000_000
        if self.settings.watch:  # what a camera may still be writing waits for the next look
            found = [sighting for sighting in found if sighting.stamp[1] < limit]
        with (
            ThreadPoolExecutor(self.settings.threads) as pool,
            progress_bar("index", "picture", len(found)) as bar,
        ):
            ahead: list[Future[_Decoded | _Damaged]] = []
            for batch in _batches(found, self.settings.batch_size):
                fresh = self._fresh(batch, report)
                waiting = [pool.submit(self._decode, sighting, key) for sighting, key in fresh]
                results = [future.result() for future in ahead]
                if results:
                    self._commit(results, report)
                ahead = waiting
                bar.update(len(batch))

    def _fresh(self, batch: Sequence[Sighting], report: IndexReport) -> list[tuple[Sighting, str]]:
        keys = [self.keys.file(sighting.path, sighting.box) for sighting in batch]
        known = self._known(keys)
        fresh = [(s, key) for s, key in zip(batch, keys, strict=True) if known.get(key) != s.stamp]
        report.known += len(batch) - len(fresh)
        return fresh

    def _known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        marks = ",".join("?" * len(keys))
        rows = self.database.query(f"SELECT digest, size, modified FROM files WHERE digest IN ({marks})", *keys)
        return {key: (size, modified) for key, size, modified in rows}

    def _decode(self, sighting: Sighting, key: str) -> _Decoded | _Damaged:
        try:
            data = sighting.read()
            image = decode(data, self.network.input_size, sighting.box, sighting.path)
            stays = not self.settings.copy and Path(sighting.path).is_file()
            crop = b"" if stays else data if sighting.box is None else cut(data, sighting.box)
        except DataError as error:
            return _Damaged(sighting, key, str(error))
        return _Decoded(sighting, key, hashlib.sha256(data).hexdigest(), crop, image)

    def _commit(self, results: Sequence[_Decoded | _Damaged], report: IndexReport) -> None:
        decoded = [result for result in results if isinstance(result, _Decoded)]
        vectors = np.zeros((0, self.network.card.width), dtype=np.float16)
        if decoded:
            images = torch.stack([result.image for result in decoded])
            begun = time.perf_counter()
            vectors = self.network.encode_mixed(images, [result.sighting.modality for result in decoded])
            report.network_seconds += time.perf_counter() - begun
            sharp = sharpness(images)
        counted = IndexReport()
        with self.database.transaction():
            self.database.count("version", 1)
            if not self.database.value("SELECT 1 FROM models WHERE id = ? AND state = 'active'", self.model):
                raise UsageError("the gallery was re-encoded with another network meanwhile; run the command again")
            for result in results:
                if isinstance(result, _Damaged):
                    counted.note("damaged", f"damaged: {result.message}")
                    self._mark([(result.key, *result.sighting.stamp, "damaged", None)])
            for row, result in enumerate(decoded):
                self._insert(result, vectors[row], float(sharp[row]), counted)
        for kind, number in counted.counts().items():
            setattr(report, kind, getattr(report, kind) + number)
        report.notes += counted.notes[: max(0, 2 * _SHOWN - len(report.notes))]

    def _insert(self, result: _Decoded, vector: Float16[np.ndarray, "D"], quality: float, report: IndexReport) -> None:
        sighting, database = result.sighting, self.database
        box = "" if sighting.box is None else ",".join(map(str, sighting.box))
        tombstone = self.keys.picture(result.sha256, box)
        if database.value("SELECT 1 FROM tombstones WHERE digest = ?", tombstone):
            report.note("deleted", f"left out, deleted before: {sighting.path}")
            self._mark([(result.key, *sighting.stamp, "deleted", None)])
            return
        camera = self._number("cameras", ("name",), (sighting.camera,))
        track = self._number("tracks", ("camera", "name"), (camera, sighting.track)) if sighting.track else None
        rows = database.query(
            "INSERT INTO pictures (sha256, box, path, camera, track, time, modality, quality, person, added) "
            "VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING id",
            result.sha256, box, sighting.path, camera, track, sighting.time, int(sighting.modality), quality,
            sighting.person, time.time(),
        )  # fmt: skip
        if not rows:
            first, path = database.query(
                "SELECT id, path FROM pictures WHERE sha256 = ? AND box = ?", result.sha256, box
            )[0]
            if path != sighting.path:
                report.note("duplicates", f"duplicate: {sighting.path} equals {path}")
            else:
                report.known += 1
            self._mark([(result.key, *sighting.stamp, "duplicate", first)])
            return
        number = int(rows[0][0])
        if result.crop:
            database.execute("INSERT INTO crops VALUES (?, ?)", number, result.crop)
        add_feature(database, number, self.model, vector)
        self._mark([(result.key, *sighting.stamp, "indexed", number)])
        report.added += 1

    def _number(self, table: str, columns: tuple[str, ...], values: tuple[Value, ...]) -> int:
        """The number of a camera or track, which is new perhaps."""
        where = " AND ".join(f"{column} = ?" for column in columns)
        number = self.database.value(f"SELECT id FROM {table} WHERE {where}", *values)
        if number is None:
            marks = ",".join("?" * len(columns))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) RETURNING id"
            number = self.database.value(statement, *values)
        return int(number)

    def _mark(self, rows: Sequence[tuple[str, int, int, str, int | None]]) -> None:
        self.database.many(
            "INSERT INTO files VALUES (?,?,?,?,?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size, "
            "modified = excluded.modified, state = excluded.state, picture = excluded.picture",
            rows,
        )


class Keys:
    """Keyed digests, by which the gallery recognises files and deleted pictures without keeping names or hashes."""

    def __init__(self, database: Database) -> None:
        self.secret = bytes.fromhex(database.value("SELECT value FROM meta WHERE key = 'secret'"))

    def file(self, path: str, box: Box | None) -> str:
        """Of a place: path and box."""
        return self.of(f"file {path} {box}".encode())

    def picture(self, sha256: str, box: str) -> str:
        """Of a content: hash of the file, and box."""
        return self.of(f"picture {sha256} {box}".encode())

    def of(self, data: bytes) -> str:
        """Of any bytes."""
        return hmac.new(self.secret, data, "sha256").hexdigest()


def add_feature(database: Database, picture: int, model: int, vector: Float16[np.ndarray, "D"]) -> None:
    """One feature of one picture."""
    statement = "INSERT INTO features (model, picture, vector) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    database.execute(statement, model, picture, database.vector(vector))


def _parts(source: str) -> list[str]:
    """A source, or of a folder with videos those and itself where it has pictures, too."""
    path = Path(source)
    if not path.is_dir():
        return [source]
    names = sorted(files_below(path))
    videos = [os.fspath(path / name) for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    return [*([source] if not videos or any(map(is_picture, names)) else []), *videos]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of the given size, and an empty one at the end, when only the last decoded batch is left to commit."""
    yield from (items[start : start + size] for start in range(0, len(items), size))
    yield ()
