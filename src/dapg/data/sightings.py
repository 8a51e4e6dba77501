"""What can be indexed: folders of crops, CSV lists, data sets, videos. Each becomes a list of sightings, not opened."""

import contextlib
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from dapg.core.errors import DataError, UsageError
from dapg.core.files import plain_cell
from dapg.core.run_folder import CONFIG
from dapg.core.settings import read_yaml
from dapg.core.types import UNKNOWN, Modality, Record
from dapg.data.base import Dataset
from dapg.data.cropping.crop import MANIFEST, CropSettings, crop
from dapg.data.cropping.videos import VIDEO_SUFFIXES
from dapg.data.listing import images_below
from dapg.data.sets.folder import LABELS, Folder
from dapg.data.source import open_dataset, parse_source

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class SourceSettings:
    """What the user says about sources that do not say it themselves."""

    split: str = ""
    """Part of a data set; empty: all of a folder or CSV, the test persons of others, else their first split."""
    camera: str = ""
    """Name of the camera; empty: the column of the CSV, the data set's, the video's or the folder's own."""
    modality: Literal["visible", "infrared"] = "visible"
    """Kind of light of plain folders and of videos."""
    infrared: Literal["unknown", "near", "thermal"] = "unknown"
    """Kind of infrared of sources that do not say it: a gallery takes one kind only."""
    start: str = ""
    """When a video begins, such as 2026-11-28T22:00:00 (UTC unless it says otherwise); empty: times count from 0."""
    file_times: bool = False
    """Take the time of plain files from the file system, as for a folder that a camera writes into."""
    labels: bool = True
    """Take persons of CSV lists and data sets as labels given by people."""
    detector: str = "hog"
    """For videos: hog, or yolo with ``weights``."""
    weights: str = ""
    """ONNX file of the yolo detector."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One image of one person, not opened yet."""

    path: str
    """Names it to the user: an absolute path, or the data set and the path in it."""
    read: Callable[[], bytes]
    stamp: tuple[int, int]
    """Size and time of change of its file, (-1, 0) in a data set: one that was seen before is not read again."""
    box: Box | None = None
    camera: str = ""
    time: float | None = None
    track: str = ""
    modality: Modality = Modality.VISIBLE
    person: str | None = None
    infrared: str = "unknown"
    """Kind of infrared light of the source: near, thermal or unknown."""


def sightings(source: str, settings: SourceSettings, work: Path) -> Sequence[Sighting]:
    """All sightings of a source.

    Args:
        source: a folder, a CSV file, a video, a data set as NAME or NAME=PATH.
        settings: what the source does not say.
        work: folder for the crops of a video until they are indexed, of this one alone.

    Raises:
        DataError: nothing is there, or a mistake in a list.
        UsageError: no data set of that name.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _video(path, settings, work)
    if path.is_dir():
        listed = (path / LABELS).is_file()
        return _folder(Folder(path), path, settings) if listed else _plain(path, settings)
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise UsageError(f"{source} is no folder, CSV list, video or data set")
        return _folder(Folder(path), path.parent, settings)
    config = parse_source(source)
    dataset = open_dataset(config)
    splits = [name for name in dataset.splits if name == "test"]
    split = settings.split or (splits[0] if splits else dataset.default_split())
    return [_of_record(dataset, record, settings, config.name) for record in dataset.records(split)]


def _of_record(dataset: Dataset, record: Record, settings: SourceSettings, name: str) -> Sighting:
    return Sighting(
        path=f"{name}:{record.path}",
        read=partial(dataset.read, record),
        stamp=(-1, 0),
        box=record.box,
        camera=settings.camera or (f"{name} {record.camera}" if record.camera != UNKNOWN else name),
        modality=record.modality,
        person=f"{name} {record.person}" if settings.labels and record.person != UNKNOWN else None,
        infrared=settings.infrared if dataset.infrared == "unknown" else dataset.infrared,
    )


def _plain(root: Path, settings: SourceSettings) -> list[Sighting]:
    """Every image below a folder; an image's camera is the folder right below the root that holds it."""
    root = root.resolve()
    answers = []
    for name in images_below(root):
        path, folder = root / name, name.rpartition("/")[0].partition("/")[0]
        stamp = _stamp(path)
        if stamp is not None:
            answers.append(
                Sighting(
                    path=str(path),
                    read=partial(_read, path),
                    stamp=stamp,
                    camera=settings.camera or folder or root.name,
                    time=stamp[1] / 1e9 if settings.file_times else None,
                    modality=Modality[settings.modality.upper()],
                    infrared=settings.infrared,
                )
            )
    return answers


