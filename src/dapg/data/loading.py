"""Shared by all data sets: from records to batches. Workers decode, cut and resize; the device does the rest."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dapg.core.batch import BadImage, Batch
from dapg.core.errors import DataError
from dapg.core.images import decode
from dapg.core.progress import uninterrupted
from dapg.core.ranges import Count, CountOrZero, Pixels, Processes
from dapg.core.settings import run_only
from dapg.core.types import UNKNOWN, Modality, Record
from dapg.data.base import Dataset
from dapg.data.samplers import LocalBatches

_MAX_REPLACEMENTS = 100
"""Unreadable images in a row after which the data set, not the image, is at fault."""


OnBadImage = Literal["skip", "fail"]
"""What becomes of an unreadable image outside training, where none may take its place."""


@dataclass(frozen=True)
class LoaderConfig:
    """How images are read."""

    height: Pixels = 256
    """Rows of the decoded image, before any augmentation (the paper: 256)."""
    width: Pixels = 128
    """Columns of the decoded image (the paper: 128)."""
    on_bad_image: Literal["replace", "fail"] = "replace"
    """An unreadable image in training: use the next one of the same person (or, in pre-training, the next one) and
    list it in the result, or stop."""
    workers: Processes = run_only(2)
    """Loader processes per training process; 0 decodes in the training process."""
    prefetch: Count = run_only(4)
    """Batches a worker prepares ahead."""
    memory: CountOrZero = run_only(512)
    """MB of decoded images that training keeps in memory. A set that fits is decoded once, and needs no workers; of a
    larger one nothing is kept."""


@dataclass(frozen=True)
class _Item:
    index: int
    image: Tensor
    record: Record
    bad: tuple[BadImage, ...]
    extras: dict[str, Tensor]


class _Images(TorchDataset[_Item]):
    """Decodes record number i; in training an unreadable one gives way by a fixed rule."""

    def __init__(
        self,
        dataset: Dataset,
        records: Sequence[Record],
        config: LoaderConfig,
        replace: bool,
        skip: bool = False,
        whole_persons: bool = False,
    ) -> None:
        self.dataset, self.records, self.config, self.replace, self.skip = dataset, records, config, replace, skip
        self._alike: dict[tuple[int, Modality], list[int]] | None = None
        """Where a batch is made of persons in both lights, whose place nobody else may take: each one's records."""
        if replace and whole_persons:
            self._alike = defaultdict(list)
            for number, record in enumerate(records):
                self._alike[record.person, record.modality].append(number)
        self._memory: dict[int, UInt8[Tensor, "3 H W"]] | None = None

    def keep(self) -> bool:
        """Keep every image once it is decoded, if all of them fit; whether they do."""
        config = self.config
        fits = len(self.records) * 3 * config.height * config.width <= config.memory * 1_000_000
        if fits and not self.dataset.companion_slots:
            self._memory = {}
        return self._memory is not None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> _Item:
        bad: list[tuple[Record, str]] = []
        for candidate in self._candidates(index):
            record = self.records[candidate]
            try:
                image = self._image(candidate, record)
            except DataError as error:
                if self.skip:
                    black = torch.zeros(3, self.config.height, self.config.width, dtype=torch.uint8)
                    return _Item(candidate, black, record, (BadImage(record.name, str(error), ""),), {})
                if not self.replace:
                    raise
                bad.append((record, str(error)))
                continue
            notes = [BadImage(broken.name, reason, record.name) for broken, reason in bad]
            extras = self._companions(record, notes) if self.dataset.companion_slots else {}
            return _Item(candidate, image, record, tuple(notes), extras)
        listed = ", ".join(record.name for record, _ in bad[:5])
        if self._alike is not None:
            wanted = self.records[index]
            raise DataError(
                f"person {wanted.person} has no {wanted.modality.name.lower()} image that can be read ({listed}); "
                f"first: {bad[0][1]}; mend its images or leave the person out of the set"
            )
        raise DataError(f"{len(bad)} images in a row cannot be read ({listed}, ...); first: {bad[0][1]}")

    def _image(self, index: int, record: Record) -> UInt8[Tensor, "3 H W"]:
        if self._memory is not None and index in self._memory:
            return self._memory[index]
        size = (self.config.height, self.config.width)
        image = decode(self.dataset.read(record), size, record.box, record.name)
        if self._memory is not None:
            self._memory[index] = image
        return image

    def _companions(self, record: Record, notes: list[BadImage]) -> dict[str, Tensor]:
        """``companions`` (P, 3, H, W) and which of them are real, ``companions_valid`` (P,); the rest is black.

        An unreadable one is left out, and noted, where unreadable images may be replaced.
        """
        height, width = self.config.height, self.config.width
        images = torch.zeros(self.dataset.companion_slots, 3, height, width, dtype=torch.uint8)
        valid = torch.zeros(self.dataset.companion_slots, dtype=torch.bool)
        for slot, (data, box, where) in enumerate(self.dataset.companions(record)):
            try:
                images[slot] = decode(data, (height, width), box, where)
                valid[slot] = True
            except DataError as error:
                if not self.replace:
                    raise
                notes.append(BadImage(where, str(error), record.name))
        return {"companions": images, "companions_valid": valid}

    def _candidates(self, index: int) -> Iterator[int]:
        """The image itself, then the following ones of the same person and modality, then just the following ones."""
        yield index
        if not self.replace:
            return
        if self._alike is not None:
            alike = self._alike[self.records[index].person, self.records[index].modality]
            after = bisect_right(alike, index)
            yield from (alike[after:] + alike[: after - 1])[: _MAX_REPLACEMENTS - 1]
            return
        wanted, count = self.records[index], len(self.records)
        following = [(index + offset) % count for offset in range(1, min(count, _MAX_REPLACEMENTS))]
        same = [
            other
            for other in following
            if wanted.person != UNKNOWN
            and (self.records[other].person, self.records[other].modality) == (wanted.person, wanted.modality)
        ]
        yield from same
        yield from (other for other in following if other not in set(same))


