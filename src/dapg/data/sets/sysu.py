"""SYSU-MM01 (Wu et al., ICCV 2017): 491 persons, four visible and two infrared cameras, ten random galleries.

Facts and rules: docs/reference/datasets.md and docs/reference/protocols.md. Read from wuancong/SYSU-MM01 and
mangye16/Cross-Modal-Re-ID-baseline (pre_process_sysu.py, data_manager.py, eval_metrics.py).
"""

import functools
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DataError, UsageError
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import images_in, read_numbers
from dapg.data.verify import Finding, expect

VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
INDOOR_CAMERAS = (1, 2)
TRIALS = 10
SHOTS = 10
"""Images per person and camera in a multi-shot gallery."""

SAME_ROOM = {2: 2, 3: 2}
PROTOCOL = Protocol("sysu-mm01", camera_groups=SAME_ROOM, unique_identity_cmc=True)
"""Cameras 2 and 3 stand in the same room, so camera-2 answers to a camera-3 query are left out, whoever they show."""

ARRAYS = {
    Modality.VISIBLE: ("train_rgb_resized_img.npy", "train_rgb_resized_label.npy"),
    Modality.INFRARED: ("train_ir_resized_img.npy", "train_ir_resized_label.npy"),
}
"""What pre_process_sysu.py of AGW writes: (N, 288, 144, 3) uint8 images and labels 0 ... 394."""

PERSONS_PER_SPLIT = {"train": 296, "val": 99, "test": 96}
ALL_PER_CAMERA = {1: (259, 6289), 2: (259, 7528), 3: (486, 9812), 4: (493, 8030), 5: (502, 8224), 6: (299, 5980)}
"""Camera -> (persons, images), all 513 persons that have a folder."""
TRAINVAL_PER_CAMERA = {1: (194, 4721), 2: (195, 5753), 3: (392, 7909), 4: (382, 5811), 5: (390, 5973), 6: (200, 4000)}
IMAGES_PER_SPLIT = {"train": (20_284, 9_929), "val": (1_974, 1_980), "trainval": (22_258, 11_909)}
"""Split -> (visible, infrared) images."""
LAST_PERSON = 533

_SPLITS = {"trainval": ("train", "val"), "train": ("train",), "val": ("val",), "test": ("test",)}


