"""Synthetic people: the set that ships inside the package, or a larger one made by ``dapg data synth``.

SYSU-MM01's layout, cameras and rules (see ``dapg.synth``), so that everything runs from nothing. The images show
that the machinery works and how methods compare on them; they say nothing about results on SYSU-MM01.
"""

import functools
import json
import os
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.errors import DataError, UsageError
from dapg.core.files import ASSETS, sha256
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.core.schema import checked, parse_json_lines
from dapg.core.types import JsonObject, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import images_below


class _Row(TypedDict):
    """A line of the annotations; the rest is checked when it is asked for."""

    path: str


EMBEDDED = ASSETS / "synthetic" / "people.zip"
VERSIONS = {
    "673e450dc5d02afbd356d2d2bb9558f9dd8eec9249dc0667b34d156a37a21f19": "1",
    "2f54677e33f53ad88a2773abb9f73541472c70ea8299e63ab3881435e82c80c1": "2",
}
"""SHA-256 of an embedded archive -> its version. The last is in the package; copies of earlier ones are read too."""
ARCHIVE = "people.zip"
ANNOTATIONS = "annotations.jsonl"
HIDDEN = "hidden/unlabelled_persons.jsonl"
"""Who the unlabelled persons are and what they wear."""
VISIBLE_CAMERAS, INDOOR_CAMERAS, INFRARED_CAMERAS = (1, 2, 4, 5), (1, 2), (3, 6)
TRIALS = 10
HUNDRED = 100
"""Persons in a gallery of the modes whose name ends in this number."""

# Cameras 2 and 3 look into the same room: a query of camera 3 leaves out all of camera 2 (SYSU-MM01's rule).
SAME_ROOM = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5, 6: 6}


