"""Renders a data set of synthetic people: SYSU-MM01's or RegDB's layout, with the truth of every image beside it.

A person is one unit of work. What an image shows is drawn from (seed, person, camera, number of the image) and
nothing else, so that one process and many write the same files.
"""

import copy
import hashlib
import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dapg.core import shards
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import UsageError
from dapg.core.files import atomic_path
from dapg.core.images import encode
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.core.launch import launch
from dapg.core.ranges import Count, CountOrZero, JpegQuality, Pixels, Seed
from dapg.core.run_folder import RunFolder
from dapg.core.settings import RUN_ONLY, run_only
from dapg.core.shards import RunShard
from dapg.core.types import JsonObject
from dapg.synth.arrays import Array, random_from
from dapg.synth.kit import Kit
from dapg.synth.poses import CANONICAL_YAWS, Pose, canonical_pose, draw_pose
from dapg.synth.wardrobe import Person, draw_person

if TYPE_CHECKING:
    from dapg.synth.cameras import Camera, View
    from dapg.synth.figure import Figure

ARCHIVE = "people.zip"
ANNOTATIONS = "annotations.jsonl"
HIDDEN = "hidden/unlabelled_persons.jsonl"
"""Who the unlabelled persons are, apart from everything a method may read."""
REGDB_TRIALS = 10
REGDB_IMAGES = 10
JOINT_DEPTH = {"hip": 2.0, "shoulder": 1.2, "neck": 1.6, "knee": 1.3, "ankle": 1.1, "eye": 0.4, "nose": 0.3, "ear": 0.4}
"""How deep (dm) a joint lies below what covers it when it counts as visible; others 0.9."""


