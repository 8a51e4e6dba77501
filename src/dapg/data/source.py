"""Shared by all stages: which data set, where, and how much of it."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from dapg.core import plugins
from dapg.core.errors import UsageError, nearest
from dapg.core.rng import generator_from
from dapg.core.train_config import DataConfig
from dapg.core.types import UNKNOWN, Record
from dapg.data.base import Dataset
from dapg.data.sets.folder import Folder


def parse_source(text: str) -> DataConfig:
    """The data set that ``name``, ``name=path`` or ``path`` stands for.

    Raises:
        UsageError: neither a data set nor a path; the nearest name is suggested.
    """
    name, equals, path = text.partition("=")
    known = plugins.names("data.sets")
    if equals and name in known:
        return DataConfig(name, path)
    if text in known:
        return DataConfig(text)
    looks_like_a_name = name.isidentifier() and not Path(text).exists()
    if looks_like_a_name:
        raise UsageError(
            f"{name!r} is neither a data set nor a folder{nearest(name, known)}; data sets: {', '.join(known)}"
        )
    return DataConfig("folder", text)


def open_dataset(config: DataConfig) -> Dataset:
    """The data set object; nothing but its lists is read.

    Raises:
        UsageError: unknown name.
        DataError: the layout under the root is not that data set's.
    """
    kind = plugins.load("data.sets", config.name, Dataset)
    root = root_of(config)
    if root is not None:
        dataset = kind(root)
        if config.names:
            if not isinstance(dataset, Folder):
                raise UsageError(f"--data.names is for plain folders; {dataset.title} has rules of its own")
            dataset.name_persons(config.names)
        if config.bits != 16 or config.percentiles:
            dataset.scale_grey(config.bits, config.percentiles)
        return dataset
    if kind.embedded:
        return kind()  # type: ignore[call-arg]
    raise UsageError(f"where is {kind.title}? Give --data {config.name}=PATH or set DAPG_DATA_{config.name.upper()}")


def root_of(config: DataConfig) -> Path | None:
    """Where the images are; None for an embedded set."""
    root = config.root or os.environ.get(f"DAPG_DATA_{config.name.upper()}", "")
    return Path(root) if root else None


def refuse_parts(
    data: DataConfig,
    names: Sequence[str] = ("split", "subset", "persons"),
    why: str = "--mode says which images are tested",
) -> None:
    """Refuse settings of a part of the data set where they would do nothing.

    Args:
        data: as the user gave it.
        names: of the settings.
        why: what decides in their place.

    Raises:
        UsageError: one of them is set.
    """
    for name in names:
        if getattr(data, name):
            raise UsageError(f"--data.{name} does nothing here: {why}")


def select_records(dataset: Dataset, config: DataConfig, seed: int) -> Sequence[Record]:
    """The records of the split, or those of some persons, or a random subset of them, in their own order."""
    records = draw_persons(dataset.records(config.split or dataset.default_split()), config.persons, seed)
    return draw_subset(records, config.subset, seed)


def draw_persons(records: Sequence[Record], count: int, seed: int) -> Sequence[Record]:
    """All records of ``count`` random persons in their own order; 0 takes all. Fewer persons are among more.

    Raises:
        UsageError: more than there are, or the images are not labelled.
    """
    if not count:
        return records
    persons = sorted({record.person for record in records} - {UNKNOWN})
    if count > len(persons):
        raise UsageError(f"--data.persons {count} asks for more than the {len(persons)} persons who are labelled")
    import torch

    order = torch.randperm(len(persons), generator=generator_from("persons", seed))
    chosen = {persons[index] for index in order[:count].tolist()}
    return [record for record in records if record.person in chosen]


def draw_subset(records: Sequence[Record], count: int, seed: int) -> Sequence[Record]:
    """``count`` random records in their own order; 0 takes all.

    Raises:
        UsageError: more than there are, or a negative number.
    """
    if not count:
        return records
    if count > len(records):
        raise UsageError(f"--data.subset {count} asks for more than the {len(records)} images there are")
    if count < 0:
        raise UsageError(f"--data.subset {count} is no number of images; 0 uses all")
    import torch

    chosen = torch.randperm(len(records), generator=generator_from("subset", seed))[:count]
    return [records[index] for index in sorted(chosen.tolist())]


def list_hash(records: Sequence[Record]) -> str:
    """A short hash of paths and labels, to say which images a result was made from."""
    digest = hashlib.sha256()
    for number, record in enumerate(records):  # piece by piece: the text of four million records is half a gigabyte
        start = "\n" if number else ""
        line = f"{start}{record.path}\t{record.person}\t{record.camera}\t{int(record.modality)}\t{record.box}"
        digest.update(line.encode())
    return digest.hexdigest()[:16]
