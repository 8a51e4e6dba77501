"""Shared by alignment: a data set whose images come with others of (supposedly) the same person, as positives.

Where the others come from decides what is learnt, and is what the ablation compares: generated images of the person
in other poses, those of somebody else, or true other images of the person.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dapg.core.errors import DataError, UsageError
from dapg.core.rng import generator_from
from dapg.core.types import UNKNOWN, Record, Trial
from dapg.data.base import Dataset
from dapg.data.manifest import Box, Manifest

Key = tuple[str, Box | None]


class WithCompanions(Dataset):
    """A data set and, for each of its images, up to ``companion_slots`` others; everything else is handed through."""

    def __init__(self, dataset: Dataset, companions: Mapping[Key, Sequence[Path | Record]]) -> None:
        """``companions``: by (path, box) of the record; files, or records of ``dataset``."""
        self.root = dataset.root
        self._dataset, self._companions = dataset, companions
        # What a data set has by itself __getattr__ is not asked for.
        for name in ("modes", "infrared", "published_persons", "smallest", "embedded"):
            setattr(self, name, getattr(dataset, name))
        self.places = dict(dataset.places)
        self.companion_slots = max((len(others) for others in companions.values()), default=0)
        if self.companion_slots == 0:
            raise DataError(
                f"{dataset.title}: not one image has another to be aligned with; generate some (dapg pose generate), "
                "or lower --least_score"
            )

    def __getattr__(self, name: str) -> Any:
        """Title, splits and the like are the inner data set's."""
        if name.startswith("_"):  # while unpickling, before there is an inner data set
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def records(self, split: str) -> Sequence[Record]:
        """The inner data set's."""
        return self._dataset.records(split)

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """The inner data set's."""
        return self._dataset.trials(mode, seed)

    def default_split(self) -> str:
        """The inner data set's."""
        return self._dataset.default_split()

    def labelled_split(self) -> str:
        """The inner data set's."""
        return self._dataset.labelled_split()

    def tested_split(self) -> str:
        """The inner data set's."""
        return self._dataset.tested_split()

    def fitting_split(self, split: str) -> str:
        """The inner data set's."""
        return self._dataset.fitting_split(split)

    @property
    def shard_numbers(self) -> Sequence[int] | None:
        """The inner data set's."""
        return self._dataset.shard_numbers

    @property
    def version(self) -> str | None:
        """The inner data set's, which the result of an alignment states."""
        return self._dataset.version

    def read(self, record: Record) -> bytes:
        """The inner data set's."""
        return self._dataset.read(record)

    def companions(self, record: Record) -> list[tuple[bytes, Box | None, str]]:
        """Encoded images, box and name of each companion of a record.

        Raises:
            DataError: a file is missing or cannot be read.
        """
        others = []
        for other in self._companions.get((record.path, record.box), ()):
            if isinstance(other, Record):
                others.append((self._dataset.read(other), other.box, other.path))
                continue
            try:
                others.append((other.read_bytes(), None, str(other)))
            except OSError as error:
                raise DataError(f"{other}: {error.strerror or error}; run dapg pose generate again") from error
        return others

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """None: it has no layout of its own."""
        return {}


def generated_companions(
    manifest: Manifest, records: Sequence[Record], poses: Sequence[str], least_score: float
) -> dict[Key, list[Path]]:
    """For each record its generated images in ``poses`` whose key points hit the target well enough.

    Raises:
        UsageError: a pose that was not generated.
        DataError: a record that the manifest does not know.
    """
    unknown = [pose for pose in poses if pose not in manifest.poses]
    if unknown:
        raise UsageError(f"{manifest.folder} has poses {', '.join(manifest.poses)}, not {', '.join(unknown)}")
    files = manifest.of(records, least_score)
    return {
        (record.path, record.box): [mine[pose] for pose in poses if pose in mine]
        for record, mine in zip(records, files, strict=True)
    }


def shuffled_companions(
    companions: Mapping[Key, Sequence[Path]], records: Sequence[Record], seed: int
) -> dict[Key, Sequence[Path]]:
    """Everybody gets the generated images of somebody else: a control that keeps the images and breaks identity.

    One random cycle through all persons (through all images where nobody is known): images of a person go to
    images of the next one, each set given out as evenly as can be.

    Raises:
        UsageError: fewer than two persons.
    """
    groups: dict[int, list[Record]] = defaultdict(list)
    for number, record in enumerate(records):
        groups[record.person if record.person != UNKNOWN else -2 - number].append(record)
    if len(groups) < 2:
        raise UsageError("positives of shuffled persons need at least two persons")
    order = [list(groups)[i] for i in torch.randperm(len(groups), generator=generator_from("shuffled", seed)).tolist()]
    given: dict[Key, Sequence[Path]] = {}
    for person, giver in zip(order, [*order[1:], order[0]], strict=True):
        source = groups[giver]
        for number, record in enumerate(groups[person]):
            other = source[number % len(source)]
            given[record.path, record.box] = companions[other.path, other.box]
    return given


def true_companions(records: Sequence[Record], count: int, seed: int) -> dict[Key, list[Record]]:
    """For each record up to ``count`` other images of its person, drawn once: what perfect generation would give.

    Needs labels: an upper bound for comparison, no part of a method without labels.

    Raises:
        UsageError: no record has a person.
    """
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record.person != UNKNOWN:
            groups[record.person].append(record)
    if not groups:
        raise UsageError("true other images of a person need labels; this split has none")
    given: dict[Key, list[Record]] = {}
    for person, mine in groups.items():
        generator = generator_from("true companions", seed, person)
        for record in mine:
            others = [other for other in mine if other is not record]
            order = torch.randperm(len(others), generator=generator)[:count].tolist()
            given[record.path, record.box] = [others[i] for i in order]
    return given
