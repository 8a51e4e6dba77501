"""Your own pictures: any folder, with an optional CSV of persons, cameras and modalities."""

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dapg.core.errors import DataError, UsageError
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
LABELS = "labels.csv"

_MODALITIES = {
    "visible": Modality.VISIBLE,
    "rgb": Modality.VISIBLE,
    "infrared": Modality.INFRARED,
    "ir": Modality.INFRARED,
    "nir": Modality.INFRARED,
    "thermal": Modality.INFRARED,
}


class Folder(Dataset):
    """All pictures below a folder, or those that ``labels.csv`` in it lists.

    Columns of the CSV: ``path`` (relative to the folder) and, each optional, ``person`` (any text), ``camera``
    (a whole number), ``modality`` (visible or infrared), ``split`` (train, val or test) and ``left, top, right,
    bottom`` (a box in pixels).
    Without CSV every picture is visible and nobody is known, which is all that pre-training needs.
    """

    title = "folder"
    licence = "yours; you need a lawful basis for pictures of people"
    access = "your own files"
    splits: ClassVar[tuple[str, ...]] = ("all", "train", "val", "test")
    modes: ClassVar[tuple[str, ...]] = ("cross-camera", "cross-modal")

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require()
        self._splits: dict[str, list[Record]] = {"all": []}
        labels = self.root / LABELS
        if labels.exists():
            self._read_labels(labels)
        else:
            self._splits["all"] = [Record(path) for path in picture_paths(self.root)]
        if not self._splits["all"]:
            raise DataError(f"no picture ({', '.join(sorted(PICTURE_SUFFIXES))}) below {self.root}")

    def records(self, split: str = "all") -> list[Record]:
        """``all``, or the rows with that word in the ``split`` column."""
        self.check_split(split)
        if split not in self._splits:
            raise UsageError(f"{self.root / LABELS} has no row with split {split!r}; use split 'all'")
        return list(self._splits[split])

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """One trial over the test rows (all rows where there is no split column).

        cross-camera: every visible picture against all others, the query's own camera left out for its person.
        cross-modal: infrared queries, visible gallery.
        """
        self.check_mode(mode)
        records = self.records("test" if "test" in self._splits else "all")
        known = [record for record in records if record.person != UNKNOWN]
        visible = tuple(record for record in known if record.modality == Modality.VISIBLE)
        infrared = tuple(record for record in known if record.modality == Modality.INFRARED)
        if mode == "cross-camera":
            self._refuse_unless(len({record.camera for record in visible}) > 1, "persons seen by two visible cameras")
            protocol = Protocol("cross-camera", same_person_same_camera=True)
            return [Trial("trial 1", mode, visible, visible, protocol, comparable=False)]
        self._refuse_unless(bool(visible and infrared), "labelled persons in both modalities")
        return [Trial("trial 1", mode, infrared, visible, Protocol("cross-modal"), comparable=False)]

    def _refuse_unless(self, fine: bool, needed: str) -> None:
        if not fine:
            raise UsageError(f"scores need {needed}; {self.root / LABELS} has none. See docs/datasets.md.")

    def _read_labels(self, labels: Path) -> None:
        with labels.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            if "path" not in (reader.fieldnames or []):
                raise DataError(f"{labels}: the first line must name the columns, with `path` among them")
            rows = list(reader)
        persons = {name: number for number, name in enumerate(sorted({row.get("person") or "" for row in rows} - {""}))}
        for line, row in enumerate(rows, start=2):
            where = f"{labels}, line {line}"
            record = Record(
                path=(row["path"] or "").replace("\\", "/"),
                person=persons.get(row.get("person") or "", UNKNOWN),
                camera=_whole(row.get("camera"), UNKNOWN, where, "camera"),
                modality=_modality(row.get("modality"), where),
                box=_box(row, where),
            )
            if not (self.root / record.path).is_file():
                raise DataError(f"{where}: {record.path or 'empty path'} is not a file below {self.root}")
            self._splits["all"].append(record)
            if row.get("split"):
                self.check_split(row["split"])
                self._splits.setdefault(row["split"], []).append(record)

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Two persons, two cameras and both modalities."""
        rows, layout = ["path,person,camera,modality,split"], dict[str, str | None]()
        cells = itertools.product(("anna", "ben", "cleo", "dora"), ((1, "visible"), (2, "visible"), (3, "infrared")))
        for person, (camera, modality) in cells:
            path = f"{modality}/{person}_{camera}.png"
            layout[path] = None
            rows.append(f"{path},{person},{camera},{modality},{'train' if person in ('anna', 'ben') else 'test'}")
        return {LABELS: "\n".join(rows) + "\n", **layout}


def picture_paths(root: Path) -> list[str]:
    """Paths of all pictures below ``root``, relative, sorted, hidden files and folders left out."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _whole(text: str | None, default: int, where: str, column: str) -> int:
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{where}: {column} must be a whole number, not {text!r}") from None


def _modality(text: str | None, where: str) -> Modality:
    if not text:
        return Modality.VISIBLE
    if text.lower() not in _MODALITIES:
        raise DataError(f"{where}: modality must be one of {', '.join(_MODALITIES)}, not {text!r}")
    return _MODALITIES[text.lower()]


def _box(row: Mapping[str, str | None], where: str) -> tuple[int, int, int, int] | None:
    columns = ("left", "top", "right", "bottom")
    if not any(row.get(column) for column in columns):
        return None
    left, top, right, bottom = (_whole(row.get(column), -1, where, column) for column in columns)
    if not (0 <= left < right and 0 <= top < bottom):
        raise DataError(f"{where}: box left, top, right, bottom = {left}, {top}, {right}, {bottom} has no area")
    return left, top, right, bottom
