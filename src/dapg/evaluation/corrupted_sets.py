"""Corrupted test sets: which image gets which corruption, on the fly or as files; always the same ones.

Type, severity and noise of an image follow from a hash of (data set, relative path, repeat, seed), so that they do
not depend on order, batch size or worker count. Images are corrupted one by one, on the CPU and in one thread: on
the same machine and torch build they are equal to the last bit.

``cil`` is the policy behind the published SYSU-C and RegDB-C numbers (MinghuiChen43/CIL-ReID and its visible-infrared
version): visible images only, one of 20 corruptions, severity 1 to 5, after the resize to 288 x 144.
"""

import contextlib
import functools
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Literal, TypedDict

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    folder_lock,
    remove_leftovers,
    sha256,
    write_json,
)
from dapg.core.images import decode, encode, from_numpy, open_rgb, to_pil
from dapg.core.launch import launch
from dapg.core.ranges import CountOrZero, PixelsOrZero, Seed, Severity
from dapg.core.rng import SampleGenerator
from dapg.core.schema import read_json, read_json_lines
from dapg.core.seeds import derive_seed
from dapg.core.settings import run_only
from dapg.core.shards import Job, RunShard, chunk, chunks, forget, piece
from dapg.core.types import JsonObject, Modality, Record, Trial
from dapg.corruptions import library
from dapg.data.base import PARTIAL, POLICY_FILE, Dataset
from dapg.data.compact import CompactRecords
from dapg.data.listing import files_below, inside
from dapg.data.loading import OnBadImage
from dapg.evaluation import corruption_list as lists

Side = Literal["both", "query", "gallery"]
Weather = Literal["picture", "camera", "place"]


@dataclass(frozen=True)
class CorruptionPolicy:
    """Which images are corrupted, and how. The defaults are CIL's, behind the published SYSU-C and RegDB-C."""

    types: tuple[str, ...] = ("all",)
    """Corruptions, families (noise, blur, weather, digital, extra) or groups (all, seen, unseen); drawn uniformly."""
    modality: Literal["visible", "infrared", "both"] = "visible"
    """Kind of light that is corrupted. Infrared: noise is equal on all channels, and none takes saturate's place."""
    severities: tuple[Severity, ...] = library.SEVERITIES
    """1 (slight) to 5 (severe), drawn uniformly."""
    side: Side = "both"
    """Corrupt queries, gallery images or both."""
    height: PixelsOrZero = 288
    """Rows the image is resized to before it is corrupted; 0, also for the width, corrupts at its own size."""
    width: PixelsOrZero = 144
    """Columns likewise."""
    seed: Seed = 0
    """Of types, severities and noise."""
    weather: Weather = "picture"
    """What shares type and severity: nothing (each image has its own), the images of a camera, or those of all
    cameras in one place, visible and infrared alike."""

    def __post_init__(self) -> None:
        """Refuse unknown corruptions, no severity and small sizes.

        Raises:
            UsageError: what is wrong.
        """
        library.expand(self.types)
        if not self.severities:
            raise UsageError("severities are some of 1 ... 5, not none")
        if (self.height, self.width) != (0, 0) and min(self.height, self.width) < 32:
            raise UsageError(f"images are corrupted at 32 pixels or more, not at {self.height} x {self.width}")

    def provenance(self) -> JsonObject:
        """The fixed list that its images follow, for results (``corruption_list.provenance``)."""
        return lists.provenance(self.types, self.height, self.width, self.seed)

    def names(self, modality: Modality) -> tuple[str, ...]:
        """The corruptions of a kind of light; none at all where it stays clean."""
        if self.modality not in ("both", modality.name.lower()):
            return ()
        return _names(self.types, modality == Modality.INFRARED)


@functools.lru_cache(maxsize=256)
def _names(types: tuple[str, ...], infrared: bool) -> tuple[str, ...]:
    """ML-MDA's rule for infrared images: no saturate, as they have no colour, and ``none`` at the end instead."""
    names = library.expand(types)
    if not infrared or "saturate" not in names:
        return names
    return (*(name for name in names if name not in ("saturate", library.NONE)), library.NONE)


