"""Shared: from raw videos to a folder of crops for pre-training: candidates by segment, then one merge.

The merge links boxes to tracks over the whole video and drops near-duplicates. It reads only the tables of the
segments, so its outcome is the same however the work was cut up, killed or shared.
"""

import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dapg import __version__
from dapg.core import plugins
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_text, csv_text, folder_lock, remove_leftovers, write_json
from dapg.core.launch import launch
from dapg.core.ranges import JpegQuality, Positive
from dapg.core.run_folder import CONFIG, ENVIRONMENT, RESULT, environment
from dapg.core.settings import differences, dump_yaml, listed, read_yaml, run_only, to_dict
from dapg.core.shards import Job, RunShard
from dapg.core.types import JsonObject
from dapg.data.cropping.crop_quality import FilterConfig, without_duplicates
from dapg.data.cropping.detectors.base import Detector
from dapg.data.cropping.segments import (
    SEGMENTS,
    Found,
    Plan,
    Sampling,
    SegmentSettings,
    crop_segments,
    read_table,
    table_path,
)
from dapg.data.cropping.tracks import TrackConfig, foreign_tracks, greedy_tracks, require_tracker
from dapg.data.cropping.videos import Video, find_videos
from dapg.data.sets.folder import LABELS

MANIFEST = "manifest.csv"
DETECTORS = "data.cropping.detectors"
COLUMNS = (
    "file", "video", "frame", "seconds", "left", "top", "right", "bottom", "score", "track", "sharpness",
)  # fmt: skip