def collate(items: list[_Item]) -> Batch:
    """Stack decoded images and their labels."""
    return Batch(
        images=torch.stack([item.image for item in items]),
        persons=torch.tensor([item.record.person for item in items]),
        cameras=torch.tensor([item.record.camera for item in items]),
        modalities=torch.tensor([int(item.record.modality) for item in items]),
        indices=torch.tensor([item.index for item in items]),
        extras={name: torch.stack([item.extras[name] for item in items]) for name in items[0].extras},
        bad_images=tuple(bad for item in items for bad in item.bad),
    )


def training_batches(
    dataset: Dataset, records: Sequence[Record], batches: LocalBatches, config: LoaderConfig, pin_memory: bool
) -> Iterator[Batch]:
    """This process's batches in the order of ``batches``, on the CPU.

    Raises:
        DataError: an unreadable image with ``on_bad_image: fail``, too many in a row, or of a person whom a fine-tuning
            needs in this light and who has no other.
    """
    whole_persons = getattr(batches.sampler, "whole_persons", False)
    images = _Images(dataset, records, config, config.on_bad_image == "replace", whole_persons=whole_persons)
    workers = 0 if images.keep() else config.workers
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        prefetch_factor=config.prefetch if workers else None,
    )
    yield from _with_plain_errors(loader)


def ordered_batches(
    dataset: Dataset,
    records: Sequence[Record],
    batch_size: int,
    config: LoaderConfig,
    pin_memory: bool = False,
    skip: bool = False,
) -> Iterator[Batch]:
    """All images once, in order; an unreadable one is an error or, with ``skip``, black and in ``bad_images``."""
    loader = DataLoader(
        _Images(dataset, records, config, replace=False, skip=skip),
        batch_size=batch_size,
        num_workers=config.workers,
        collate_fn=collate,
        pin_memory=pin_memory,
    )
    yield from _with_plain_errors(loader)


def _started(loader: DataLoader[_Item]) -> Iterator[Batch]:
    """Its iterator; only this process hears Ctrl-C, and decides when its workers end."""
    with uninterrupted():
        return iter(loader)


def _with_plain_errors(loader: DataLoader[_Item]) -> Iterator[Batch]:
    """A worker's DataError arrives wrapped in its traceback; hand on the message alone."""
    try:
        yield from _started(loader)
        return
    except (ConnectionError, EOFError) as error:
        if not loader.num_workers:
            raise
        raise RuntimeError(f"DataLoader worker is gone: {error}") from error  # in the words of torch
    except DataError as error:
        message = str(error).rpartition("dapg.core.errors.DataError: ")[2]  # the traceback is one line by now
        error.__traceback__ = None  # it holds the loader, whose workers then end now and not ten seconds later
    raise DataError(message)