def policies() -> dict[str, CorruptionPolicy]:
    """The named policies.

    ``cil``, the groups and each family corrupt visible images only; ``mlmda-C`` is the same as ``cil`` under ML-MDA's
    name, ``mlmda-C*`` corrupts both kinds of light independently, ``infrared`` only the infrared images. A fixed list
    is one too (``vi-c-1.0``), and so is each of its protocols (``vi-c-1.0/both-query``) and of ``WEATHER``'s.
    """
    known = {
        **_of_lists(),
        "cil": CorruptionPolicy(),
        "mlmda-C": CorruptionPolicy(),
        "mlmda-C*": CorruptionPolicy(modality="both"),
        "infrared": CorruptionPolicy(modality="infrared"),
    }
    for name in (*library.GROUPS, *library.families()):
        known[name] = CorruptionPolicy(types=(name,))
    return known


WEATHER: Mapping[str, JsonObject] = {
    "both-cameras": {"modality": "both", "side": "both", "weather": "camera"},
    "both-places": {"modality": "both", "side": "both", "weather": "place"},
}
"""Protocols of every list in which cameras have their own weather, or share it where they share a place (after ML-MDA's
and MMSF's cameras that are co-located or not)."""


def protocols_of(fixed: lists.CorruptionList) -> dict[str, CorruptionPolicy]:
    """The policies of a list, by the name of the protocol; the first is its default."""
    plain = CorruptionPolicy(fixed.types, "visible", fixed.severities, "both", fixed.height, fixed.width, fixed.seed)
    return {key: replace(plain, **parts) for key, parts in {**fixed.protocols, **WEATHER}.items()}


def _of_lists() -> dict[str, CorruptionPolicy]:
    """Policies of the fixed lists, by list and by list/protocol."""
    policies: dict[str, CorruptionPolicy] = {}
    for name in lists.names():
        chosen = {f"{name}/{key}": own for key, own in protocols_of(lists.corruption_list(name)).items()}
        policies |= {name: next(iter(chosen.values())), **chosen}
    return policies