class SysuMM01(Dataset):
    """``cam1/0001/0001.jpg`` ... and ``exp/train_id.txt``, ``val_id.txt``, ``test_id.txt``; or AGW's four arrays.

    Splits: ``trainval`` (395 persons, what published numbers train on), ``train`` (296) with ``val`` (99) to choose
    models by, ``test`` (96), and ``trainval-arrays`` (the ``.npy`` files of AGW, memory-mapped).

    Modes: ``all`` and ``indoor``, each single-shot by AGW's generator; ``-multi`` puts ten images per person and
    camera into the gallery; ``-official`` takes the permutation file of the authors instead of AGW's generator, which
    gives other galleries. ``validation`` is all-search on the validation persons.
    """

    title = "SYSU-MM01"
    infrared = "near"
    places = SAME_ROOM
    licence = "academic use only, under a signed release agreement"
    access = "agreement and address at https://github.com/wuancong/SYSU-MM01"
    published_persons = True
    splits: ClassVar[tuple[str, ...]] = ("trainval", "train", "val", "test", "trainval-arrays")
    modes: ClassVar[tuple[str, ...]] = (
        "all",
        "indoor",
        "all-multi",
        "indoor-multi",
        "all-official",
        "indoor-official",
        "all-multi-official",
        "indoor-multi-official",
        "validation",
    )

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require()
        if not (self.root / "cam1").is_dir() and (self.root / "ori_data" / "cam1").is_dir():
            self.root = self.root / "ori_data"  # the folder name AGW's code uses
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self.has_images = (self.root / "cam1").is_dir()
        if not self.has_images and self._array_file(ARRAYS[Modality.VISIBLE][0]) is not None:
            self._require_arrays()
            return
        self.require(*(f"cam{camera}" for camera in range(1, 7)), *(f"exp/{name}_id.txt" for name in PERSONS_PER_SPLIT))

    def records(self, split: str = "trainval") -> list[Record]:
        """Persons in ascending order; of each the visible images, cameras 1, 2, 4, 5, then the infrared, 3, 6."""
        self.check_split(split)
        if split == "trainval-arrays" or (split == "trainval" and not self.has_images):
            if self._array_file(ARRAYS[Modality.VISIBLE][0]) is None:
                raise UsageError(f"split 'trainval-arrays' needs AGW's arrays in or beside {self.root}; use 'trainval'")
            return self._array_records()
        self._refuse_without_images(split)
        persons = sorted(itertools.chain.from_iterable(self.persons(name) for name in _SPLITS[split]))
        cameras = (*VISIBLE_CAMERAS, *INFRARED_CAMERAS)
        return [record for person in persons for camera in cameras for record in self._cell(camera, person)]

    def trials(self, mode: str = "all", seed: int = 0) -> list[Trial]:
        """Ten galleries; every infrared test image is a query in each.

        With seed 0 trial t re-seeds Python's generator with t, t = 0 ... 9, like AGW's code; another seed s uses
        10 s + t and is not comparable with published numbers, nor is ``-multi`` without ``-official`` (AGW's code has
        no multi-shot gallery).
        """
        self.check_mode(mode)
        self._refuse_without_images(mode)
        words = mode.split("-")
        official, multi = "official" in words, "multi" in words
        persons = self.persons("val" if mode == "validation" else "test")
        cameras = INDOOR_CAMERAS if "indoor" in words else VISIBLE_CAMERAS
        query = tuple(
            record for person in persons for camera in INFRARED_CAMERAS for record in self._cell(camera, person)
        )
        cells = [(camera, person) for person in persons for camera in cameras if self._cell(camera, person)]
        shots = SHOTS if multi else 1
        drawn_as_published = official or (not multi and seed == 0)
        comparable = mode != "validation" and drawn_as_published and self._has_the_published_test()
        trials = []
        for trial in range(TRIALS):
            number = TRIALS * seed + trial
            if official:
                gallery, drawn = self._official_gallery(cells, trial, shots), f"rand_perm_cam.mat, row {trial + 1}"
            else:
                gallery = self._agw_gallery(cells, random.Random(number), shots)
                drawn = f"Python random seeded with {number}, as in AGW"
            trials.append(Trial(f"trial {trial}", mode, query, gallery, PROTOCOL, comparable, drawn))
        return trials

    def _has_the_published_test(self) -> bool:
        """Whether this copy has the published test persons, each with the published number of images per camera."""
        counts = published_counts()
        return set(self.persons("test")) == set(counts) and all(
            len(self._cell(camera, person)) == number
            for person, numbers in counts.items()
            for camera, number in enumerate(numbers, 1)
        )

    def fitting_split(self, split: str) -> str:
        """``train`` for ``trainval``, whose other 99 persons ``validation`` scores."""
        return "train" if split in ("trainval", "trainval-arrays") else split

    def persons(self, name: str) -> list[int]:
        """Persons of ``exp/<name>_id.txt`` (train, val or test), ascending.

        Raises:
            DataError: the file is missing, or holds anything but whole numbers.
        """
        return read_numbers(self.root / "exp" / f"{name}_id.txt")

    def read(self, record: Record) -> bytes:
        """A file, or one image of an array as a PPM file."""
        name, hash_sign, number = record.path.partition("#")
        if not hash_sign:
            return super().read(record)
        image = self._array(name)[int(number)]
        height, width, _ = image.shape
        return bytes(b"P6 %d %d 255\n" % (width, height) + image.tobytes())

    def __getstate__(self) -> dict[str, object]:
        """Loader workers map the arrays anew: a pickled map would carry every image along."""
        return {**self.__dict__, "_arrays": {}}

    def _refuse_without_images(self, wanted: str) -> None:
        if not self.has_images:
            raise DataError(
                f"{wanted!r} of {self.title} needs cam1 ... cam6 under {self.root}; only AGW's arrays are there"
            )

    @functools.cached_property
    def _cells(self) -> dict[tuple[int, int], list[Record]]:
        """(camera, person) -> records in order of file name."""
        cells: dict[tuple[int, int], list[Record]] = {}
        for camera in range(1, 7):
            modality = Modality.INFRARED if camera in INFRARED_CAMERAS else Modality.VISIBLE
            for folder in sorted((self.root / f"cam{camera}").iterdir()):
                if not folder.name.isdigit() or not folder.is_dir():
                    continue
                person = int(folder.name)
                cells[camera, person] = [
                    Record(f"cam{camera}/{folder.name}/{name}", person, camera, modality) for name in images_in(folder)
                ]
        return cells

    def _cell(self, camera: int, person: int) -> list[Record]:
        return self._cells.get((camera, person), [])

    def _agw_gallery(
        self, cells: Sequence[tuple[int, int]], generator: random.Random, shots: int
    ) -> tuple[Record, ...]:
        """One ``random.choice`` per existing cell, persons ascending, then cameras: bit for bit AGW's galleries."""
        if shots == 1:
            return tuple(generator.choice(self._cell(*cell)) for cell in cells)
        chosen = (generator.sample(self._cell(*cell), min(shots, len(self._cell(*cell)))) for cell in cells)
        return tuple(itertools.chain.from_iterable(chosen))

    def _official_gallery(self, cells: Sequence[tuple[int, int]], trial: int, shots: int) -> tuple[Record, ...]:
        """The first entries of row ``trial`` of each permutation, which counts images from 1."""
        gallery: list[Record] = []
        for camera, person in cells:
            images, order = self._cell(camera, person), self._permutations.get((camera, person))
            if order is None:
                raise DataError(f"rand_perm_cam.mat has no entry for camera {camera}, person {person}")
            if order.shape[0] <= trial or order.shape[1] != len(images):
                raise DataError(
                    f"rand_perm_cam.mat: camera {camera}, person {person} has {order.shape[0]} x {order.shape[1]} "
                    f"entries, but there are {len(images)} images"
                )
            gallery += [images[index - 1] for index in order[trial, :shots].tolist()]
        return tuple(gallery)

    @functools.cached_property
    def _permutations(self) -> Mapping[tuple[int, int], NDArray[np.int64]]:
        """(camera, person) -> 10 x images, from the authors' ``rand_perm_cam.mat``."""
        for place in ("exp/rand_perm_cam.mat", "rand_perm_cam.mat"):
            if (self.root / place).is_file():
                return _read_permutations(self.root / place)
        raise UsageError(
            f"official galleries need exp/rand_perm_cam.mat under {self.root}; it is in evaluation/data_split of "
            "wuancong/SYSU-MM01. See docs/reference/datasets.md."
        )

    def _array_file(self, name: str) -> Path | None:
        """Where AGW's loader reads an array, or where its writer puts it: beside the root, the slash forgotten."""
        parent = self.root.resolve().parent
        places = (self.root / name, parent / name, parent / f"{self.root.resolve().name}{name}")
        return next((place for place in places if place.is_file()), None)

    def _require_arrays(self) -> None:
        for name in itertools.chain.from_iterable(ARRAYS.values()):
            if self._array_file(name) is None:
                raise DataError(
                    f"{self.title} not found under {self.root}: expected {name}. See docs/reference/datasets.md."
                )

    def _array(self, name: str) -> NDArray[np.generic]:
        if name not in self._arrays:
            path = self._array_file(name)
            if path is None:
                raise DataError(f"{self.title}: no {name} in or beside {self.root}. See docs/reference/datasets.md.")
            try:
                self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} is not an array file that can be read ({error})") from error
        return self._arrays[name]

    def _array_records(self) -> list[Record]:
        """Images of the arrays, visible ones first. The arrays do not say which camera took them."""
        self._require_arrays()
        lists = [self.root / "exp" / f"{name}_id.txt" for name in ("train", "val")]
        persons = sorted(self.persons("train") + self.persons("val")) if all(map(Path.is_file, lists)) else None
        records = []
        for modality, (images_name, labels_name) in ARRAYS.items():
            images, labels = self._array(images_name), self._array(labels_name)
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise DataError(f"{images_name}: expected uint8 (N, height, width, 3), found {images.shape}")
            if labels.shape != (len(images),):
                raise DataError(f"{labels_name}: {labels.shape} labels for {len(images)} images")
            if persons is not None and len(labels) and int(labels.max()) >= len(persons):
                raise DataError(f"{labels_name}: label {int(labels.max())}, but exp/ lists {len(persons)} persons")
            for number, label in enumerate(labels.tolist()):
                # Label = rank of the person in ascending order; without exp/ the rank itself is the name.
                person = int(label) if persons is None else persons[int(label)]
                records.append(Record(f"{images_name}#{number}", person, UNKNOWN, modality))
        return records

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Train, val and test share nobody."""
        return (("train", "val"), ("train", "test"), ("val", "test")) if self.has_images else ()

    def audit(self) -> Iterator[Finding]:
        """Compare lists and folders with the published counts, down to the cell for test persons."""
        if not self.has_images:
            return
        yield from self._audit_lists()
        yield from self._audit_names()
        for camera, (persons, images) in ALL_PER_CAMERA.items():
            filled = [cell for (c, _), cell in self._cells.items() if c == camera and cell]
            yield from expect([(f"cam{camera}", len(filled), persons)], "person folders with images")
            yield from expect([(f"cam{camera}", sum(map(len, filled)), images)], "pictures")
        for split, (visible, infrared) in IMAGES_PER_SPLIT.items():
            records = self.records(split)
            visible_images = sum(record.modality == Modality.VISIBLE for record in records)
            yield from expect([(split, visible_images, visible)], "visible images")
            yield from expect([(split, len(records) - visible_images, infrared)], "infrared images")
        for person, counts in published_counts().items():
            for camera, published in enumerate(counts, start=1):
                where = f"cam{camera}/{person:04d}"
                yield from expect([(where, len(self._cell(camera, person)), published)], "pictures")

    def _audit_lists(self) -> Iterator[Finding]:
        for name, published in PERSONS_PER_SPLIT.items():
            listed = self.persons(name)
            yield from expect([(f"exp/{name}_id.txt", len(listed), published)], "persons")
            if len(set(listed)) < len(listed):
                twice = sorted({person for person in listed if listed.count(person) > 1})
                yield Finding("list", f"exp/{name}_id.txt", f"listed twice: {', '.join(map(str, twice))}")
            for person in listed:
                if not any(self._cell(camera, person) for camera in range(1, 7)):
                    yield Finding("missing", f"exp/{name}_id.txt", f"person {person} has no image in any camera")
        unknown = sorted(set(self.persons("test")) ^ set(published_counts()))
        if unknown:
            shown = ", ".join(map(str, unknown[:10]))
            yield Finding("count", "exp/test_id.txt", f"differs from the published test persons by: {shown}")

    def _audit_names(self) -> Iterator[Finding]:
        for camera in range(1, 7):
            for entry in sorted((self.root / f"cam{camera}").iterdir()):
                if not (entry.name.isdigit() and len(entry.name) == 4 and entry.is_dir()):
                    yield Finding("extra", f"cam{camera}/{entry.name}", "not a folder named by four digits")
                elif not 1 <= int(entry.name) <= LAST_PERSON:
                    yield Finding("extra", f"cam{camera}/{entry.name}", f"persons are 1 to {LAST_PERSON}")
        for cell in self._cells.values():
            for record in cell:
                name = record.path.rsplit("/", 1)[1]
                if not (len(name) == 8 and name[:4].isdigit() and name.endswith(".jpg")):
                    yield Finding("extra", record.path, "published images are named 0001.jpg, 0002.jpg, ...")

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Two training, one validation and three test persons; the last has no indoor image."""
        layout: dict[str, str | None] = {
            "exp/train_id.txt": "1,2\n",
            "exp/val_id.txt": "334\n",
            "exp/test_id.txt": "6,10,17\n",
        }
        for person, camera in itertools.product((1, 2, 334, 6, 10, 17), range(1, 7)):
            if person == 17 and camera in INDOOR_CAMERAS:
                continue
            for number in range(1, 4):
                layout[f"cam{camera}/{person:04d}/{number:04d}.jpg"] = None
        return layout


