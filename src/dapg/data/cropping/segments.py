"""Shared: a stretch of video becomes candidate crops and a table of all boxes; the table is written last.

What a stretch gives depends on the video and the settings alone, not on what was done before or by whom. So a killed
stretch is simply done again, over the same file names, and machines can share a video.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_bytes, atomic_write_text
from dapg.core.images import encode
from dapg.core.ranges import CountOrZero, JpegQuality, Positive
from dapg.core.schema import read_json, wall
from dapg.core.types import JsonObject, leads_out
from dapg.data.cropping.crop_quality import FilterConfig, perceptual_hash, reason_to_drop, sharpness
from dapg.data.cropping.detectors.base import Detector, Frame
from dapg.data.cropping.videos import Moment, Reader, Video

SEGMENTS = "segments"


@dataclass(frozen=True)
class Sampling:
    """Which frames are looked at, and which give crops."""

    frames_per_second: Positive = 10.0
    """Frames of each second that are looked at (all, where the video has fewer); tracks need five or so."""
    crops_per_second: Positive = 2.0
    """Crops of one person from each second at most."""
    segment_seconds: Positive = 60.0
    """A killed run loses no more than this much video."""


@dataclass(frozen=True)
class Found:
    """One box of one frame, and its crop where it is worth one."""

    number: int
    seconds: float
    box: tuple[int, int, int, int]
    score: float
    file: str = ""
    """Path of the crop below the output folder; empty: no crop."""
    sharpness: float = 0.0
    hash: str = ""
    """Perceptual hash in hexadecimal."""


@dataclass(frozen=True)
class Plan:
    """A video in numbers of frames."""

    step: int
    """Every which frame is looked at."""
    crop_step: int
    """Every which frame gives crops; a multiple of ``step``."""
    length: int
    """Of a segment; a multiple of ``step``. The last one goes on to wherever the video ends."""
    count: int
    """Segments."""

    @classmethod
    def of(cls, video: Video, sampling: Sampling) -> "Plan":
        """Work it out from rates in seconds."""
        rate = video.frames_per_second
        step = max(1, round(rate / sampling.frames_per_second))
        crop_step = step * max(1, round(rate / sampling.crops_per_second / step))
        length = crop_step * max(1, round(rate * sampling.segment_seconds / crop_step))
        return cls(step, crop_step, length, max(1, -(-video.frames // length)))

    def segment(self, number: int) -> int:
        """Which segment a frame belongs to."""
        return min(number // self.length, self.count - 1)


@dataclass
class _Segment:
    """One stretch being worked on."""

    number: int
    detector: Detector
    rows: list[Found] = field(default_factory=list)
    frames: int = 0
    undecodable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class SegmentSettings:
    """What the candidates of a segment depend on."""

    sampling: Sampling
    filters: FilterConfig
    detect: Any
    """Settings of the detector."""
    jpeg_quality: JpegQuality


class _Table(TypedDict):
    """A stored segment."""

    fingerprint: str
    frames: CountOrZero
    undecodable: CountOrZero
    missing: CountOrZero
    dropped: dict[str, CountOrZero]
    rows: list[Found]


def table_path(out: Path, video: Video, number: int) -> Path:
    """Where the table of a segment is."""
    return out / SEGMENTS / video.name / f"{number:06d}.json"


def read_table(path: Path, video: Video) -> JsonObject:
    """The stored table of a segment.

    Raises:
        DataError: the video has changed since, or the table is damaged.
    """
    table = read_json(path, _Table, "delete it and run the command again")
    with wall(path):
        rows = [Found(**{**row, "box": tuple(row["box"])}) for row in table["rows"]]
    with wall(path):
        [int(row.hash or "0", 16) for row in rows]
    outside = [row.file for row in rows if leads_out(row.file)]
    if outside:
        raise DataError(
            f"{path} names {outside[0]!r}, which is outside its folder; delete it and run the command again"
        )
    if table["fingerprint"] != video.fingerprint:
        raise DataError(f"{video.path} is not the file that {path.parent} was made from; give another --out")
    return {**table, "rows": rows}


def crop_segments(
    video: Video,
    pending: Sequence[int],
    out: Path,
    settings: SegmentSettings,
    kind: type[Detector],
) -> None:
    """Work through the given segments of a video in one pass.

    Args:
        video: what to read.
        pending: numbers of the segments, ascending, at least one.
        out: the output folder.
        settings: rates, filters, detector.
        kind: the detector's class; every segment gets an object of its own.
    """
    plan = Plan.of(video, settings.sampling)
    wanted = _wanted(plan, pending, round(kind.warm_up * video.frames_per_second))
    open_segments: dict[int, _Segment] = {}
    reader = Reader(video, lambda number: bool(wanted(number)))
    for moment in reader:
        current = plan.segment(moment.number)
        for number in [number for number in open_segments if number < current]:
            _write(open_segments.pop(number), video, out, missing=0)
        for number in wanted(moment.number):
            if number not in open_segments:
                open_segments[number] = _Segment(number, kind(settings.detect))
            if number == current:
                _look(open_segments[number], moment, video, plan, out, settings)
            elif moment.pixels is not None:
                open_segments[number].detector.watch(moment.pixels)
        if current > pending[-1]:
            return
    for number in pending:  # the last one, and those that a cut-off video never reached
        if number in open_segments or not table_path(out, video, number).exists():
            segment = open_segments.get(number) or _Segment(number, kind(settings.detect))
            _write(segment, video, out, reader.missing if number == plan.count - 1 else 0)


def _wanted(plan: Plan, pending: Sequence[int], warm_up: int) -> Callable[[int], list[int]]:
    """Frame number -> the pending segments that look at it or warm up on it."""
    waiting = set(pending)

    def wanted(frame: int) -> list[int]:
        if frame % plan.step:
            return []
        return [n for n in range(plan.segment(frame), plan.segment(frame + warm_up) + 1) if n in waiting]

    return wanted


def _look(segment: _Segment, moment: Moment, video: Video, plan: Plan, out: Path, settings: SegmentSettings) -> None:
    """Find the people of one frame; where it is its turn, cut them out."""
    segment.frames += 1
    if moment.pixels is None:
        segment.undecodable += 1
        return
    segment.detector.turn(video.name, moment.number)
    detections = segment.detector.detect(moment.pixels)
    corners = np.round(detections.boxes).astype(int).tolist()
    for index, (box, score) in enumerate(zip(corners, detections.scores.tolist(), strict=True)):
        row = Found(moment.number, moment.seconds, tuple(box), round(score, 4))
        if moment.number % plan.crop_step == 0:
            row = _cut(row, index, segment, moment.pixels, video, out, settings)
        segment.rows.append(row)


def _cut(
    row: Found,
    index: int,
    segment: _Segment,
    pixels: Frame,
    video: Video,
    out: Path,
    settings: SegmentSettings,
) -> Found:
    """Write the crop of a box if it passes the filters."""
    left, top, right, bottom = row.box
    reason = reason_to_drop(row.box, (pixels.shape[0], pixels.shape[1]), settings.filters)
    if not reason:
        crop = pixels[top:bottom, left:right]
        sharp = sharpness(crop)
        reason = "blurred" if sharp < settings.filters.min_sharpness else ""
    if reason:
        segment.dropped[reason] += 1
        return row
    file = f"{video.name}/{row.number:07d}_{index:02d}.jpg"
    atomic_write_bytes(out / file, encode(Image.fromarray(crop), "JPEG", quality=settings.jpeg_quality))
    return Found(row.number, row.seconds, row.box, row.score, file, round(sharp, 1), f"{perceptual_hash(crop):016x}")


def _write(segment: _Segment, video: Video, out: Path, missing: int) -> None:
    table = {
        "video": video.name,
        "fingerprint": video.fingerprint,
        "frames": segment.frames,
        "undecodable": segment.undecodable,
        "missing": missing,
        "dropped": dict(segment.dropped),
        "rows": [asdict(row) for row in segment.rows],
    }
    atomic_write_text(table_path(out, video, segment.number), json.dumps(table))