def policy(name: str) -> CorruptionPolicy:
    """A named policy, or one that does a single corruption, at one severity if written ``fog-3``.

    Raises:
        UsageError: neither.
    """
    known = policies()
    if name in known:
        return known[name]
    kind, dash, level = name.rpartition("-")
    if dash and level.isdigit() and kind in library.corruptions():
        return CorruptionPolicy(types=(kind,), severities=(int(level),))
    if name in library.corruptions():
        return CorruptionPolicy(types=(name,))
    choices = [*known, *library.names()]
    raise UsageError(f"no corruption policy is called {name!r}{nearest(name, choices)}; known: {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What happens to one image."""

    name: str
    """Corruption, or ``none``."""
    severity: int
    """1 to 5; 0 for ``none``."""
    seed: int
    """Of its noise."""


CLEAN = Assignment(library.NONE, 0, 0)


def assign(
    policy: CorruptionPolicy, data_set: str, record: Record, repeat: int = 0, places: Mapping[int, int] | None = None
) -> Assignment:
    """The corruption of an image, from its data set's name and its relative path alone.

    Args:
        policy: what is done.
        data_set: its name.
        record: the image.
        repeat: another one is another draw.
        places: the data set's ``places``, for a policy by place; a camera that it does not name is a place of its own.
    """
    names = policy.names(record.modality)
    if not names:
        return CLEAN
    key = ("corruption", data_set, record.name, repeat, policy.seed)
    drawn = key
    if policy.weather != "picture":
        spot = record.camera if policy.weather == "camera" else (places or {}).get(record.camera, record.camera)
        drawn = ("corruption", data_set, f"{policy.weather} {spot}", repeat, policy.seed)
        names = library.expand(policy.types)  # one list for both kinds of light, so that they can share
    name = names[derive_seed(*drawn, "type") % len(names)]
    if name == library.NONE or name not in policy.names(record.modality):  # nothing to saturate in infrared light
        return CLEAN
    severity = policy.severities[derive_seed(*drawn, "severity") % len(policy.severities)]
    return Assignment(name, severity, derive_seed(*key, "noise"))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """How work is split over threads decides over last bits, so inside it is not split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def corrupt_image(
    image: UInt8[Tensor, "3 H W"], assignment: Assignment, equal_channels: bool = False
) -> UInt8[Tensor, "3 H W"]:
    """One corrupted image; the same arguments give the same bits whatever runs beside.

    Raises:
        UsageError: the image has fewer than 32 pixels on a side.
    """
    if assignment.name == library.NONE:
        return image
    with one_thread():
        streams = SampleGenerator(torch.tensor([assignment.seed]))
        return library.corrupt(
            image[None], assignment.name, assignment.severity, streams, equal_channels=equal_channels
        )[0]


def corrupt_record(
    data: bytes, record: Record, policy: CorruptionPolicy, assignment: Assignment
) -> UInt8[Tensor, "3 H W"]:
    """Decode an image, resize it if the policy says so, and corrupt it.

    Raises:
        DataError: the image cannot be read, or is too small to be corrupted at its own size.
    """
    if policy.height:
        image = decode(data, (policy.height, policy.width), record.box, record.path)
    else:
        whole = open_rgb(data, record.path)
        if record.box is not None:
            whole = whole.crop(record.box)
        if min(whole.size) < 32:
            raise DataError(
                f"{record.path}: {whole.width} x {whole.height} pixels are too few for a corruption; "
                "give the policy a height and width, so that it is resized before"
            )
        if assignment.name == "rain" and whole.height <= _RAIN_ROWS[0]:
            rows = _RAIN_ROWS[1]
            whole = whole.resize((max(32, round(whole.width * rows / whole.height)), rows), Image.Resampling.BILINEAR)
        image = from_numpy(np.asarray(whole))
    return corrupt_image(image, assignment, record.modality == Modality.INFRARED)


_RAIN_ROWS = (60, 65)
"""CIL-ReID enlarges images of at most 60 rows to 65 before rain, whose longest drops are 60 pixels high."""


class CorruptedDataset(Dataset):
    """A data set seen through a policy: same splits, trials, persons and cameras, corrupted images.

    Images come out of ``read`` as BMP files, not compressed and so without loss, and every loader and stage works as
    before. Records carry what ``read`` must know in their path: a box that was cut out (``#left,top,right,bottom``),
    and ``#clean`` for the side of a trial that the policy leaves alone.
    """

    title = "corrupted data set"
    licence = "that of the data set below"
    access = "made from a data set at hand"
    splits = ()

    def __init__(self, dataset: Dataset, policy: CorruptionPolicy, repeat: int = 0) -> None:
        self.root = dataset.root
        self.dataset = dataset
        self.policy = policy
        self.repeat = repeat

    def records(self, split: str) -> list[Record]:
        """The split of the data set below; all of it is corrupted, whatever the policy's side."""
        return self.views_of(self.dataset.records(split))

    def views_of(self, records: Sequence[Record]) -> list[Record]:
        """Records of the data set below as ones of this."""
        return [_unboxed(record) for record in records]

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """The trials of the data set below; the side that stays clean is marked."""
        return [self.mark(trial) for trial in self.dataset.trials(mode, seed)]

    def mark(self, trial: Trial) -> Trial:
        """A trial of the data set below as one of this."""
        query = tuple(_unboxed(record, self.policy.side == "gallery") for record in trial.query)
        gallery = tuple(_unboxed(record, self.policy.side == "query") for record in trial.gallery)
        return replace(trial, query=query, gallery=gallery)

    def default_split(self) -> str:
        """That of the data set below."""
        return self.dataset.default_split()

    def original(self, record: Record) -> Record:
        """The record of the data set below."""
        return _original(record)[0]

    def assignment(self, record: Record) -> Assignment:
        """What happens to a record of this data set."""
        original, clean = _original(record)
        return CLEAN if clean else self._assigned(original)

    def _assigned(self, original: Record) -> Assignment:
        return assign(self.policy, self.dataset.title, original, self.repeat, self.dataset.places)

    def read(self, record: Record) -> bytes:
        """The corrupted image as BMP; a clean one as it is stored, unless it must be cut out."""
        original, _ = _original(record)
        assignment = self.assignment(record)
        data = self.dataset.read(original)
        if assignment.name == library.NONE and original.box is None:
            return data
        return encode(to_pil(corrupt_record(data, original, self.policy, assignment)), "BMP")

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """None: it stands on another data set."""
        return {}


def _unboxed(record: Record, clean: bool = False) -> Record:
    path = record.path if record.box is None else f"{record.path}#{','.join(map(str, record.box))}"
    return replace(record, path=f"{path}#clean" if clean else path, box=None)


def _original(record: Record) -> tuple[Record, bool]:
    """The record of the data set below, and whether it is to stay clean."""
    clean = record.path.endswith("#clean")
    path = record.path.removesuffix("#clean")
    before, hash_sign, tail = path.rpartition("#")
    numbers = tail.split(",")
    if hash_sign and len(numbers) == 4 and all(n.lstrip("-").isdigit() for n in numbers):
        left, top, right, bottom = (int(n) for n in numbers)
        return replace(record, path=before, box=(left, top, right, bottom)), clean
    return replace(record, path=path), clean


# A copy as files

_LISTS = {".txt", ".csv", ".json", ".jsonl", ".mat", ".npy", ".md"}


@dataclass(frozen=True)
class CopySettings:
    """What to corrupt, how, and where to."""

    out: str = "outputs/corrupted"
    """New root of the copy."""
    corruption: CorruptionPolicy = field(default_factory=CorruptionPolicy)
    """What is done; its side is not looked at, as a file cannot be both."""
    split: str = "test"
    """Which images."""
    repeat: CountOrZero = 0
    """Which of the repeats; each needs a folder of its own."""
    on_bad_image: OnBadImage = run_only("skip")
    """An image that cannot be read: copy it as it is and count it, or stop (fail)."""
    engine: EngineSettings = run_only(EngineSettings())
    """Who does the work."""


_SHARD = 256
"""Images of a shard."""
UNREADABLE = "unreadable"
"""What the manifest says of an image that could not be corrupted."""


def write_copy(
    dataset: Dataset,
    records: Sequence[Record],
    policy: CorruptionPolicy,
    folder: Path | str,
    repeat: int = 0,
    engine: EngineSettings = EngineSettings(),
    on_bad_image: OnBadImage = "skip",
) -> JsonObject:
    """Write corrupted copies of images below ``folder``, with the same relative paths, and a manifest.

    The files are PNG inside, whatever their suffix, so that nothing is lost and lists that name them stay valid;
    images that the policy leaves clean and the data set's own lists (text, CSV, MAT, ...) are copied as they are.
    ``manifest-1-of-1.jsonl`` has one line per image: path, corruption, severity, SHA-256; its name ends in
    ``.partial`` until it is whole, and no data set reads a copy before. A copy that was interrupted goes on where it
    stopped; shards with an image whose hash is no longer right are made again.

    Args:
        dataset: where images are read.
        records: what to copy; records with boxes are refused, as their files hold more than one image.
        policy: what is done. Its ``side`` is not looked at: a file cannot be both.
        folder: the new root.
        repeat: which of the repeats; each belongs in a folder of its own.
        engine: who does the work.
        on_bad_image: whether an unreadable image is copied as it is, and counted, or ends the copy.

    Returns:
        Counts: images, written, there, per corruption (``unreadable`` among them), and unreadable.

    Raises:
        UsageError: a folder that holds a copy by another policy, or the data set's own.
        ShardsFailed: an image cannot be read, with ``fail``.
    """
    target = Path(folder)
    if target.resolve() == Path(dataset.root).resolve():
        raise UsageError(f"{target} is the data set itself; a corrupted copy needs a folder of its own")
    stated = {"data": dataset.title, "repeat": repeat, "torch": torch.__version__, "list": policy.provenance()}
    _check_policy(target, {**stated, **_described(policy)})
    unique = {record.path: record for record in records}
    if any(record.box is not None for record in unique.values()):
        raise UsageError(f"{dataset.title} cuts several images out of one file; it can only be corrupted on the fly")
    whole = target / "manifest-1-of-1.jsonl"
    mark = whole.with_name(whole.name + PARTIAL)
    mark.touch()
    _copy_lists(Path(dataset.root), target, set(unique))
    images = CompactRecords(unique[path] for path in sorted(unique))
    shards = chunks(len(images), _SHARD)
    for shard in shards:
        lines = _lines(target, shard)
        refused = on_bad_image == "fail" and any(line["corruption"] == UNREADABLE for line in lines)
        if refused or not all(sha256(target / line["path"]) == line["sha256"] for line in lines):
            forget(target, shard)
    start = functools.partial(_start_copying, dataset, images, (policy, repeat), target, on_bad_image)
    there = launch(Job("corrupt", target, shards, "picture", start), engine)
    lines = [line for shard in shards for line in _lines(target, shard)]
    with folder_lock(target, patience=3600.0):  # others that worked with us may be writing the same
        remove_leftovers(target)
        atomic_write_text(whole, "".join(json.dumps(line) + "\n" for line in lines))
        mark.unlink(missing_ok=True)
    counts = Counter(line["corruption"] for line in lines)
    written = len(images) - there
    return {
        "pictures": len(images),
        "written": written,
        "kept": there,
        "corruptions": dict(sorted(counts.items())),
        "unreadable": counts[UNREADABLE],
    }


def _start_copying(
    dataset: Dataset,
    images: Sequence[Record],
    draw: tuple[CorruptionPolicy, int],
    target: Path,
    on_bad_image: OnBadImage,
) -> RunShard:
    """Writes a shard's images and, last, their lines of the manifest."""
    policy, repeat = draw

    def run_shard(shard: str) -> list[Path]:
        lines = []
        for record in images[chunk(shard, _SHARD)]:
            assignment = assign(policy, dataset.title, record, repeat, dataset.places)
            data = dataset.read(record)
            name, severity = assignment.name, assignment.severity
            if name != library.NONE:
                try:
                    damaged = corrupt_record(data, record, policy, assignment)
                    data = encode(to_pil(damaged), "PNG", compress_level=1)
                except DataError:  # damaged it stays, for whoever reads the copy to count
                    if on_bad_image == "fail":
                        raise
                    name, severity = UNREADABLE, 0
            atomic_write_bytes(target / record.path, data)
            line = {
                "path": record.path,
                "corruption": name,
                "severity": severity,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            lines.append(json.dumps(line) + "\n")
        atomic_write_text(piece(target, shard, ".jsonl"), "".join(lines))
        return [piece(target, shard, ".jsonl"), *(target / json.loads(line)["path"] for line in lines)]

    return run_shard


class _Line(TypedDict):
    path: str
    corruption: str
    severity: int
    sha256: str


def _lines(target: Path, shard: str) -> list[_Line]:
    """A shard's lines of the manifest, of images that are there; none where it is not finished, or damaged."""
    path = piece(target, shard, ".jsonl")
    try:
        lines: list[_Line] = read_json_lines(path, _Line) if path.exists() else []
    except DataError:
        forget(target, shard)
        return []
    return [line for line in lines if (target / inside(line["path"], str(path))).is_file()]


def _described(policy: CorruptionPolicy) -> JsonObject:
    """Its parts; the usual weather is not named, as in copies made before there was another one."""
    parts = asdict(policy)
    if policy.weather == "picture":
        del parts["weather"]
    return parts


def _check_policy(target: Path, settings: JsonObject) -> None:
    """Write down what the copy is, or compare with what is written there."""
    path = target / POLICY_FILE
    plain = json.loads(json.dumps(settings))
    if not path.exists():
        if target.exists() and any(target.iterdir()):
            raise UsageError(f"{target} is not empty and holds no corrupted copy; give another folder")
        target.mkdir(parents=True, exist_ok=True)
        write_json(path, plain)
        return
    stored = read_json(path)
    for key, value in plain.items():
        if stored.get(key) != value:
            raise UsageError(
                f"{target} holds a copy with {key} = {stored.get(key)!r}, not {value!r}; give another folder"
            )


def _copy_lists(root: Path, target: Path, images: set[str]) -> None:
    """Copy the data set's small files that are no images, out of a folder or a zip archive."""

    def copy(name: str, size: int, source: Callable[[str], IO[bytes]]) -> None:
        listed = Path(name).suffix.lower() in _LISTS and name not in images
        file = target / inside(name, str(root)) if listed else target
        if listed and not (file.is_file() and file.stat().st_size == size):  # a file that is there is whole
            with source(name) as stream, atomic_path(file) as temporary, temporary.open("wb") as handle:
                shutil.copyfileobj(stream, handle)

    if root.is_dir():
        for name in sorted(files_below(root)):
            copy(name, (root / name).stat().st_size, lambda path: (root / path).open("rb"))
    elif zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            for member in archive.infolist():
                copy(member.filename, member.file_size, archive.open)
