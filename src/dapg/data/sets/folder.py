"""Your own images: any folder, with an optional CSV of persons, cameras and modalities."""

import csv
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.files import plain_cell
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import IMAGE_SUFFIXES, images_below, inside
from dapg.data.verify import Finding

LABELS = "labels.csv"
SPLITS = ("train", "val", "test")
COLUMNS = ("path", "person", "camera", "modality", "split", "left", "top", "right", "bottom")

PATTERNS = {"market": r"^(?P<person>-?\d+)_c(?P<camera>\d+)"}
"""Name -> where file names say person and camera: Market-1501's and its kin."""

Box = tuple[int, int, int, int]

_NOBODY = {"", "-1", "nan", "none", "null", "unknown"}
"""What trackers and spreadsheets write for a person nobody knows."""
_MODALITIES = {
    "visible": Modality.VISIBLE,
    "rgb": Modality.VISIBLE,
    "infrared": Modality.INFRARED,
    "ir": Modality.INFRARED,
    "nir": Modality.INFRARED,
    "thermal": Modality.INFRARED,
}


class Folder(Dataset):
    """All images below a folder, or those that ``labels.csv`` in it lists.

    Columns of the CSV: ``path`` (relative to the folder) and, each optional, ``person`` (any text), ``camera``
    (a whole number), ``modality`` (visible or infrared), ``split`` (train, val or test) and ``left, top, right,
    bottom`` (a box in pixels). Other columns are left alone; one that is nearly named as these is refused.
    Without CSV every image is visible and nobody is known, which is all that pre-training needs.
    """

    title = "folder"
    licence = "yours; you need a lawful basis for images of people"
    access = "your own files"
    splits: ClassVar[tuple[str, ...]] = ("all", *SPLITS)
    modes: ClassVar[tuple[str, ...]] = ("cross-camera", "cross-modal", "validation", "leave-one-out")

    smallest = (32, 16)

    def __init__(self, root: Path | str) -> None:
        """Open a folder, or a CSV file under any name beside the images it lists.

        Raises:
            DataError: no such folder, no image in it, or a mistake in the CSV, with its line.
        """
        given = Path(root)
        a_list = given.suffix.lower() == ".csv" and given.is_file()
        super().__init__(given.parent if a_list else given)
        self.require()
        self._splits: dict[str, list[Record]] = {"all": []}
        labels = given if a_list else self.root / LABELS
        self.labels = labels
        """The CSV file, whether it is there or not."""
        self.person_names: list[str] = []
        """Names in the CSV by person number."""
        if labels.exists():
            self._read_labels(labels)
        else:
            self._splits["all"] = [Record(path) for path in images_below(self.root)]
        if not self._splits["all"]:
            raise DataError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) below {self.root}")

    def name_persons(self, pattern: str) -> None:
        """Take persons, and cameras where it has them, from file names; names without a person name nobody.

        Args:
            pattern: a regular expression with the group ``person`` and perhaps ``camera``, searched in file names, or a
                key of ``PATTERNS``. A camera that is no whole number is numbered in the order of names.

        Raises:
            UsageError: no such expression, or there is a labels.csv that says who is who.
            DataError: it fits no name.
        """
        if self.labels.exists():
            raise UsageError(f"{self.labels} says who is who; --data.names is for folders without it")
        try:
            expression = re.compile(PATTERNS.get(pattern, pattern))
        except (re.error, RecursionError, OverflowError) as error:
            raise UsageError(f"--data.names {pattern!r} is no regular expression ({error})") from error
        if "person" not in expression.groupindex:
            raise UsageError(
                f"--data.names {pattern!r} has no group (?P<person>...); known by name: {', '.join(PATTERNS)}"
            )
        records = self._splits["all"]
        hits = [expression.search(PurePosixPath(record.path).name) for record in records]
        fitting = [hit.groupdict() for hit in hits if hit]
        if not fitting:
            raise DataError(f"--data.names {pattern!r} fits no name below {self.root}, such as {records[0].path}")
        people = {str(groups["person"]) for groups in fitting}
        self.person_names = sorted(name for name in people if name.lower() not in _NOBODY)
        persons = {name: number for number, name in enumerate(self.person_names)}
        words = sorted({groups["camera"] for groups in fitting if groups.get("camera")})
        cameras = {word: int(word) if word.isdecimal() and len(word) < 10 else n for n, word in enumerate(words, 1)}
        self._splits["all"] = [
            replace(
                record,
                person=persons.get(str(hit["person"]), UNKNOWN) if hit else UNKNOWN,
                camera=cameras.get(hit.groupdict().get("camera") or "", UNKNOWN) if hit else UNKNOWN,
            )
            for record, hit in zip(records, hits, strict=True)
        ]

    def records(self, split: str = "all") -> list[Record]:
        """``all``, or the rows with that word in the ``split`` column."""
        self.check_split(split)
        if split not in self._splits and not self.labels.exists():
            raise UsageError(f"{self.root} has no split {split!r}: nothing says more than that all are images")
        if split not in self._splits:
            raise UsageError(f"{self.labels} has no row with split {split!r}; use split 'all'")
        return list(self._splits[split])

    def default_split(self) -> str:
        """``train`` where labels.csv has such rows, so that nothing is trained on test images unasked."""
        return "train" if "train" in self._splits else "all"

    def tested_split(self) -> str:
        """``test`` where labels.csv has such rows, else all."""
        return "test" if "test" in self._splits else "all"

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """One trial over the test rows (all rows where there is no split column).

        cross-camera: every visible image against all others, the query's own camera left out for its person.
        cross-modal: infrared queries, visible gallery. validation: the same over the val rows. leave-one-out, for one
        camera: every image of a person who has another one against all others. Frames that follow one another are all
        but the same image: such a score says less than one across cameras.
        """
        self.check_mode(mode)
        split = "val" if mode == "validation" else self.tested_split()
        records = self.records(split)
        known = [record for record in records if record.person != UNKNOWN]
        visible = tuple(record for record in known if record.modality == Modality.VISIBLE)
        infrared = tuple(record for record in known if record.modality == Modality.INFRARED)
        if mode == "leave-one-out":
            return [self._leave_one_out(known)]
        if mode == "cross-camera":
            self._refuse_unless(len({record.camera for record in visible}) > 1, "persons seen by two visible cameras")
            protocol = Protocol("cross-camera", same_person_same_camera=True)
            return [Trial("trial 1", mode, visible, visible, protocol, comparable=False)]
        self._refuse_unless(bool(visible and infrared), "labelled persons in both modalities")
        return [Trial("trial 1", mode, infrared, visible, Protocol("cross-modal"), comparable=False)]

    def _leave_one_out(self, known: Sequence[Record]) -> Trial:
        """Each image counts as a camera of its own, so that the rule of cameras leaves out the query and no other."""
        counts = Counter(record.person for record in known)
        self._refuse_unless(any(count > 1 for count in counts.values()), "persons with two images or more")
        apart = tuple(replace(record, camera=number) for number, record in enumerate(known, 1))
        queries = tuple(record for record in apart if counts[record.person] > 1)
        protocol = Protocol("leave-one-out", same_person_same_camera=True)
        return Trial("trial 1", "leave-one-out", queries, apart, protocol, comparable=False)

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Every two splits that labels.csv names."""
        return list(itertools.combinations([name for name in SPLITS if name in self._splits], 2))

    def audit(self) -> Iterator[Finding]:
        """What would make scores impossible or worthless; pre-training needs none of it.

        An error where labels.csv has a test split, and so promises scores; else a note.
        """
        where, promised = self.labels.name, "test" in self._splits
        known = [record for record in self._splits["test" if promised else "all"] if record.person != UNKNOWN]
        if not known:
            if promised:
                yield Finding("list", where, "the test rows name no person")
            return
        every = {record.modality for record in self._splits["all"]}
        persons = {light: {r.person for r in known if r.modality == light} for light in every}
        unnamed = [light.name.lower() for light in every if not persons[light]]
        if unnamed:
            yield Finding("list", where, f"only one modality has persons: no {unnamed[0]} image names one", promised)
        elif len(every) == 2 and not set.intersection(*persons.values()):
            yield Finding("list", where, "no person has both visible and infrared images", promised)
        cameras = {record.camera for record in known}
        if len(cameras) == 1 and len(every) == 1:
            only = "none is named" if cameras == {UNKNOWN} else f"camera {cameras.pop()}"
            message = f"all labelled images are of one camera ({only}): only --mode leave-one-out can be scored"
            yield Finding("list", where, message, promised)

    def _refuse_unless(self, fine: bool, needed: str) -> None:
        if not fine:
            where = self.labels if self.labels.exists() else self.root
            raise UsageError(f"scores need {needed}; {where} names none. See docs/reference/datasets.md.")

    def cells(self) -> Iterator[tuple[str, tuple[str, Box | None], dict[str, str]]]:
        """(place for messages, path and box of the record, column -> cell) of each row, for columns of one's own."""
        if self.labels.exists():
            for where, row in _rows(self.labels):
                yield where, (inside(row["path"], where), _box(row, where)), row

    def _read_labels(self, labels: Path) -> None:
        rows = list(_rows(labels))
        names = sorted({row.get("person", "") for _, row in rows if row.get("person", "").lower() not in _NOBODY})
        self.person_names = names
        persons = {name: number for number, name in enumerate(names)}
        seen: dict[tuple[str, Box | None], str] = {}
        for where, row in rows:
            record = Record(
                path=inside(row["path"], where),
                person=persons.get(row.get("person", ""), UNKNOWN),
                camera=_whole(row.get("camera"), UNKNOWN, where, "camera"),
                modality=_modality(row.get("modality"), where),
                box=_box(row, where),
            )
            if not (self.root / record.path).is_file():
                raise DataError(f"{where}: {record.path} is not a file below {self.root}")
            first = seen.setdefault((record.path, record.box), where)
            if first != where:
                raise DataError(f"{where}: {record.path} is listed already, see {first}")
            self._splits["all"].append(record)
            if split := _split(row.get("split"), where):
                self._splits.setdefault(split, []).append(record)

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