@dataclass(frozen=True)
class Settings:
    """What to render, and where to."""

    out: Path = field(metadata=RUN_ONLY)
    """Folder of the new data set."""
    assets: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder that holds makehuman_cc0 and backgrounds_cc0; DAPG_SYNTH_ASSETS when not given."""
    persons: CountOrZero = 220
    """Labelled persons of all splits together."""
    validation_persons: CountOrZero | None = None
    """How many of them validate; a share of 1/11 when not given (SYSU-MM01 style)."""
    test_persons: CountOrZero | None = None
    """How many of them test; a share of 5/11 when not given (SYSU-MM01 style)."""
    pictures_per_camera: Count = 2
    """Images of a person in each camera (SYSU-MM01 style; RegDB's are ten and ten)."""
    unlabelled: CountOrZero = 0
    """Visible images of further persons, without labels."""
    unlabelled_persons: CountOrZero | None = None
    """How many persons they show, each at least twice; persons of one to five images when not given."""
    style: Literal["sysu", "regdb"] = "sysu"
    """Layout and cameras: SYSU-MM01 (near infrared) or RegDB (thermal)."""
    poses: Literal["varied", "canonical"] = "varied"
    """Everyday poses, or the four canonical views (front, left, back, right) of the same persons."""
    height: Pixels = 192
    """Rows of an image."""
    width: Pixels = 96
    """Columns of an image."""
    unlabelled_height: Pixels | None = None
    """Rows of an unlabelled image; as of the others when not given."""
    unlabelled_width: Pixels | None = None
    """Columns of an unlabelled image; as of the others when not given."""
    encoding: Literal["jpeg", "webp"] = "jpeg"
    """File format (SYSU-MM01 style; RegDB's are BMP); webp takes half the space at the same look."""
    quality: JpegQuality = 85
    """Quality of the stored images, 1 to 100."""
    archive: bool = False
    """Write one zip file in place of a tree of folders."""
    seed: Seed = 0
    """Other seeds give other persons and images."""
    engine: EngineSettings = run_only(EngineSettings(workers=0))
    """Who does the work."""

    def shares(self) -> tuple[int, int]:
        """How many persons validate and how many test: SYSU-MM01's shares where they are not given."""
        validation = self.persons // 11 if self.validation_persons is None else self.validation_persons
        test = self.persons * 5 // 11 if self.test_persons is None else self.test_persons
        return validation, test

    def splits(self) -> dict[str, list[int]]:
        """Person numbers of ``train``, ``val`` and ``test``: no person is in two."""
        validation, test = self.shares()
        train = self.persons - validation - test
        numbers = list(range(1, self.persons + 1))
        return {
            "train": numbers[:train],
            "val": numbers[train : train + validation],
            "test": numbers[train + validation :],
        }

    def size(self, labelled: bool) -> tuple[int, int]:
        """Rows and columns of an image."""
        if labelled:
            return self.height, self.width
        return self.unlabelled_height or self.height, self.unlabelled_width or self.width

    def check(self) -> None:
        """Refuse settings that make no data set.

        Raises:
            UsageError: names the setting and its range.
        """
        if self.persons < 0 or self.unlabelled < 0 or self.persons + self.unlabelled == 0:
            raise UsageError("nothing to render: give --persons or --unlabelled a number above 0")
        if self.persons > 9999:
            raise UsageError("--persons goes up to 9999: SYSU-MM01 writes persons with four digits")
        validation, test = self.shares()
        if min(validation, test) < 0 or validation + test > self.persons:
            raise UsageError(
                f"{validation} validation and {test} test persons do not fit into {self.persons} persons; lower "
                "--validation_persons or --test_persons"
            )
        if not 1 <= self.pictures_per_camera <= 9999:
            raise UsageError("--pictures_per_camera must lie in 1 ... 9999")
        if self.unlabelled_persons is not None and not 0 < 2 * self.unlabelled_persons <= self.unlabelled:
            raise UsageError("--unlabelled_persons needs two --unlabelled images of each of them")
        for height, width in (self.size(labelled=True), self.size(labelled=False)):
            if height < 32 or width < 16:
                raise UsageError("images must have at least 32 rows and 16 columns")
        if not 1 <= self.quality <= 100:
            raise UsageError("--quality must lie in 1 ... 100")
        if self.style == "regdb" and (self.unlabelled or self.poses == "canonical"):
            raise UsageError("--unlabelled and --poses canonical go with --style sysu")
        if self.style == "regdb" and self.persons % 2:
            raise UsageError("RegDB trains on one half of the persons and tests on the other: give an even --persons")


@dataclass(frozen=True)
class Picture:
    """One rendered image: where it goes, its encoded bytes, and what is known about it."""

    path: str
    data: bytes
    truth: JsonObject


def render_dataset(settings: Settings) -> Path:
    """Render all images, lists and annotations; the folder they are in.

    A finished folder with equal settings is left as it is. A killed call goes on with the first person who is missing:
    until all are there, the images of each are in a file below ``parts``.

    Raises:
        UsageError: impossible settings, or a folder that holds something else.
        DataError: the kit or a package is missing.
    """
    settings.check()
    Kit(settings.assets)  # fail before the folder is made
    import dapg.synth.raster  # noqa: F401  (the same for a missing package)

    parts = settings.out / "parts"
    stage = RunFolder(settings.out, settings, "data synth")
    finished = stage.open()
    stage.close()  # workers of several commands may share the folder; the files of each person are written atomically
    if finished is None:
        people = _people(settings)
        sizes = {person: job.pictures for person, job in people.items()}
        start = partial(_start, settings, parts)
        launch(shards.Job("data synth", settings.out, sizes, "picture", start), settings.engine)
    stage.alone = True
    try:
        if stage.open() is None:
            stage.finish(_join(settings, [parts / f"{person}.zip" for person in _people(settings)]))
        shutil.rmtree(parts, ignore_errors=True)  # after the result: a kill before it must not cost them
    finally:
        stage.close()
    return settings.out


def _people(settings: Settings) -> "dict[str, Job]":
    """What is to be rendered of each person, by shard."""
    return {f"{number:06d}": job for number, job in enumerate(_jobs(settings))}


def _start(settings: Settings, parts: Path) -> RunShard:
    """Renders the images of a person into one file."""
    people = _people(settings)

    def run_shard(person: str) -> list[Path]:
        images = render_job(settings, people[person])
        file = parts / f"{person}.zip"
        with _zip_store(file) as store:
            for image in images:
                store.write(image.path, image.data)
            store.write(ANNOTATIONS, _lines([image.truth for image in images]))
        return [file]

    return run_shard


def _read_part(file: Path) -> Iterator[Picture]:
    with zipfile.ZipFile(file) as part:
        for line in part.read(ANNOTATIONS).decode("utf-8").splitlines():
            truth = json.loads(line)
            yield Picture(truth["path"], part.read(truth["path"]), truth)


def _join(settings: Settings, files: list[Path]) -> JsonObject:
    """Write the data set from the files of all persons."""
    digest = hashlib.sha256()
    count = size = 0
    truths: list[JsonObject] = []
    hidden: list[JsonObject] = []
    with _open_store(settings) as store:
        for image in itertools.chain.from_iterable(map(_read_part, files)):
            store.write(image.path, image.data)
            digest.update(f"{image.path}\0".encode() + hashlib.sha256(image.data).digest())
            size += len(image.data)
            truths.append(_known(image.truth, hidden))
            count += 1
        truths.sort(key=lambda truth: str(truth["path"]))
        hidden.sort(key=lambda truth: str(truth["path"]))
        annotations = _lines(truths)
        store.write(ANNOTATIONS, annotations)
        if hidden:
            store.write(HIDDEN, _lines(hidden))
        for name, text in _lists(settings, truths).items():
            store.write(name, text.encode())
        store.write("LICENCE.txt", LICENCE.encode())
    return {
        "pictures": count,
        "bytes": size,
        "pictures_sha256": digest.hexdigest(),
        "annotations_sha256": hashlib.sha256(annotations).hexdigest(),
        "numpy": np.__version__,
    }


LICENCE = """Images of people who do not exist, rendered by dapg (`dapg data synth`, see docs/reference/synthetic.md).

They may be used for any purpose: CC0 1.0 Universal, https://creativecommons.org/publicdomain/zero/1.0/

Made from assets under CC0 1.0: body, clothes, hair, rig and textures of MakeHuman
(makehumancommunity/makehuman-assets and makehumancommunity/mpfb2) and background panoramas.
"""


def _known(truth: JsonObject, hidden: list[JsonObject]) -> JsonObject:
    """The truth a method may read; who an unlabelled person is goes to ``hidden``."""
    if truth["split"] != "unlabelled":
        return truth
    hidden.append({"path": truth["path"], "person": truth["person"], "garments": truth["garments"]})
    return {key: None if key == "person" else value for key, value in truth.items() if key != "garments"}


def _lines(rows: list[JsonObject]) -> bytes:
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()


# ---- what is to be done --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One person and the files their images become."""

    group: Literal["labelled", "unlabelled"]
    number: int
    split: str
    paths: tuple[str, ...]
    """For unlabelled persons: their images' names, given out at random so that order tells nothing."""
    pictures: int


def _jobs(settings: Settings) -> list[Job]:
    per_person = 2 * REGDB_IMAGES if settings.style == "regdb" else 6 * _per_camera(settings)
    jobs = [
        Job("labelled", number, split, (), per_person)
        for split, numbers in settings.splits().items()
        for number in numbers
    ]
    generator = random_from(settings.seed, "unlabelled names")
    suffix = _suffix(settings)
    names = [f"unlabelled/{i + 1:05d}{suffix}" for i in generator.permutation(settings.unlabelled)]
    for number, count in enumerate(_shares(settings, generator), start=1):
        mine, names = names[:count], names[count:]
        jobs.append(Job("unlabelled", number, "unlabelled", tuple(mine), len(mine)))
    return jobs


def _shares(settings: Settings, generator: np.random.Generator) -> list[int]:
    """How many images each hidden person gets."""
    persons, left = settings.unlabelled_persons, settings.unlabelled
    if persons is not None:
        return [2 + int(more) for more in generator.multinomial(left - 2 * persons, np.full(persons, 1 / persons))]
    shares = []
    while left:
        shares.append(min(int(generator.integers(1, 6)), left))
        left -= shares[-1]
    return shares


def _suffix(settings: Settings) -> str:
    return ".webp" if settings.encoding == "webp" else ".jpg"


def _per_camera(settings: Settings) -> int:
    return len(CANONICAL_YAWS) if settings.poses == "canonical" else settings.pictures_per_camera


# ---- one person ----------------------------------------------------------------------------------------------------

_kits: dict[Path | None, Kit] = {}


def _kit(settings: Settings) -> Kit:
    if settings.assets not in _kits:
        _kits[settings.assets] = Kit(settings.assets)
    return _kits[settings.assets]


def render_job(settings: Settings, job: Job) -> list[Picture]:
    """All images of one person."""
    from dapg.synth.figure import Figure

    kit = _kit(settings)
    figure = Figure(kit, draw_person(settings.seed, job.group, job.number))
    if job.group == "unlabelled":
        return _unlabelled(settings, kit, figure, job)
    if settings.style == "regdb":
        return _regdb(settings, kit, figure, job)
    return _sysu(settings, kit, figure, job)


def _sysu(settings: Settings, kit: Kit, figure: "Figure", job: Job) -> list[Picture]:
    from dapg.synth.cameras import SYSU_CAMERAS, draw_view

    images = []
    carries = figure.person.bag.cut == "hand bag"
    canonical = settings.poses == "canonical"
    shots = {name: _Shot(settings, kit, figure, *_canonical(name)) for name in CANONICAL_YAWS} if canonical else {}
    for camera in SYSU_CAMERAS:
        track = random_from(settings.seed, "track", job.number, camera.number)
        yaw, light, place = float(track.uniform(0, 360)), float(track.uniform(0.85, 1.15)), float(track.uniform(0, 512))
        for index in range(_per_camera(settings)):
            generator = random_from(settings.seed, settings.poses, job.number, camera.number, index)
            if canonical:
                shot = shots[list(CANONICAL_YAWS)[index]].at(place)
            else:
                pose = draw_pose(generator, carries)
                view = draw_view(generator, camera, yaw + float(generator.normal(0, 28)), light, place)
                shot = _Shot(settings, kit, figure, pose, view)
            path = f"cam{camera.number}/{job.number:04d}/{index + 1:04d}{_suffix(settings)}"
            images.append(shot.take(camera, generator, path, job.number, job.split))
    return images


def _canonical(name: str) -> "tuple[Pose, View]":
    """Pose and view of a canonical image; all cameras see one geometry, only their backgrounds differ."""
    from dapg.synth.cameras import canonical_view

    return replace(canonical_pose(), kind=f"canonical {name}"), canonical_view(CANONICAL_YAWS[name])


def _unlabelled(settings: Settings, kit: Kit, figure: "Figure", job: Job) -> list[Picture]:
    from dapg.synth.cameras import draw_street_camera, draw_view

    images = []
    carries = figure.person.bag.cut == "hand bag"
    for index, path in enumerate(job.paths):
        generator = random_from(settings.seed, "unlabelled", job.number, index)
        camera = draw_street_camera(generator, kit)
        place, yaw = float(generator.uniform(0, 512)), float(generator.uniform(0, 360))
        pose, view = draw_pose(generator, carries), draw_view(generator, camera, yaw, 1.0, place)
        shot = _Shot(settings, kit, figure, pose, view, labelled=False)
        images.append(shot.take(camera, generator, path, job.number, job.split))
    return images


def _regdb(settings: Settings, kit: Kit, figure: "Figure", job: Job) -> list[Picture]:
    """Ten moments, each seen by the visible and the thermal camera at once, all from the front or all from behind."""
    from dapg.synth.cameras import REGDB_CAMERAS, draw_view

    images = []
    track = random_from(settings.seed, "regdb track", job.number)
    side = str(track.choice(["front", "back"]))
    yaw = (0.0 if side == "front" else 180.0) + float(track.normal(0, 18))
    place = float(track.uniform(0, 512))
    carries = figure.person.bag.cut == "hand bag"
    for index in range(REGDB_IMAGES):
        generator = random_from(settings.seed, "regdb", job.number, index)
        pose = draw_pose(generator, carries)
        view = draw_view(generator, REGDB_CAMERAS[0], yaw + float(generator.normal(0, 10)), 1.0, place)
        shot = _Shot(settings, kit, figure, pose, view)  # one geometry for both cameras
        number = (job.number - 1) * REGDB_IMAGES + index + 1
        for camera, folder, letter in zip(REGDB_CAMERAS, ("Visible", "Thermal"), "vt", strict=True):
            path = f"{folder}/{job.number}/{figure.person.sex}_{side}_{letter}_{number:05d}_{job.number}.bmp"
            images.append(shot.take(camera, generator, path, job.number, job.split))
    return images


class _Shot:
    """The geometry of one pose and view; every camera that sees it exposes the same G-buffer."""

    def __init__(
        self, settings: Settings, kit: Kit, figure: "Figure", pose: Pose, view: "View", labelled: bool = True
    ) -> None:
        from dapg.synth.cameras import SUPERSAMPLING, occlusion, project
        from dapg.synth.paint import paint
        from dapg.synth.raster import rasterise

        self._settings, self._kit, self._pose, self._view = settings, kit, pose, view
        self._person: Person = figure.person
        self._size = height, width = settings.size(labelled)
        size = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        scene, key_points = figure.posed(pose)
        projection = project(scene, figure.drawn, view, *size)
        points = projection(scene.vertices.astype(np.float64))
        self._turn = projection.turn
        self._buffer = rasterise(scene, points.astype(np.float32), *size)
        self._looks = paint(figure, self._buffer)
        covered = occlusion(view, *size)
        self._truth = {
            "key_points": _visibility(projection(key_points), self._buffer.depth, covered, SUPERSAMPLING),
            "box": _box(points[figure.drawn], height, width, SUPERSAMPLING),
            "mask_area": round(float((self._buffer.mask & ~covered).mean()), 3),
        }

    def at(self, place: float) -> "_Shot":
        """The same geometry before another part of the panorama."""
        moved = copy.copy(self)
        moved._view = replace(self._view, place=place)
        return moved

    def take(self, camera: "Camera", generator: np.random.Generator, path: str, person: int, split: str) -> Picture:
        """What one camera records, encoded, with its truth."""
        from dapg.synth.cameras import expose

        view = self._view
        pixels = expose(self._kit, camera, view, self._buffer, self._looks, self._turn, generator)
        truth = {
            "path": path,
            "person": person,
            "camera": camera.number,
            "modality": camera.light,
            "split": split,
            **self._truth,
            "yaw": round(view.yaw, 1),
            "elevation": round(view.elevation, 1),
            "occluder": view.occluder[0],
            "pose": self._pose.description(),
            "garments": self._person.garments(),
        }
        return Picture(path, _encode(pixels, path, self._settings.quality), truth)


def _encode(pixels: UInt8[Array, "H W 3"], path: str, quality: int) -> bytes:
    image = Image.fromarray(pixels)
    if path.endswith(".bmp"):
        return encode(image, "BMP")
    if path.endswith(".webp"):
        return encode(image, "WEBP", quality=quality, method=6)
    return encode(image, "JPEG", quality=quality, optimize=True)


def _visibility(
    points: Float[Array, "18 3"], depth: Float[Array, "H W"], covered: Bool[Array, "H W"], factor: int
) -> list[list[float | int]]:
    """x, y in stored pixels and 2 visible, 1 hidden, 0 outside the image."""
    rows = []
    for name, (x, y, z) in zip(KEY_POINT_NAMES, points, strict=True):
        inside = 0 <= x < depth.shape[1] and 0 <= y < depth.shape[0]
        flag = 0
        if inside:
            limit = JOINT_DEPTH.get(name.rsplit("_", 1)[-1], 0.9)
            hidden = covered[int(y), int(x)] or depth[int(y), int(x)] > z + limit
            flag = 1 if hidden else 2
        rows.append([round(float(x) / factor, 1), round(float(y) / factor, 1), flag])
    return rows


def _box(points: Float[Array, "N 3"], height: int, width: int, factor: int) -> list[int]:
    """Left, top, right, bottom of the person inside the image, stored pixels."""
    low, high = points.min(0) / factor, points.max(0) / factor
    return [
        max(0, int(np.floor(low[0]))),
        max(0, int(np.floor(low[1]))),
        min(width, int(np.ceil(high[0]))),
        min(height, int(np.ceil(high[1]))),
    ]


# ---- lists and files -----------------------------------------------------------------------------------------------


def _lists(settings: Settings, truths: list[JsonObject]) -> dict[str, str]:
    """Split lists as the layout has them: relative path -> text."""
    if not settings.persons:
        return {}
    if settings.style == "regdb":
        return _regdb_lists(settings, truths)
    splits = settings.splits()
    numbers = {"train": splits["train"], "val": splits["val"], "test": splits["test"]}
    numbers["available"] = sorted(splits["train"] + splits["val"] + splits["test"])
    return {f"exp/{name}_id.txt": ",".join(map(str, ids)) + "\n" for name, ids in numbers.items()}


def _regdb_lists(settings: Settings, truths: list[JsonObject]) -> dict[str, str]:
    """Ten random halves; labels are numbered anew inside each half."""
    paths: dict[tuple[str, int], list[str]] = {}
    for truth in truths:
        folder = str(truth["path"]).split("/")[0].lower()
        paths.setdefault((folder, int(truth["person"])), []).append(str(truth["path"]))
    lists = {}
    for trial in range(1, REGDB_TRIALS + 1):
        order = random_from(settings.seed, "regdb trial", trial).permutation(settings.persons) + 1
        half = settings.persons // 2
        for split, ids in {"train": sorted(order[:half]), "test": sorted(order[half:])}.items():
            for folder in ("visible", "thermal"):
                rows = [
                    f"{path} {label}" for label, person in enumerate(ids) for path in sorted(paths[folder, int(person)])
                ]
                lists[f"idx/{split}_{folder}_{trial}.txt"] = "\n".join(rows) + "\n"
    return lists


class _Store(Protocol):
    def write(self, path: str, data: bytes) -> None:
        """Put one file there."""


def _open_store(settings: Settings) -> AbstractContextManager[_Store]:
    return _zip_store(settings.out / ARCHIVE) if settings.archive else nullcontext(_FolderStore(settings.out))


@contextmanager
def _zip_store(path: Path) -> "Iterator[_ZipStore]":
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield _ZipStore(archive)


class _FolderStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, path: str, data: bytes) -> None:
        # No fsync for each image: result.json, written last, says that all are there.
        with atomic_path(self._folder / path, flushed=False) as temporary:
            temporary.write_bytes(data)


class _ZipStore:
    """One zip with a fixed date on every member, so that equal content gives an equal file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, path: str, data: bytes) -> None:
        member = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
        member.external_attr = 0o644 << 16
        member.create_system = 3
        packed = path.endswith((".jpg", ".bmp", ".webp"))
        self._archive.writestr(member, data, zipfile.ZIP_STORED if packed else zipfile.ZIP_BZIP2)