class Synthetic(Dataset):
    """People who do not exist, in four visible and two near-infrared cameras."""

    title: ClassVar[str] = "Synthetic people"
    infrared = "near"
    places = SAME_ROOM
    licence: ClassVar[str] = "CC0-1.0"
    access: ClassVar[str] = "ships with the package; larger sets: dapg data synth (docs/reference/synthetic.md)"
    splits: ClassVar[tuple[str, ...]] = ("unlabelled", "train", "val", "test")
    modes: ClassVar[tuple[str, ...]] = ("all", "indoor", "visible", "validation", "all-100", "visible-100")
    embedded: ClassVar[bool] = True
    """The set needs no root: it is inside the package."""

    def __init__(self, root: Path | str | None = None) -> None:
        """Open the embedded set (no ``root``), or one made by ``dapg data synth``: a folder or a ``people.zip``.

        Raises:
            DataError: nothing of that kind is there.
        """
        chosen = EMBEDDED if root is None else Path(root)
        if chosen.is_dir() and (chosen / ARCHIVE).is_file():
            chosen = chosen / ARCHIVE
        super().__init__(chosen)
        self._zip: zipfile.ZipFile | None = None
        self._zip_process = 0
        self._truths: dict[str, JsonObject] | None = None
        self._hidden: dict[str, JsonObject] | None = None
        self._version: str | None = None
        if not chosen.exists():
            raise DataError(f"{self.title} not found: expected {chosen}. See docs/reference/synthetic.md.")
        self._files = self._index()
        if not self._files and not self._free:
            raise DataError(
                f"{self.title} not found under {chosen}: expected cam1/0001/0001.jpg. See docs/reference/synthetic.md."
            )

    def records(self, split: str) -> list[Record]:
        """Every image of a split: persons ascending, visible cameras before infrared ones, then by name.

        Raises:
            UsageError: no such split.
            DataError: the list of the split is missing or damaged.
        """
        self.check_split(split)
        if split == "unlabelled":
            return [Record(path) for path in self._free]
        return [
            record
            for person in self.persons(split)
            for camera in (*VISIBLE_CAMERAS, *INFRARED_CAMERAS)
            for record in self._shots(person, camera)
        ]

    def labelled_split(self) -> str:
        """``train``; ``val`` has other persons."""
        return "train"

    def persons(self, split: str) -> list[int]:
        """Person numbers of ``train``, ``val`` or ``test``, ascending (``exp/<split>_id.txt``, first line).

        Raises:
            DataError: the list is missing or damaged.
        """
        name = f"exp/{split}_id.txt"
        first = (self._bytes(name).decode("utf-8", "replace").splitlines() or [""])[0]
        try:
            return sorted(int(word) for word in first.split(",") if word.strip())
        except ValueError as error:
            raise DataError(f"{self.root}: {name} must hold person numbers parted by commas") from error

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """Ten single-shot trials of ``all`` or ``indoor`` search by SYSU-MM01's rules, or the one of ``visible``.

        In ``all`` and ``indoor`` every infrared test image is a query, and the gallery holds one random image
        of each person and visible camera (1, 2, 4, 5, or 1 and 2), chosen as the AGW code does: Python's generator,
        seeded with the trial's number 0 ... 9 (plus 10 times ``seed``), one ``choice`` per person and camera in
        ascending order. In ``visible`` every visible test image is query and gallery; the query itself is left
        out with all images of its person by its camera. ``validation`` is ``all`` on the validation persons.
        ``all-100`` and ``visible-100`` have the trials of ``all`` and ``visible`` for each 100 test persons in
        ascending order apart, so that scores do not depend on how many persons are tested.

        Raises:
            UsageError: no such mode, or fewer than 100 persons for one that needs them.
        """
        self.check_mode(mode)
        people = self.persons("val" if mode == "validation" else "test")
        kind, _, hundred = mode.partition("-")
        if not hundred:
            return self._trials(people, kind, mode, seed, "")
        if len(people) < HUNDRED:
            raise UsageError(f"mode {mode} needs {HUNDRED} test persons; {self.root} has {len(people)}")
        groups = range(len(people) // HUNDRED)
        return [
            trial
            for group in groups
            for trial in self._trials(people[HUNDRED * group : HUNDRED * (group + 1)], kind, mode, seed, f"{group}.")
        ]

    def _trials(self, people: list[int], kind: str, mode: str, seed: int, prefix: str) -> list[Trial]:
        """The trials of ``kind`` (all, indoor, visible, validation) among these persons, named after ``mode``."""
        if kind == "visible":
            images = tuple(r for p in people for camera in VISIBLE_CAMERAS for r in self._shots(p, camera))
            protocol = Protocol("synthetic people, visible across cameras", same_person_same_camera=True)
            return [Trial(f"{prefix}0", mode, images, images, protocol, comparable=False)]
        query = tuple(r for p in people for camera in INFRARED_CAMERAS for r in self._shots(p, camera))
        cameras = INDOOR_CAMERAS if kind == "indoor" else VISIBLE_CAMERAS
        protocol = Protocol("synthetic people, single-shot", camera_groups=SAME_ROOM, unique_identity_cmc=True)
        return [
            Trial(
                f"{prefix}{number - TRIALS * seed}",
                mode,
                query,
                self._gallery(people, cameras, number),
                protocol,
                comparable=False,
                drawn=f"Python random seeded with {number}, as in AGW",
            )
            for number in range(TRIALS * seed, TRIALS * seed + TRIALS)
        ]

    def _gallery(self, people: list[int], cameras: tuple[int, ...], seed: int) -> tuple[Record, ...]:
        generator = random.Random(seed)
        cells = [self._shots(person, camera) for person in people for camera in cameras]
        return tuple(generator.choice(cell) for cell in cells if cell)

    def _shots(self, person: int, camera: int) -> list[Record]:
        modality = Modality.INFRARED if camera in INFRARED_CAMERAS else Modality.VISIBLE
        return [Record(path, person, camera, modality) for path in self._files.get((person, camera), [])]

    # ---- truth -----------------------------------------------------------------------------------------------------

    def truth(self, record: Record) -> JsonObject:
        """What is known of an image: key points, box, pose, yaw, garments, mask area (docs/reference/synthetic.md).

        Raises:
            DataError: the set has no annotations, or none for this image.
        """
        if self._truths is None:
            self._truths = self._rows(ANNOTATIONS)
        if record.path not in self._truths:
            raise DataError(f"{self.root}: {ANNOTATIONS} knows no image {record.path}")
        return self._truths[record.path]

    def garments(self, record: Record) -> dict[str, str]:
        """What the person wears, in words, by slot (upper, lower, shoes, hair, ...).

        Of unlabelled images it is kept apart from what methods without labels read, as it all but names the person.

        Raises:
            DataError: see ``truth``.
        """
        truth = self.truth(record)
        if "garments" not in truth:
            if self._hidden is None:
                self._hidden = self._rows(HIDDEN)
            truth = self._hidden.get(record.path, {})
        worn: dict[str, str] = checked(truth.get("garments"), dict[str, str], f"{self.root}: garments of {record.path}")
        return worn

    def key_points(self, record: Record) -> Float[Tensor, "18 3"]:
        """Position x, y in pixels of the stored image, and 2 visible, 1 hidden, 0 outside; ``KEY_POINT_NAMES`` order.

        Raises:
            DataError: see ``truth``.
        """
        where = f"{self.root}: key points of {record.path}"
        points = checked(self.truth(record).get("key_points"), list[tuple[float, float, float]], where)
        return torch.tensor(points, dtype=torch.float32)

    def _rows(self, name: str) -> dict[str, JsonObject]:
        if self.root == EMBEDDED:
            return _embedded_rows(name)
        return _rows_in(self._bytes(name), f"{self.root}: {name}")

    @property
    def version(self) -> str | None:
        """The number of an embedded archive, or the beginning of another archive's hash; None for a folder."""
        if self._version is None and self.root.is_file():
            digest = sha256(self.root)
            self._version = VERSIONS.get(digest, digest[:12])
        return self._version

    # ---- files -----------------------------------------------------------------------------------------------------

    def read(self, record: Record) -> bytes:
        """The encoded image. Safe in loader workers: each process opens the archive itself.

        Raises:
            DataError: the image is missing or damaged.
        """
        return self._bytes(record.path)

    def _bytes(self, path: str) -> bytes:
        try:
            return self._archive().read(path) if self.root.is_file() else (self.root / path).read_bytes()
        except KeyError as error:
            raise DataError(f"{self.root} holds no {path}") from error
        except OSError as error:
            raise DataError(f"{self.root / path}: {error.strerror or error}") from error
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.root}: {path} is damaged ({error})") from error

    def _archive(self) -> zipfile.ZipFile:
        # A handle that a forked worker shares with its parent has one position for both: never use it.
        if self._zip is None or self._zip_process != os.getpid():
            try:
                self._zip = zipfile.ZipFile(self.root)
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{self.root} is not a readable zip file ({error})") from error
            self._zip_process = os.getpid()
        return self._zip

    def __getstate__(self) -> dict[str, object]:
        """Without the open archive: spawned workers open their own."""
        return {**self.__dict__, "_zip": None}

    def _names(self) -> list[str]:
        if self.root.is_file():
            return sorted(self._archive().namelist())
        return [path for path in images_below(self.root) if path.startswith(("cam", "unlabelled/"))]

    def _index(self) -> dict[tuple[int, int], list[str]]:
        """(person, camera) -> images by name."""
        names = self._names()
        self._free = [name for name in names if name.startswith("unlabelled/")]
        files: dict[tuple[int, int], list[str]] = {}
        for name in names:
            parts = name.split("/")
            if len(parts) != 3 or not (parts[0].startswith("cam") and parts[0][3:].isdigit() and parts[1].isdigit()):
                continue
            files.setdefault((int(parts[1]), int(parts[0][3:])), []).append(name)
        return files

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Seven persons (4 train, 1 val, 2 test), two images a camera, three unlabelled images."""
        images = [
            f"cam{camera}/{person:04d}/{number:04d}.jpg"
            for camera in range(1, 7)
            for person in range(1, 8)
            for number in (1, 2)
        ]
        images += [f"unlabelled/{number:05d}.jpg" for number in (1, 2, 3)]
        points = [[float(i), float(2 * i), 2] for i in range(len(KEY_POINT_NAMES))]
        lines = [json.dumps({"path": path, "key_points": points}) for path in images]
        lists = {"train": "1,2,3,4", "val": "5", "test": "6,7", "available": "1,2,3,4,5,6,7"}
        layout: dict[str, str | None] = dict.fromkeys(images)
        layout.update({f"exp/{name}_id.txt": f"{ids}\n" for name, ids in lists.items()})
        layout[ANNOTATIONS] = "\n".join(lines) + "\n"
        return layout


@functools.cache
def _embedded_rows(name: str) -> dict[str, JsonObject]:
    """Read once in a process: unpacking takes more than a second."""
    with zipfile.ZipFile(EMBEDDED) as archive:
        return _rows_in(archive.read(name), f"{EMBEDDED}: {name}")


def _rows_in(lines: bytes, where: str) -> dict[str, JsonObject]:
    return {row["path"]: dict(row) for row in parse_json_lines(lines, _Row, where)}