def _rows(labels: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place for messages, column -> stripped cell) of each row.

    Raises:
        DataError: not a table in UTF-8, columns without ``path`` or nearly named as ours, or a row of another length.
    """
    try:
        with labels.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, strict=True)
            columns = [cell.strip() for cell in next(reader, [])]
            _check_columns(columns, labels)
            for cells in reader:
                where = f"{labels}, line {reader.line_num}"
                if len(cells) not in (0, len(columns)):
                    raise DataError(f"{where}: {len(cells)} cells, but the first line names {len(columns)} columns")
                if cells:
                    yield where, dict(zip(columns, (plain_cell(cell.strip()) for cell in cells), strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{labels} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{labels}, line {reader.line_num}: {error}") from error


def _check_columns(columns: list[str], labels: Path) -> None:
    for column in columns:
        close = difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=0.8)
        if close and column not in COLUMNS:
            raise DataError(f"{labels}: there is no column {column!r}; did you mean {close[0]!r}?")
    if "path" not in columns:
        raise DataError(f"{labels}: the first line must name the columns, separated by commas, with `path` among them")
    if len(set(columns)) < len(columns):
        raise DataError(f"{labels}: the first line names a column twice: {', '.join(columns)}")


def _split(text: str | None, where: str) -> str | None:
    if text and text not in SPLITS:
        raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, not {text!r}{nearest(text, list(SPLITS))}")
    return text or None


def _whole(text: str | None, default: int, where: str, column: str) -> int:
    if not text:
        return default
    if text.lower() in _NOBODY:
        return default
    if _WHOLE.fullmatch(text) is None:
        raise DataError(f"{where}: {column} must be a whole number, not {text!r}")
    return int(text.partition(".")[0])


_WHOLE = re.compile(r"-?\d{1,9}(\.0*)?")
"""pandas writes a column of whole numbers with gaps as ``3.0``."""


def _modality(text: str | None, where: str) -> Modality:
    if not text:
        return Modality.VISIBLE
    if text.lower() not in _MODALITIES:
        raise DataError(f"{where}: modality must be one of {', '.join(_MODALITIES)}, not {text!r}")
    return _MODALITIES[text.lower()]


def _box(row: Mapping[str, str], where: str) -> Box | None:
    columns = ("left", "top", "right", "bottom")
    if not any(row.get(column) for column in columns):
        return None
    absent = [column for column in columns if not row.get(column)]
    if absent:
        raise DataError(f"{where}: the box lacks {', '.join(absent)}")
    left, top, right, bottom = (_whole(row[column], 0, where, column) for column in columns)
    if right <= max(left, 0) or bottom <= max(top, 0):
        raise DataError(f"{where}: box left, top, right, bottom = {left}, {top}, {right}, {bottom} has no area")
    return max(left, 0), max(top, 0), right, bottom  # cut to the image, as detectors reach beyond it
