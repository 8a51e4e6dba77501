"""RegDB (Nguyen et al., Sensors 2017): 412 persons, ten visible and ten thermal images each, ten partitions.

Facts and rules: docs/reference/datasets.md and docs/reference/protocols.md. Read from
mangye16/Cross-Modal-Re-ID-baseline (data_loader.py, data_manager.py, test.py).
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dapg.core.errors import DataError
from dapg.core.seeds import derive_seed
from dapg.core.settings import shown
from dapg.core.types import Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import images_in, read_lines
from dapg.data.verify import Finding, expect, odd_persons

PROTOCOL = Protocol("regdb")
"""Nothing is left out, and the CMC counts images."""
PARTITIONS = range(1, 11)
PERSONS = 412
IMAGES_PER_PERSON = 10
PERSONS_PER_SIDE = 206
HELD_OUT = 0.2
"""Share of a partition's training persons that ``val`` takes from ``fit``."""
CAMERAS = {Modality.VISIBLE: 1, Modality.INFRARED: 2}
"""Camera numbers that AGW's scores give the two lenses."""
FOLDERS = {Modality.VISIBLE: "Visible", Modality.INFRARED: "Thermal"}
_LIST_NAMES = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}
_NAME = re.compile(r"(male|female)_(front|back)_([vt])_(\d{5})_(\d+)\.bmp")