@dataclass(frozen=True)
class CropSettings:
    """Everything the crops depend on."""

    source: str
    """A video, or a folder of videos or of frames as images."""
    detector: str = "hog"
    """A file of ``dapg/data/cropping/detectors``."""
    detect: Any = None
    """Its own settings; None: their defaults."""
    sampling: Sampling = field(default_factory=Sampling)
    filters: FilterConfig = field(default_factory=FilterConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    picture_rate: Positive = 25.0
    """Frames per second of folders of images, which do not say."""
    jpeg_quality: JpegQuality = 95
    """Of the crops."""
    modality: Literal["visible", "infrared"] = "visible"
    """Kind of light of the camera, for labels.csv."""
    persons: bool = False
    """Write each track into labels.csv as a person. One person has several tracks, and a track may hold two."""
    engine: EngineSettings = run_only(EngineSettings())
    """Who does the work."""
    out: str = run_only("outputs/crops")
    """Folder of the crops."""


@dataclass(frozen=True)
class Crop:
    """A kept crop."""

    row: Found
    video: str
    camera: int
    track: str


def crop(settings: CropSettings) -> JsonObject:
    """Crop (or go on with) videos; returns the content of result.json.

    The folder then holds the crops in a folder per video, ``manifest.csv`` (one line a crop), ``labels.csv`` (what
    training reads), ``segments/`` (tables of all boxes) and ``result.json``.

    Raises:
        UsageError: wrong settings, or the folder holds other crops.
        DataError: no video, or a video has changed since.
        ShardsFailed: stretches of video that fail whenever they are tried.
    """
    kind = plugins.load(DETECTORS, settings.detector, Detector)
    if settings.detect is None:
        settings = replace(settings, detect=kind.Config())
    kind(settings.detect)  # what is missing is said before anything is written
    require_tracker(settings.tracks)
    out = Path(settings.out)
    crops = out if (out / CONFIG).exists() else None  # of an earlier call, if they lie below the source
    videos, problems = find_videos(Path(settings.source), settings.picture_rate, without=crops)
    if out.resolve() in [
        folder for video in videos for folder in (video.path.resolve(), *video.path.resolve().parents)
    ]:
        raise UsageError(f"{out} holds the videos themselves; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        _claim(out, settings)
    stretches = _stretches(videos, settings)
    for stretch in stretches.values():
        for table in stretch.tables(out)[:1]:
            if table.exists():
                read_table(table, stretch.video)  # refuses to mix two versions of a video
    segment_settings = SegmentSettings(settings.sampling, settings.filters, settings.detect, settings.jpeg_quality)
    start = functools.partial(_start, stretches, out, segment_settings, kind)
    sizes = {name: stretch.frames for name, stretch in stretches.items()}
    launch(Job("data crop", out, sizes, "frame", start), settings.engine)
    with folder_lock(out, patience=3600.0):  # others that worked with us may be merging
        result = {**_merge(videos, out, settings), "unopened": problems, "dapg_version": __version__, "stage": "crop"}
        write_json(out / RESULT, result)
    return result


def _claim(out: Path, settings: CropSettings) -> None:
    """Write down what the crops are made from, or compare with what is written there."""
    config = out / CONFIG
    if config.exists():
        stored = read_yaml(config)
        if stored.pop("stage", None) != "crop":
            raise UsageError(f"{out} does not hold crops; give another --out")
        different = differences(settings, stored)
        if different:
            raise UsageError(f"{out} holds crops made with other settings ({listed(different)}); give another --out")
    elif any(path for path in out.iterdir() if not path.name.startswith(".")):
        raise UsageError(f"{out} is not empty and holds no {CONFIG}; give another --out")
    atomic_write_text(config, f"# dapg data crop\n{dump_yaml({'stage': 'crop', **to_dict(settings, whole=True)})}")
    write_json(out / ENVIRONMENT, environment())


@dataclass(frozen=True)
class _Stretch:
    """Segments of a video in a row: a worker decodes the video from its beginning up to the last of them."""

    video: Video
    numbers: range
    frames: int

    def tables(self, out: Path) -> list[Path]:
        """Where their tables are."""
        return [table_path(out, self.video, number) for number in self.numbers]


def _stretches(videos: Sequence[Video], settings: CropSettings) -> dict[str, _Stretch]:
    """Whole videos; with several workers, long ones in stretches, about four for each worker in all."""
    counts = [Plan.of(video, settings.sampling).count for video in videos]
    workers = settings.engine.workers or os.cpu_count() or 1
    longest = sum(counts) if workers == 1 else max(1, sum(counts) // (4 * workers))
    stretches = {}
    for video, count in zip(videos, counts, strict=True):
        for first in range(0, count, longest):
            numbers = range(first, min(first + longest, count))
            frames = max(1, video.frames * len(numbers) // count)
            stretches[f"{video.name} {first}-{numbers[-1]}"] = _Stretch(video, numbers, frames)
    return stretches


def _start(stretches: Mapping[str, _Stretch], out: Path, settings: SegmentSettings, kind: type[Detector]) -> RunShard:
    """Works on all segments of a stretch that have no table yet, whoever was at it before."""

    def run_shard(name: str) -> list[Path]:
        stretch = stretches[name]
        tables = stretch.tables(out)
        pending = [number for number, table in zip(stretch.numbers, tables, strict=True) if not table.exists()]
        if pending:
            crop_segments(stretch.video, pending, out, settings, kind)
        return tables

    return run_shard


def _merge(videos: Sequence[Video], out: Path, settings: CropSettings) -> JsonObject:
    """Tracks, near-duplicates, lists; then files that were only candidates go."""
    crops: list[Crop] = []
    candidates: set[str] = set()
    dropped: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for camera, video in enumerate(videos, start=1):
        rows: list[Found] = []
        for number in range(Plan.of(video, settings.sampling).count):
            table = read_table(table_path(out, video, number), video)
            rows += table["rows"]
            dropped.update(table["dropped"])
            counts.update({name: table[name] for name in ("frames", "undecodable", "missing")})
        candidates.update(row.file for row in rows if row.file)
        counts["boxes"] += len(rows)
        crops += _select(rows, video, camera, settings, dropped)
    counts["tracks"] = len({(crop.video, crop.track) for crop in crops})
    _write_lists(crops, out, settings)
    for file in candidates - {crop.row.file for crop in crops}:
        (out / file).unlink(missing_ok=True)
    for folder in (out, *(out / top / video.name for video in videos for top in ("", SEGMENTS))):
        remove_leftovers(folder)
    return {"videos": len(videos), **counts, "crops": len(crops), "dropped": dict(sorted(dropped.items()))}


def _select(
    rows: Sequence[Found], video: Video, camera: int, settings: CropSettings, dropped: Counter[str]
) -> list[Crop]:
    """The crops of one video that are worth keeping, with their tracks."""
    frames: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        frames.setdefault(row.number, []).append(place)
    boxes = [
        (rows[p[0]].seconds, np.array([rows[place].box for place in p], dtype=np.float64)) for p in frames.values()
    ]
    if settings.tracks.tracker == "greedy":
        followed = greedy_tracks(boxes, settings.tracks)
    else:
        scores = [np.array([rows[place].score for place in places]) for places in frames.values()]
        rate = video.frames_per_second / Plan.of(video, settings.sampling).step
        followed = foreign_tracks(boxes, scores, rate, settings.tracks)
    tracks = np.full(len(rows), -1, dtype=np.int64)
    for places, numbers in zip(frames.values(), followed, strict=True):
        tracks[places] = numbers
    lengths = np.bincount(tracks) if len(rows) else tracks
    cut = [place for place, row in enumerate(rows) if row.file]
    lasting = [place for place in cut if lengths[tracks[place]] >= settings.tracks.min_boxes]
    dropped["short track"] += len(cut) - len(lasting)
    hashes, seconds = [int(rows[place].hash, 16) for place in lasting], [rows[place].seconds for place in lasting]
    fresh = without_duplicates(hashes, seconds, settings.filters)
    dropped["near-duplicate"] += len(fresh) - sum(fresh)
    chosen = [place for place, keep in zip(lasting, fresh, strict=True) if keep]
    return [Crop(rows[place], video.name, camera, str(tracks[place])) for place in chosen]


def _write_lists(crops: Sequence[Crop], out: Path, settings: CropSettings) -> None:
    manifest: list[Sequence[object]] = [COLUMNS]
    labels: list[Sequence[object]] = [("path", "camera", "modality", *(("person",) if settings.persons else ()))]
    for crop in crops:
        row = crop.row
        place = (crop.video, row.number, f"{row.seconds:.3f}", *row.box)
        manifest.append((row.file, *place, f"{row.score:.4f}", crop.track, f"{row.sharpness:.1f}"))
        person = (f"{crop.video}#{crop.track}",) if settings.persons else ()
        labels.append((row.file, crop.camera, settings.modality, *person))
    for name, lines in ((LABELS, labels), (MANIFEST, manifest)):
        atomic_write_text(out / name, csv_text(lines))
