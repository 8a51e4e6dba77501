"""From sources to rows: read, decode, encode, and commit batch by batch; what is committed survives any kill.

While the network encodes a batch, threads read and decode the next one, and the one before is written. An image is
known by the SHA-256 of its file and its box: seen again, under whatever name, it is a duplicate. A file whose size and
time of change are known is not even read.
"""

import contextlib
import hmac
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float16

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.core.files import folder_lock
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count, Threads, Weight
from dapg.core.types import JsonObject, Modality
from dapg.data.cropping.videos import VIDEO_SUFFIXES
from dapg.data.listing import files_below, is_image
from dapg.data.loading import OnBadImage
from dapg.data.sightings import Box, Sighting, SourceSettings, refuse_other_infrared, sightings
from dapg.features.networks import Network, NetworkSettings
from dapg.gallery.audit import Actor, append
from dapg.gallery.database import INCOMING, OWNER, Database, Value
from dapg.gallery.encoding import SHARD, Damaged, Decoded, Encoded, Encoding, encode, in_shards, read_decoded
from dapg.gallery.verdicts import infrared_kinds

T = TypeVar("T")
_SHOWN = 10


@dataclass(frozen=True)
class IndexSettings(SourceSettings, NetworkSettings):
    """What is taken in, and how."""

    copy: bool = True
    """Keep a copy of each image (of a box: the crop) in the gallery; else only the path of its file."""
    watch: bool = False
    """Go on looking for new images until interrupted."""
    every: Weight = 5.0
    """Seconds between two looks."""
    batch_size: Count = 64
    """Images encoded at once."""
    threads: Threads = 2
    """Images read and decoded at a time."""
    on_bad_image: OnBadImage = "skip"
    """An image that cannot be read: leave it out and count it, or stop (fail)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    engine: EngineSettings = EngineSettings()
    """Who encodes; this command alone writes into the gallery."""

    @property
    def network(self) -> NetworkSettings:
        """The network alone."""
        return NetworkSettings(self.model, self.backbone, self.height, self.width)


@dataclass
class IndexReport:
    """What became of the images."""

    added: int = 0
    known: int = 0
    """Seen before at the same place."""
    duplicates: int = 0
    """The same file, box included, under another name."""
    damaged: int = 0
    deleted: int = 0
    """Left out because a deletion removed them for good."""
    seconds: float = 0.0
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


class Indexer:
    """Takes sightings into one gallery with one network."""

    def __init__(
        self, database: Database, folder: Path, network: Network, settings: IndexSettings, actor: Actor
    ) -> None:
        self.database, self.folder, self.network, self.settings, self.actor = database, folder, network, settings, actor
        self.model = int(database.value("SELECT id FROM models WHERE hash = ?", network.card.hash))
        self.keys = Keys(database)

    def run(self, sources: Sequence[str]) -> IndexReport:
        """Index all sources once, or again and again while watching.

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
            with contextlib.suppress(OSError):
                (self.folder / INCOMING).rmdir()
            report.seconds = time.time() - started
        return report

    def _source(self, source: str, report: IndexReport) -> None:
        path, settings = Path(source), self.settings
        video = path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
        stamp = (path.stat().st_size, path.stat().st_mtime_ns) if video else (-1, 0)
        key = self.keys.file(f"video {path.resolve()}", None)
        if video and (self._known([key]) == {key: stamp} or self._unfinished(stamp)):
            return
        about = f"{path.absolute()} {stamp} {settings.detector} {settings.weights} {settings.modality}"
        work = self.folder / INCOMING / f"video-{self.keys.of(about.encode())[:16]}"
        with folder_lock(work, OWNER) if video else contextlib.nullcontext():
            listed = sightings(source, settings, work)  # of a video: crops, which were written just now
            self._take_in(source, [s for s in listed if video or not self._unfinished(s.stamp)], report)
            if video:
                shutil.rmtree(work, ignore_errors=True)
                with self.database.transaction():
                    self._mark([(key, *stamp, "video", None)])

    def _unfinished(self, stamp: tuple[int, int]) -> bool:
        """While watching, what a camera may still be writing waits for the next look."""
        return self.settings.watch and stamp[1] >= time.time_ns() - 2_000_000_000

    def _take_in(self, source: str, listed: Sequence[Sighting], report: IndexReport) -> None:
        self._agree_on_infrared(listed)
        settings, engine = self.settings, self.settings.engine
        if engine.name != "local" or engine.workers != 1:
            job = self.folder / INCOMING / f"shards-{self.keys.file(source, None)[:16]}"
            about = Encoding(
                self.network.settings, self.network.card.hash, settings.device, settings.batch_size, settings.threads,
                settings.copy,
            )  # fmt: skip
            parts = (self._fresh(part, report) for part in _batches(listed, SHARD))
            for results in in_shards(job, parts, about, engine):
                self._commit(results, report)
            return
        read = partial(read_decoded, size=self.network.input_size, copy=settings.copy)
        with (
            ThreadPoolExecutor(settings.threads) as pool,
            ThreadPoolExecutor(1) as encoder,
            progress_bar("index", "image", len(listed)) as bar,
        ):
            ahead: list[Future[Decoded | Damaged]] = []
            encoding: Future[list[Encoded | Damaged]] | None = None
            for batch in _batches(listed, settings.batch_size):  # is read while the one before is encoded
                waiting = [pool.submit(read, sighting) for sighting in self._fresh(batch, report)]
                decoded = [future.result() for future in ahead]
                following = encoder.submit(encode, self.network, decoded) if decoded else None
                if encoding:  # the one before that is written meanwhile
                    self._commit(encoding.result(), report)
                ahead, encoding = waiting, following
                bar.update(len(batch))

    def _agree_on_infrared(self, listed: Sequence[Sighting]) -> None:
        """Near and thermal infrared do not meet in a gallery."""
        for kind in sorted({s.infrared for s in listed if s.modality == Modality.INFRARED} - {"unknown"}):
            with self.database.transaction():
                refuse_other_infrared(infrared_kinds(self.database), kind, "these images are")
                self.database.execute("INSERT INTO meta VALUES ('infrared', ?) ON CONFLICT DO NOTHING", kind)

    def _fresh(self, batch: Sequence[Sighting], report: IndexReport) -> list[Sighting]:
        keys = [self.keys.file(sighting.path, sighting.box) for sighting in batch]
        known = self._known(keys)
        fresh = [sighting for sighting, key in zip(batch, keys, strict=True) if known.get(key) != sighting.stamp]
        report.known += len(batch) - len(fresh)
        return fresh

    def _known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        if not keys:
            return {}
        marks = ",".join("?" * len(keys))
        rows = self.database.query(f"SELECT digest, size, modified FROM files WHERE digest IN ({marks})", *keys)
        return {key: (size, modified) for key, size, modified in rows}

    def _commit(self, results: Sequence[Encoded | Damaged], report: IndexReport) -> None:
        counted = IndexReport()
        broken = [result.message for result in results if isinstance(result, Damaged)]
        if broken and self.settings.on_bad_image == "fail":
            raise DataError(broken[0])
        with self.database.transaction():
            self.database.count("version", 1)
            if not self.database.value("SELECT 1 FROM models WHERE id = ? AND state = 'active'", self.model):
                raise UsageError("the gallery was re-encoded with another network meanwhile; run the command again")
            for result in results:
                if isinstance(result, Damaged):
                    counted.note("damaged", f"damaged: {result.message}")
                    self._mark([self._seen(result.sighting, "damaged", None)])
                else:
                    self._insert(result, counted)
            if counted.added or counted.damaged:  # in the same transaction: no kill parts images from their entry
                append(self.database, self.actor, "index", counted.counts())
        for kind, number in counted.counts().items():
            setattr(report, kind, getattr(report, kind) + number)
        report.notes += counted.notes[: max(0, 2 * _SHOWN - len(report.notes))]

    def _insert(self, result: Encoded, report: IndexReport) -> None:
        sighting, database = result.sighting, self.database
        box = "" if sighting.box is None else ",".join(map(str, sighting.box))
        tombstone = self.keys.picture(result.sha256, box)
        if database.value("SELECT 1 FROM tombstones WHERE digest = ?", tombstone):
            report.note("deleted", f"left out, deleted before: {sighting.path}")
            self._mark([self._seen(sighting, "deleted", None)])
            return
        camera = self._number("cameras", ("name",), (sighting.camera,))
        track = self._number("tracks", ("camera", "name"), (camera, sighting.track)) if sighting.track else None
        rows = database.query(
            "INSERT INTO pictures (sha256, box, path, camera, track, time, modality, quality, person, added) "
            "VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING id",
            result.sha256, box, sighting.path, camera, track, sighting.time, int(sighting.modality), result.quality,
            sighting.person, time.time(),
        )  # fmt: skip
        if not rows:
            held = "SELECT id, path FROM pictures WHERE sha256 = ? AND box = ?"
            first, path = database.query(held, result.sha256, box)[0]
            if path != sighting.path:
                report.note("duplicates", f"duplicate: {sighting.path} equals {path}")
            else:
                report.known += 1
            self._mark([self._seen(sighting, "duplicate", first)])
            return
        number = int(rows[0][0])
        if result.crop:
            database.execute("INSERT INTO crops VALUES (?, ?)", number, result.crop)
        add_feature(database, number, self.model, result.vector)
        self._mark([self._seen(sighting, "indexed", number)])
        report.added += 1

    def _seen(self, sighting: Sighting, state: str, picture: int | None) -> tuple[str, int, int, str, int | None]:
        return (self.keys.file(sighting.path, sighting.box), *sighting.stamp, state, picture)

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
    """Keyed digests, by which the gallery recognises files and deleted images without keeping names or hashes."""

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
    """One feature of one image."""
    statement = "INSERT INTO features (model, picture, vector) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    database.execute(statement, model, picture, database.vector(vector))


def _parts(source: str) -> list[str]:
    """A source, or of a folder with videos those and itself where it has images, too."""
    path = Path(source)
    if not path.is_dir():
        return [source]
    names = sorted(files_below(path))
    videos = [os.fspath(path / name) for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    return [*([source] if not videos or any(map(is_image, names)) else []), *videos]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of the given size, and two empty ones, for the batches that are still to be encoded and committed."""
    yield from (items[start : start + size] for start in range(0, len(items), size))
    yield from ((), ())