@functools.cache
def published_counts() -> Mapping[int, tuple[int, ...]]:
    """Published number of images of each test person in cameras 1 to 6."""
    text = Path(__file__).with_name("sysu_test_counts.json").read_text(encoding="utf-8")
    return {int(person): tuple(counts) for person, counts in json.loads(text).items()}


def _read_permutations(path: Path) -> Mapping[tuple[int, int], NDArray[np.int64]]:
    """Six cells, one a camera, of 333 cells, one a person, of a 10 x images matrix."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError("reading rand_perm_cam.mat needs scipy: pip install dapg[mat]") from error
    empty = np.empty((0, 0), dtype=np.int64)
    permutations: dict[tuple[int, int], NDArray[np.int64]] = {}
    try:
        for camera, persons in enumerate(loadmat(path)["rand_perm_cam"].ravel(), start=1):
            for person, order in enumerate(persons.ravel(), start=1):
                permutations[camera, person] = np.atleast_2d(order).astype(np.int64) if order.size else empty
    except NotImplementedError as error:
        raise DataError(f"{path} was saved as MATLAB 7.3; take the file of wuancong/SYSU-MM01 as it is") from error
    except Exception as error:  # scipy's reader raises many kinds for a damaged file
        raise DataError(
            f"{path} does not hold the cell array rand_perm_cam ({type(error).__name__}: {error})"
        ) from error
    return permutations
