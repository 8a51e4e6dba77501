"""LLCM (Zhang and Wang, CVPR 2023): 1,064 persons in low light, nine cameras, visible and near infrared.

Facts and rules: docs/reference/datasets.md and docs/reference/protocols.md. Read from ZYK100/LLCM
(DEEN/data_manager.py, data_loader.py, test.py, eval_metrics.py).
"""

import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dapg.core.errors import DataError
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import images_in, read_lines, read_numbers
from dapg.data.verify import Finding, expect

PROTOCOL = Protocol("llcm", same_person_same_camera=True, unique_identity_cmc=True)
TRIALS = 10
TRAIN_PERSONS = 713
ALL_PERSONS = 1064
ALL_IMAGES = 46_767
TEST_FOLDERS = {Modality.VISIBLE: "test_vis", Modality.INFRARED: "test_nir"}
TEST_CAMERAS = {Modality.VISIBLE: range(1, 10), Modality.INFRARED: (1, 2, 4, 5, 6, 7, 8, 9)}
"""There is no infrared image by camera 3."""
_LISTS = {Modality.VISIBLE: "idx/train_vis.txt", Modality.INFRARED: "idx/train_nir.txt"}
_CAMERA = re.compile(r"_c(\d+)_")


class LLCM(Dataset):
    """``idx/train_vis.txt``, ``idx/train_nir.txt``, ``idx/test_id.txt`` and ``test_vis/cam1/0001/...``.

    Splits: ``train`` (713 persons) and ``test``.

    Modes: ``infrared-to-visible`` and ``visible-to-infrared``: all images of the first modality against one image
    per person and camera of the second, drawn by Python's generator seeded with the trial. In the released code the
    second direction draws infrared images and then *exchanges the roles*: few infrared queries search all visible
    images. That is ``visible-to-infrared-released``, which published numbers of that direction belong to.
    """

    title = "LLCM"
    infrared = "near"
    licence = "academic use only, under a signed release agreement"
    access = "agreement and address at https://github.com/ZYK100/LLCM"
    published_persons = True
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    modes: ClassVar[tuple[str, ...]] = ("infrared-to-visible", "visible-to-infrared", "visible-to-infrared-released")

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require(*_LISTS.values(), "idx/test_id.txt", *TEST_FOLDERS.values())

    def records(self, split: str = "train") -> list[Record]:
        """Visible images, then infrared ones, in list order (train) or by person and camera (test)."""
        self.check_split(split)
        if split == "train":
            return [record for modality in _LISTS for record in self._listed(modality)]
        return [record for modality in TEST_FOLDERS for cell in self._cells(modality) for record in cell]

    def trials(self, mode: str = "infrared-to-visible", seed: int = 0) -> list[Trial]:
        """Ten trials; trial t re-seeds Python's generator with 10 ``seed`` + t, published numbers with seed 0."""
        self.check_mode(mode)
        sampled = Modality.VISIBLE if mode == "infrared-to-visible" else Modality.INFRARED
        other = Modality.INFRARED if mode == "infrared-to-visible" else Modality.VISIBLE
        every = tuple(record for cell in self._cells(other) for record in cell)
        for modality, folder in TEST_FOLDERS.items():
            if not self._cells(modality):
                raise DataError(f"{self.title}: no {modality.name.lower()} test image below {self.root / folder}")
        train, persons = self.records("train"), self.persons_tested()
        whole = len(train) + sum(len(cell) for side in TEST_FOLDERS for cell in self._cells(side)) == ALL_IMAGES
        published = whole and len(persons) == ALL_PERSONS - TRAIN_PERSONS
        comparable = published and seed == 0 and mode != "visible-to-infrared"
        trials = []
        for trial in range(TRIALS):
            generator = random.Random(TRIALS * seed + trial)
            drawn = tuple(generator.choice(cell) for cell in self._cells(sampled))
            query, gallery = (drawn, every) if mode.endswith("released") else (every, drawn)
            drawn_by = f"Python random seeded with {TRIALS * seed + trial}"
            trials.append(Trial(f"trial {trial}", mode, query, gallery, PROTOCOL, comparable, drawn_by))
        return trials

    def persons_tested(self) -> list[int]:
        """Persons of ``idx/test_id.txt``, in the order of their four-digit names."""
        return read_numbers(self.root / "idx/test_id.txt")

    @functools.cache  # noqa: B019  (a data set lives as long as the program)
    def _cells(self, modality: Modality) -> list[list[Record]]:
        """Test images by person, then camera; empty cells are left out."""
        cells = []
        for person in self.persons_tested():
            for camera in TEST_CAMERAS[modality]:
                relative = f"{TEST_FOLDERS[modality]}/cam{camera}/{person:04d}"
                folder = self.root / relative
                if not folder.is_dir():
                    continue
                cell = [Record(f"{relative}/{name}", person, camera, modality) for name in images_in(folder)]
                if cell:
                    cells.append(cell)
        return cells

    def _listed(self, modality: Modality) -> list[Record]:
        """Training records of one list: person from the folder, camera from ``_c01_`` in the name.

        Labels of the lists are not used: they number the training persons from 0 and would clash with test persons.
        """
        relative = _LISTS[modality]
        records = []
        for number, line in enumerate(read_lines(self.root / relative), start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            parts = path.replace("\\", "/").split("/")
            if len(parts) < 2 or not parts[-2].isdigit() or not label.isdigit():
                raise DataError(
                    f"{self.root / relative}, line {number}: expected '<path> <label>', found {line[:80]!r}"
                )
            camera = _CAMERA.search(parts[-1])
            records.append(Record("/".join(parts), int(parts[-2]), int(camera[1]) if camera else UNKNOWN, modality))
        return records

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Train and test share nobody."""
        return (("train", "test"),)

    def audit(self) -> Iterator[Finding]:
        """Compare lists and folders with the published counts."""
        train, test = self.records("train"), self.records("test")
        yield from expect([("idx/train_*.txt", len({record.person for record in train}), TRAIN_PERSONS)], "persons")
        yield from expect([("idx/test_id.txt", len(self.persons_tested()), ALL_PERSONS - TRAIN_PERSONS)], "persons")
        yield from expect([(".", len(train) + len(test), ALL_IMAGES)], "pictures")
        for record in train:
            if not (self.root / record.path).is_file():
                yield Finding("missing", record.path, f"listed in {_LISTS[record.modality]}, but there is no such file")
        both = sorted({record.person for record in train} & set(self.persons_tested()))
        if both:
            listed = ", ".join(map(str, both[:10]))
            yield Finding("overlap", "idx/test_id.txt", f"{len(both)} person(s) of the training lists, too: {listed}")
        yield from self._audit_folders()
        tested = {record.person for record in test}
        for person in self.persons_tested():
            if person not in tested:
                yield Finding("missing", "idx/test_id.txt", f"person {person} has no image in test_vis or test_nir")

    def _audit_folders(self) -> Iterator[Finding]:
        """Folders that no list or camera leads to: images in them are silently not tested."""
        persons = {f"{person:04d}" for person in self.persons_tested()}
        for modality, name in TEST_FOLDERS.items():
            known = {f"cam{camera}" for camera in TEST_CAMERAS[modality]}
            for camera in sorted(path for path in (self.root / name).iterdir() if path.is_dir()):
                if camera.name not in known:
                    yield Finding("extra", f"{name}/{camera.name}", f"cameras here are {', '.join(sorted(known))}")
                    continue
                for folder in sorted(path.name for path in camera.iterdir() if path.is_dir()):
                    if folder not in persons:
                        where = f"{name}/{camera.name}/{folder}"
                        yield Finding("extra", where, "not a person of idx/test_id.txt")

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Two training and two test persons, two cameras."""
        layout: dict[str, str | None] = {"idx/test_id.txt": "3,4\n"}
        for modality, short in ((Modality.VISIBLE, "vis"), (Modality.INFRARED, "nir")):
            lines = []
            for label, person in enumerate((1, 2)):
                for camera in (1, 2):
                    path = f"{short}/{person:04d}/{person:04d}_c{camera:02d}_s100_f{camera}_{short}.jpg"
                    layout[path] = None
                    lines.append(f"{path} {label}")
            layout[_LISTS[modality]] = "\n".join(lines) + "\n"
            for person, camera, number in ((p, c, n) for p in (3, 4) for c in (1, 2) for n in (1, 2)):
                name = f"{person:04d}_c{camera:02d}_s100_f{number}_{short}.jpg"
                layout[f"{TEST_FOLDERS[modality]}/cam{camera}/{person:04d}/{name}"] = None
        return layout
