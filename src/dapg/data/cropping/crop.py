"""Shared: from raw videos to a folder of crops for pre-training: candidates by segment, then one merge.

The merge links boxes to tracks over the whole video and drops near-duplicates. It reads only the tables of the
segments, so its outcome is the same however the work was cut up, killed or shared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dapg import __version__
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_text, csv_text, folder_lock, remove_leftovers, write_json
from dapg.core.parts import Part
from dapg.core.progress import progress_bar
from dapg.core.ranges import JpegQuality, Positive
from dapg.core.run_folder import CONFIG, ENVIRONMENT, RESULT, environment
from dapg.core.settings import differences, dump_yaml, read_yaml, run_only, to_dict
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
from dapg.data.cropping.tracks import TrackConfig, greedy_tracks
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
    """A video, or a folder of videos or of frames as pictures."""
    detector: str = "hog"
    """A file of ``dapg/data/cropping/detectors``."""
    detect: Any = None
    """Its own settings; None: their defaults."""
    sampling: Sampling = field(default_factory=Sampling)
    filters: FilterConfig = field(default_factory=FilterConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    picture_rate: Positive = 25.0
    """Frames per second of folders of pictures, which do not say."""
    jpeg_quality: JpegQuality = 95
    """Of the crops."""
    modality: Literal["visible", "infrared"] = "visible"
    """Kind of light of the camera, for labels.csv."""
    persons: bool = False
    """Write each track into labels.csv as a person. One person has several tracks, and a track may hold two."""
    part: str = run_only("1/1")
    """I/N works on the I-th of N parts of the video, to share it between machines; without it the parts are merged."""
    out: str = run_only("outputs/crops")
    """Folder of the crops."""


@dataclass(frozen=True)
class Crop:
    """A kept crop."""

    found: Found
    video: str
    camera: int
    track: str


def crop(settings: CropSettings) -> JsonObject:
    """Crop (or go on with) videos; returns the content of result.json, or of a part its counts.

    The folder then holds the crops in a folder per video, ``manifest.csv`` (one line a crop), ``labels.csv`` (what
    training reads), ``segments/`` (tables of all boxes) and ``result.json``.

    Raises:
        UsageError: wrong settings, or the folder holds other crops.
        DataError: no video, or a video has changed since.
    """
    part = Part.parse(settings.part)
    kind = plugins.load(DETECTORS, settings.detector, Detector)
    if settings.detect is None:
        settings = replace(settings, detect=kind.Config())
    kind(settings.detect)  # what is missing is said before anything is written
    out = Path(settings.out)
    videos, problems = find_videos(Path(settings.source), settings.picture_rate)
    if out.resolve() in [
        folder for video in videos for folder in (video.path.resolve(), *video.path.resolve().parents)
    ]:
        raise UsageError(f"{out} holds the videos themselves; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, part.number):
        _claim(out, settings)
        mine = _share(videos, settings.sampling, part)
        _detect(videos, mine, out, settings, kind)
        if part.count > 1:
            return {"part": settings.part, "segments": len(mine), "unopened": problems}
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
            listed = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in different.items())
            raise UsageError(f"{out} holds crops made with other settings ({listed}); give another --out")
    elif any(path for path in out.iterdir() if not path.name.startswith(".")):
        raise UsageError(f"{out} is not empty and holds no {CONFIG}; give another --out")
    atomic_write_text(config, f"# dapg crop\n{dump_yaml({'stage': 'crop', **to_dict(settings)})}")
    write_json(out / ENVIRONMENT, environment())


def _share(videos: Sequence[Video], sampling: Sampling, part: Part) -> set[tuple[str, int]]:
    """The segments of a part: neighbours, so that a machine decodes one stretch."""
    everything = [(video.name, number) for video in videos for number in range(Plan.of(video, sampling).count)]
    index, count = part.number, part.count
    return set(everything[len(everything) * (index - 1) // count : len(everything) * index // count])


def _detect(
    videos: Sequence[Video],
    mine: set[tuple[str, int]],
    out: Path,
    settings: CropSettings,
    kind: type[Detector],
) -> None:
    """Work on all segments of this part that have no table yet."""
    work: list[tuple[Video, list[int]]] = []
    frames = done = 0
    for video in videos:
        plan = Plan.of(video, settings.sampling)
        numbers = [number for number in range(plan.count) if (video.name, number) in mine]
        finished = [number for number in numbers if table_path(out, video, number).exists()]
        for number in finished[:1]:
            read_table(table_path(out, video, number), video)  # refuses to mix two versions of a video
        pending = [number for number in numbers if number not in set(finished)]
        share = max(video.frames, 1) / plan.count
        frames, done = frames + round(share * len(numbers)), done + round(share * len(finished))
        if pending:
            work.append((video, pending))
    candidates = 0
    segment_settings = SegmentSettings(settings.sampling, settings.filters, settings.detect, settings.jpeg_quality)
    with progress_bar("crop", "frame", frames, done) as progress:

        def advance(gone: int, crops: int) -> None:
            nonlocal candidates
            candidates += crops
            progress.set_postfix(crops=candidates, refresh=False)
            progress.update(gone)

        for video, pending in work:
            crop_segments(video, pending, out, segment_settings, kind, advance)


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
    for file in candidates - {crop.found.file for crop in crops}:
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
    tracks = np.full(len(rows), -1, dtype=np.int64)
    for places, numbers in zip(frames.values(), greedy_tracks(boxes, settings.tracks), strict=True):
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
        found = crop.found
        place = (crop.video, found.number, f"{found.seconds:.3f}", *found.box)
        manifest.append((found.file, *place, f"{found.score:.4f}", crop.track, f"{found.sharpness:.1f}"))
        person = (f"{crop.video}#{crop.track}",) if settings.persons else ()
        labels.append((found.file, crop.camera, settings.modality, *person))
    for name, lines in ((LABELS, labels), (MANIFEST, manifest)):
        atomic_write_text(out / name, csv_text(lines))
