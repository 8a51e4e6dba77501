"""Shared by pose generation, which writes it, and alignment, which reads it: the list of generated images.

A folder of generated images holds ``manifest.csv``, one line an image and pose, and ``manifest.json``, which says
by which generator. Columns of the CSV: ``path, left, top, right, bottom`` (the source image as in its record; the
box empty for a whole image), ``pose`` (name of the target pose), ``file`` (relative to the folder) and ``score``
(share of the target's key points that the generated image hits, PCK at 0.2 of the torso, or empty when not
measured). A source without usable key points has one line with ``pose`` and ``file`` empty: it goes on unchanged.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypedDict

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text, csv_text, plain_cell, write_json
from dapg.core.schema import read_json
from dapg.core.types import JsonObject, Record

MANIFEST, ABOUT = "manifest.csv", "manifest.json"
COLUMNS = ("path", "left", "top", "right", "bottom", "pose", "file", "score")

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One line: the source image, and what became of it in one pose."""

    path: str
    box: Box | None
    pose: str = ""
    file: str = ""
    """Empty: nothing was generated, the source goes on unchanged."""
    score: float | None = None
    """PCK of the generated image's key points against the target pose, 0 ... 1; None when not measured."""


@dataclass(frozen=True)
class Manifest:
    """The generated images of a folder."""

    folder: Path
    pictures: tuple[GeneratedImage, ...]
    about: JsonObject = field(default_factory=dict)
    """``generator`` (SHA-256 of its weights), ``pairs`` (labels, label-free, synthetic: what the generator learnt
    from), ``poses`` (names, in order), ``data`` (hash of the source list), and more."""

    @property
    def poses(self) -> tuple[str, ...]:
        """Names of the target poses, in order of first appearance."""
        return tuple(dict.fromkeys(image.pose for image in self.pictures if image.pose))

    def by_source(self, least_score: float = 0.0) -> dict[tuple[str, Box | None], dict[str, Path]]:
        """(path, box) -> pose -> file, for images whose score is not below ``least_score`` (or not measured).

        Sources that went on unchanged, or lost all their images, have an empty inner mapping.
        """
        sources: dict[tuple[str, Box | None], dict[str, Path]] = {}
        for image in self.pictures:
            files = sources.setdefault((image.path, image.box), {})
            if image.file and (image.score is None or image.score >= least_score):
                files[image.pose] = self.folder / image.file
        return sources

    def of(self, records: Iterable[Record], least_score: float = 0.0) -> list[dict[str, Path]]:
        """For each record its files by pose.

        Raises:
            DataError: a record that the manifest does not know.
        """
        sources = self.by_source(least_score)
        chosen = []
        for record in records:
            if (record.path, record.box) not in sources:
                raise DataError(
                    f"{self.folder / MANIFEST} has no line for {record.path}; run dapg pose generate on this data"
                )
            chosen.append(sources[record.path, record.box])
        return chosen


class _About(TypedDict, total=False):
    poses: list[str]


def write_manifest(manifest: Manifest) -> None:
    """Write both files, the CSV last: where it stands, the folder is complete.

    Raises:
        DapgError: a file cannot be written.
    """
    rows: list[tuple[object, ...]] = [COLUMNS]
    for image in manifest.pictures:
        box = ("", "", "", "") if image.box is None else image.box
        score = "" if image.score is None else f"{image.score:.4f}"
        rows.append((image.path, *box, image.pose, image.file, score))
    write_json(manifest.folder / ABOUT, manifest.about)
    atomic_write_text(manifest.folder / MANIFEST, csv_text(rows))


def read_manifest(folder: Path | str) -> Manifest:
    """Read a folder's manifest; the images themselves are not opened.

    Raises:
        DataError: missing, or not such a list; names the line.
    """
    where = Path(folder) / MANIFEST
    try:
        with where.open(newline="", encoding="utf-8") as handle:
            reader = csv.reader(handle, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                raise DataError(f"{where}: the first line must be {','.join(COLUMNS)}")
            images = tuple(_image(cells, f"{where}, line {reader.line_num}") for cells in reader)
    except FileNotFoundError as error:
        raise DataError(f"{where} does not exist; dapg pose generate makes it, as its last file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read ({error})") from error
    return Manifest(Path(folder), images, read_json(Path(folder) / ABOUT, _About))


def _image(cells: list[str], where: str) -> GeneratedImage:
    if len(cells) != len(COLUMNS):
        raise DataError(f"{where}: {len(cells)} cells in place of {len(COLUMNS)}")
    path, *sides, pose, file, score = map(plain_cell, cells)
    inside = PurePosixPath(file)
    if bool(pose) != bool(file) or inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where}: pose and file must both be given, the file relative to the folder, or both be empty")
    try:
        box = None if not any(sides) else (int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3]))
        return GeneratedImage(path, box, pose, file, float(score) if score else None)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