def _stamp(path: Path) -> tuple[int, int] | None:
    """None for a file that has vanished meanwhile."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _folder(dataset: Folder, root: Path, settings: SourceSettings) -> list[Sighting]:
    """A CSV list, with times and tracks from its columns ``time`` and ``track`` or from the crops' manifest."""
    root = root.resolve()
    names = dataset.person_names
    more = {**_manifest(root, settings), **_more_columns(dataset)}
    answers = []
    for record in dataset.records(settings.split or "all"):
        path = root / record.path
        time, track, video = more.get((record.path, record.box)) or more.get((record.path, None)) or (None, "", "")
        camera = video or (f"camera {record.camera}" if record.camera != UNKNOWN else root.name)
        person = names[record.person] if settings.labels and record.person != UNKNOWN else None
        answers.append(
            Sighting(
                path=str(path),
                read=partial(_read, path),
                stamp=_stamp(path) or (-1, 0),
                box=record.box,
                camera=settings.camera or camera,
                time=time,
                track=track,
                modality=record.modality,
                person=person,
                infrared=settings.infrared,
            )
        )
    return answers


_More = dict[tuple[str, Box | None], tuple[float | None, str, str]]
"""(path, box) -> time, track, name of the video."""


def _manifest(root: Path, settings: SourceSettings) -> _More:
    """What `dapg data crop` knows about its crops."""
    if (
        not (root / MANIFEST).is_file()
        or not (root / CONFIG).is_file()
        or read_yaml(root / CONFIG).get("stage") != "crop"
    ):
        return {}
    start = seconds(settings.start) if settings.start else 0.0
    with (root / MANIFEST).open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    more: _More = {}
    for row in rows:
        file, track, video = (plain_cell(row[name]) for name in ("file", "track", "video"))
        more[file, None] = (start + float(row["seconds"]), track, video)
    return more


def _more_columns(dataset: Folder) -> _More:
    """The columns ``time`` (ISO 8601, or seconds) and ``track`` of a CSV list, where it has them."""
    more: _More = {}
    for where, image, row in dataset.cells():
        if not {"time", "track"} & row.keys():
            return more
        time = row.get("time", "")
        try:
            more[image] = (seconds(time) if time else None, row.get("track", ""), "")
        except UsageError as error:
            raise DataError(f"{where}: {error}") from error
    return more


def _video(path: Path, settings: SourceSettings, work: Path) -> list[Sighting]:
    """People cut out of a video; the crops wait in ``work`` until the gallery has taken them in."""
    detect = None
    if settings.weights:
        from dapg.data.cropping.detectors.yolo import Yolo

        detect = Yolo.Config(weights=settings.weights)
    source = str(path.absolute())  # the same from whatever folder a killed command is given again
    crop(CropSettings(source, settings.detector, detect, modality=settings.modality, out=str(work)))
    if not (work / LABELS).read_text(encoding="utf-8").count("\n") > 1:
        return []
    crops = _folder(Folder(work), work, replace(settings, camera=settings.camera or path.name))
    return [replace(crop_, path=f"{path.resolve()}:{Path(crop_.path).name}") for crop_ in crops]


def refuse_other_infrared(kinds: Mapping[str, str], kind: str, what: str) -> None:
    """Near infrared shows reflected light, thermal shows heat: neither says anything about the other.

    Raises:
        UsageError: one of the kinds is another one.
    """
    for holder, known in kinds.items():
        if kind not in ("unknown", known):
            raise UsageError(f"{what} for {kind} infrared, but the gallery's {holder} for {known} infrared")


def seconds(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 date and time, or of a plain number of seconds.

    Raises:
        UsageError: neither, or so many that they must be milliseconds.
    """
    said = f"{text!r} is no time; write 2026-11-28T22:00:00, or seconds"
    with contextlib.suppress(ValueError):
        number = float(text)
        if abs(number) <= _LATEST:
            return number
        if math.isfinite(number):  # some of these are dates too, with a digit for the T
            raise UsageError(said + "; milliseconds? divide them by 1000")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(said) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_DECADE, _LATEST = 10 * 365 * 86_400.0, 1e11


def clock(moment: float | None) -> str:
    """A time in words: a date, or, of a video that does not say when it began, hours and minutes since then."""
    if moment is None:
        return ""
    if not abs(moment) <= _LATEST:  # galleries took such in once
        return str(moment)
    if moment < _DECADE:
        minutes, rest = divmod(moment, 60)
        return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{rest:04.1f}"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