class RegDB(Dataset):
    """``Visible/83/male_back_v_00502_83.bmp``, ``Thermal/...`` and the lists ``idx/train_visible_1.txt`` ...

    Splits of partition t = 1 ... 10: ``train-t`` (206 persons) and ``test-t`` (the other 206); to choose models,
    ``fit-t`` and ``val-t`` divide the persons of ``train-t``; ``all`` is every image. Persons are the true ones (the
    folder names), not the labels 0 ... 205 that the lists restart for each side.

    Modes: ``visible-to-thermal``, ``thermal-to-visible``: one trial a partition. A model is scored on the partition it
    was trained for; the ten numbers of a paper are ten models. ``validation`` is visible-to-thermal on ``val-t``.

    Where ``idx`` is missing (it ships on request only) partitions are drawn by a fixed rule, and trials say that they
    are not comparable.
    """

    title = "RegDB"
    infrared = "thermal"
    places = dict.fromkeys(CAMERAS.values(), 1)  # one housing with two lenses
    licence = "academic use only, on request"
    access = "http://dm.dongguk.edu/link.html; the idx lists come with the archive of mangye16 (link in his repository)"
    published_persons = True
    splits: ClassVar[tuple[str, ...]] = (
        *(f"{name}-{number}" for name in ("train", "fit", "val", "test") for number in PARTITIONS),
        "all",
    )
    modes: ClassVar[tuple[str, ...]] = ("visible-to-thermal", "thermal-to-visible", "validation")

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require(*FOLDERS.values())
        self.has_lists = (self.root / "idx").is_dir()
        if self.has_lists:
            names = itertools.product(("train", "test"), _LIST_NAMES.values(), PARTITIONS)
            self.require(*(f"idx/{side}_{light}_{number}.txt" for side, light, number in names))

    def records(self, split: str = "train-1") -> list[Record]:
        """Visible images, then thermal ones, each in the order of its list."""
        self.check_split(split)
        if split == "all":
            return [record for modality in FOLDERS for record in self._images[modality]]
        name, _, number = split.partition("-")
        if name in ("train", "test"):
            return self._side(name, int(number))
        side = self._side("train", int(number))
        held_out = _held_out({record.person for record in side}, int(number))
        return [record for record in side if (record.person in held_out) == (name == "val")]

    def trials(self, mode: str = "visible-to-thermal", seed: int = 0) -> list[Trial]:
        """One trial a partition. Nothing is drawn: ``seed`` changes nothing."""
        self.check_mode(mode)
        trials = []
        for number in PARTITIONS:
            records = self.records(f"{'val' if mode == 'validation' else 'test'}-{number}")
            visible = tuple(record for record in records if record.modality == Modality.VISIBLE)
            thermal = tuple(record for record in records if record.modality == Modality.INFRARED)
            query, gallery = (thermal, visible) if mode == "thermal-to-visible" else (visible, thermal)
            side = PERSONS_PER_SIDE * IMAGES_PER_PERSON
            whole = (
                len(visible) == len(thermal) == side and len({record.person for record in records}) == PERSONS_PER_SIDE
            )
            comparable = self.has_lists and whole and mode != "validation"
            drawn = f"idx lists {number}" if self.has_lists else f"our rule for missing idx lists, number {number}"
            trials.append(
                Trial(f"partition {number}", mode, query, gallery, PROTOCOL, comparable, drawn, cause="partition")
            )
        return trials

    def fitting_split(self, split: str) -> str:
        """``fit-t`` for ``train-t``, whose other persons ``validation`` scores."""
        return split.replace("train-", "fit-")

    @functools.cached_property
    def _images(self) -> Mapping[Modality, list[Record]]:
        """Every image, persons in ascending order, by modality."""
        by_modality: dict[Modality, list[Record]] = {}
        for modality, name in FOLDERS.items():
            folders = [folder for folder in (self.root / name).iterdir() if folder.name.isdigit() and folder.is_dir()]
            by_modality[modality] = [
                Record(f"{name}/{folder.name}/{file}", int(folder.name), CAMERAS[modality], modality)
                for folder in sorted(folders, key=lambda folder: int(folder.name))
                for file in images_in(folder)
            ]
        return by_modality

    def _side(self, side: str, number: int) -> list[Record]:
        if self.has_lists:
            lists = [self._listed(side, modality, number) for modality in FOLDERS]
            return [record for records in lists for record, _ in records]
        chosen = self._drawn(side, number)
        return [record for modality in FOLDERS for record in self._images[modality] if record.person in chosen]

    def _drawn(self, side: str, number: int) -> set[int]:
        """Half of the persons: those whose seed-derived number is smallest are the training side."""
        persons = sorted({record.person for records in self._images.values() for record in records})
        order = sorted(persons, key=lambda person: derive_seed("regdb-partition", number, person))
        half = len(order) // 2
        return set(order[:half] if side == "train" else order[half:])

    @functools.cached_property
    def _by_path(self) -> Mapping[str, Record]:
        return {record.path: record for records in self._images.values() for record in records}

    @functools.cache  # noqa: B019  (a data set lives as long as the program)
    def _listed(self, side: str, modality: Modality, number: int) -> list[tuple[Record, int]]:
        """Records and labels of one list file.

        Raises:
            DataError: names the line that is not ``path label`` or whose folder is not a person.
        """
        relative = f"idx/{side}_{_LIST_NAMES[modality]}_{number}.txt"
        labelled = []
        for place, line in enumerate(read_lines(self.root / relative), start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")  # from the right: a path may hold spaces
            parts = path.replace("\\", "/").split("/")
            if len(parts) != 3 or parts[0] != FOLDERS[modality] or not parts[1].isdigit() or not label.isdigit():
                raise DataError(
                    f"{self.root / relative}, line {place}: expected "
                    f"'{FOLDERS[modality]}/<person>/<file> <label>', found {shown(line)}"
                )
            path = "/".join(parts)
            known = self._by_path.get(path)  # a listed file that is not there is named when it is read, or by verify
            labelled.append((known or Record(path, int(parts[1]), CAMERAS[modality], modality), int(label)))
        return labelled

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Of each partition, training and test side, and the two parts of the training side."""
        pairs = [(f"train-{number}", f"test-{number}") for number in PARTITIONS]
        return pairs + [(f"fit-{number}", f"val-{number}") for number in PARTITIONS]

    def audit(self) -> Iterator[Finding]:
        """Compare folders, names and lists with the published counts."""
        for modality, name in FOLDERS.items():
            images = self._images[modality]
            numbers = Counter(record.person for record in images)
            yield from expect([(name, len(numbers), PERSONS)], "persons")
            yield from expect([(name, len(images), PERSONS * IMAGES_PER_PERSON)], "pictures")
            for person, count in sorted(numbers.items()):
                yield from expect([(f"{name}/{person}", count, IMAGES_PER_PERSON)], "pictures")
            yield from self._audit_names(modality)
        visible, thermal = ({record.person for record in self._images[modality]} for modality in FOLDERS)
        for person in sorted(visible ^ thermal):
            present, absent = ("Visible", "Thermal") if person in visible else ("Thermal", "Visible")
            yield Finding("missing", f"{absent}/{person}", f"person {person} is in {present} only")
        if not self.has_lists:
            message = "missing: partitions are drawn by a fixed rule, and scores are not comparable with published ones"
            yield Finding("list", "idx", message, error=False)
            return
        for side, modality, number in itertools.product(("train", "test"), FOLDERS, PARTITIONS):
            yield from self._audit_list(side, modality, number)
        for side, number in itertools.product(("train", "test"), PARTITIONS):
            yield from self._audit_labels(side, number)

    def _audit_names(self, modality: Modality) -> Iterator[Finding]:
        for record in self._images[modality]:
            match = _NAME.fullmatch(record.path.rsplit("/", 1)[1])
            if match is None:
                yield Finding("extra", record.path, "published names are like male_back_v_00502_83.bmp")
            elif int(match[5]) != record.person:
                yield Finding("extra", record.path, f"an image of person {match[5]} in the folder of {record.person}")
            elif match[3] != ("v" if modality == Modality.VISIBLE else "t"):
                yield Finding("extra", record.path, "an image of the other modality by its name")

    def _audit_list(self, side: str, modality: Modality, number: int) -> Iterator[Finding]:
        where = f"idx/{side}_{_LIST_NAMES[modality]}_{number}.txt"
        try:
            listed = self._listed(side, modality, number)
        except DataError as error:
            yield Finding("list", where, str(error))
            return
        records = [record for record, _ in listed]
        yield from expect([(where, len(records), PERSONS_PER_SIDE * IMAGES_PER_PERSON)], "lines")
        yield from expect([(where, len({record.person for record in records}), PERSONS_PER_SIDE)], "persons")
        odd = odd_persons(records, IMAGES_PER_PERSON)
        if odd:
            yield Finding("count", where, f"every person has {IMAGES_PER_PERSON} lines, but {odd}")
        for path, times in Counter(record.path for record in records).items():
            if times > 1:
                yield Finding("list", where, f"{path} is listed {times} times")
            if path not in self._by_path:
                yield Finding("missing", path, f"listed in {where}, but there is no such file")

    def _audit_labels(self, side: str, number: int) -> Iterator[Finding]:
        """Labels name one person each, the same in both lists."""
        where = f"idx/{side}_*_{number}.txt"
        try:
            lists = {modality: self._listed(side, modality, number) for modality in FOLDERS}
        except DataError:
            return  # named by _audit_list
        person_of: dict[int, int] = {}
        for record, label in itertools.chain.from_iterable(lists.values()):
            if person_of.setdefault(label, record.person) != record.person:
                message = f"label {label} names persons {person_of[label]} and {record.person}"
                yield Finding("list", where, message)
                return
        visible, thermal = ({record.person for record, _ in records} for records in lists.values())
        if visible != thermal:
            shown = ", ".join(map(str, sorted(visible ^ thermal)[:10]))
            yield Finding("list", where, f"visible and thermal list differ in persons: {shown}")
        if sorted(person_of) != list(range(len(person_of))):
            yield Finding("list", where, "labels are not 0, 1, 2, ... without a gap")

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Ten persons with two images a modality, and all forty lists."""
        layout: dict[str, str | None] = {}
        paths: dict[tuple[str, int], list[str]] = {}
        for person, (modality, folder) in itertools.product(range(1, 11), FOLDERS.items()):
            letter = "v" if modality == Modality.VISIBLE else "t"
            sex, view = ("female", "front") if person % 2 else ("male", "back")
            files = [f"{folder}/{person}/{sex}_{view}_{letter}_{person * 10 + n:05d}_{person}.bmp" for n in (1, 2)]
            paths[_LIST_NAMES[modality], person] = files
            layout |= dict.fromkeys(files)
        for number, light in itertools.product(PARTITIONS, _LIST_NAMES.values()):
            train = [(person + number) % 10 + 1 for person in range(0, 10, 2)]
            sides = {"train": sorted(train), "test": sorted(set(range(1, 11)) - set(train))}
            for side, persons in sides.items():
                lines = [f"{path} {label}" for label, person in enumerate(persons) for path in paths[light, person]]
                layout[f"idx/{side}_{light}_{number}.txt"] = "\n".join(lines) + "\n"
        return layout


def _held_out(persons: set[int], number: int) -> set[int]:
    """A fifth of the persons, at least one, by a rule that depends on nothing but person and partition."""
    order = sorted(persons, key=lambda person: derive_seed("regdb-validation", number, person))
    return set(order[: max(1, round(HELD_OUT * len(order)))])
