"""Contract of a data set: one file, one class, records and trials. No image is opened here."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from PIL import Image

from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.images import encode, scale_grey
from dapg.core.seeds import derive_seed
from dapg.core.types import Record, Trial


class Dataset(ABC):
    """A set of images of people below one root, with its official splits and test protocol.

    A new data set is a new file ``data/<name>.py`` with one public subclass; the contract test builds
    ``example_layout`` with tiny images and checks every split and trial of it.
    """

    title: ClassVar[str]
    """Name as the field writes it, for example ``SYSU-MM01``."""
    licence: ClassVar[str]
    """Under which terms the images may be used."""
    access: ClassVar[str]
    """Where to ask for a copy."""
    splits: ClassVar[tuple[str, ...]]
    """Names ``records`` accepts; the first is the one pre-training and fine-tuning use unless told otherwise."""
    published_persons: ClassVar[bool] = False
    """True where person numbers are the publisher's, so that equal numbers in two copies are the same person."""
    modes: ClassVar[tuple[str, ...]] = ()
    """Names ``trials`` accepts; empty for sets without a test protocol. One that is called ``validation`` scores
    persons outside the test, to choose checkpoints by."""

    infrared: str = "unknown"
    """Kind of its infrared light: near, thermal or unknown. A threshold of one kind says nothing about the other."""
    places: Mapping[int, int] = MappingProxyType({})
    """Camera -> place, of cameras that share one; any other camera is a place of its own."""

    embedded: ClassVar[bool] = False
    """Whether the package brings it along, so that it needs no root."""
    smallest: ClassVar[tuple[int, int]] = (1, 1)
    """(height, width) in pixels below which `dapg data verify` points an image out."""

    def __init__(self, root: Path | str) -> None:
        """Look at the layout below ``root`` and fail early when it is not this data set's.

        Raises:
            DataError: names the first missing path and the documentation page, or the command that was not finished.
        """
        self.root = Path(root)
        _refuse_unfinished(self.root)

    @abstractmethod
    def records(self, split: str) -> Sequence[Record]:
        """Every image of a split in a fixed order, the same on every machine.

        A list, or for millions of images ``compact.CompactRecords``.

        Raises:
            UsageError: no such split.
            DataError: files or lists of the split are missing or contradict themselves.
        """

    @property
    def shard_numbers(self) -> Sequence[int] | None:
        """For each record of the first split, the large file that it lies in; None where each has its own."""
        return None

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """Query and gallery sets of a mode, one per trial of the published protocol.

        Raises:
            UsageError: no such mode, or a set without test protocol.
        """
        raise UsageError(f"{self.title} has no test protocol; it serves pre-training only")

    def default_split(self) -> str:
        """The split that training takes unless told otherwise: the first one."""
        return self.splits[0]

    def labelled_split(self) -> str:
        """The split that fine-tuning takes unless told otherwise; sets with unlabelled images name another."""
        return self.default_split()

    def tested_split(self) -> str:
        """The split of the test persons; where there is none, that of the labelled images."""
        return "test" if "test" in self.splits else self.labelled_split()

    def fitting_split(self, split: str) -> str:
        """The part of a training split without the persons of mode ``validation``.

        Raises:
            UsageError: the set has no validation persons.
        """
        if "validation" not in self.modes:
            raise UsageError(f"{self.title} has no validation persons; train with --selection last")
        return split

    def read(self, record: Record) -> bytes:
        """The encoded image of a record. Called in loader workers; sets in archives override it.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        path = self.root / record.path
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error

    def scale_grey(self, bits: int, percentiles: tuple[float, ...]) -> None:
        """From now on ``read`` brings 16-bit grey images to 8 bits, as ``core.images.scale_grey`` does."""
        plain = partial(type(self).read, self)
        self.read = partial(_read_scaled, plain, bits, percentiles)  # type: ignore[method-assign]

    @property
    def version(self) -> str | None:
        """Which version of the set this is, where it has versions; results state it."""
        return None

    companion_slots: int = 0
    """How many other images of a person travel with each image at most (``data/companions.py``)."""

    def companions(self, record: Record) -> list[tuple[bytes, tuple[int, int, int, int] | None, str]]:
        """Encoded image, box and name of each of them."""
        return []

    @classmethod
    @abstractmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """A tiny complete copy: relative path -> text of a list file, or None for an image."""

    @classmethod
    def write_example(cls, root: Path | str) -> None:
        """Write ``example_layout`` below ``root``, its images as tiny ones of different colours.

        Sets that live in archives write an archive instead.
        """
        for path, text in cls.example_layout().items():
            file = Path(root) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                file.write_bytes(example_image(path))
            else:
                file.write_text(text, encoding="utf-8")

    def check_split(self, split: str) -> None:
        """Refuse an unknown split with the nearest name."""
        if split not in self.splits:
            raise UsageError(
                f"{self.title} has no split {split!r}{nearest(split, list(self.splits))}; "
                f"known: {', '.join(self.splits)}"
            )

    def check_mode(self, mode: str) -> None:
        """Refuse an unknown mode with the nearest name."""
        if mode not in self.modes:
            raise UsageError(
                f"{self.title} has no mode {mode!r}{nearest(mode, list(self.modes))}; known: {', '.join(self.modes)}"
            )

    def require(self, *relative: str) -> None:
        """Fail with the first of the given paths that is missing below the root."""
        if not self.root.is_dir():
            raise DataError(f"{self.title} not found: {self.root} is not a folder. See docs/reference/datasets.md.")
        for path in relative:
            if not (self.root / path).exists():
                raise DataError(
                    f"{self.title} not found under {self.root}: expected {path}. See docs/reference/datasets.md."
                )


POLICY_FILE, PARTIAL = "corruption.json", ".partial"
"""What ``dapg corrupt`` leaves in a corrupted copy, and the end of the names of manifests that are not whole."""


def _refuse_unfinished(root: Path) -> None:
    """What a command of ours has not finished lacks images or lists, and would be read silently as a smaller set.

    Raises:
        DataError: names the command.
    """
    config = root / "config.yaml"  # the first and the last file of core/run_folder.py
    if config.is_file() and not (root / "result.json").exists():
        with config.open("rb") as handle:
            first = handle.readline(80).decode("utf-8", "replace").strip()
        if first.startswith("# dapg "):  # else it is somebody else's config.yaml
            raise DataError(f"{root} is not whole: run its `{first[2:]}` command again to go on")
    if not (root / POLICY_FILE).exists():
        return
    names = [path.name for path in root.glob("manifest-*")]
    parts = [re.fullmatch(r"manifest-(\d+)-of-(\d+)\.jsonl", name) for name in names]
    whole = {(int(part[1]), int(part[2])) for part in parts if part}
    total = max((number for _, number in whole), default=1)
    absent = [number for number in range(1, total + 1) if (number, total) not in whole]
    if absent or any(name.endswith(PARTIAL) for name in names):
        raise DataError(f"the corrupted copy in {root} is not whole; run its dapg corrupt command again to go on")


def example_image(path: str) -> bytes:
    """An image of 8 x 16 pixels in the format that the suffix names, in a colour of its own."""
    colour = derive_seed("example", path) % 2**24
    image = Image.new("RGB", (8, 16), (colour & 255, colour >> 8 & 255, colour >> 16))
    return encode(image, Image.registered_extensions()[Path(path).suffix.lower()])


def _read_scaled(read: Callable[[Record], bytes], bits: int, percentiles: tuple[float, ...], record: Record) -> bytes:
    return scale_grey(read(record), bits, percentiles, record.path)
