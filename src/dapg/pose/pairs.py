"""Which two images a pose generator learns from: of one identity, of a rendered person, of a group, or one twice."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.images import open_rgb
from dapg.core.key_points import usable
from dapg.core.rng import generator_from
from dapg.core.types import UNKNOWN, Modality, Record
from dapg.data.base import Dataset
from dapg.data.image_lines import is_named, said_of
from dapg.data.sets.synthetic import Synthetic
from dapg.pose.key_point_table import TABLE, read_table

PairKind = Literal["labels", "synthetic", "groups", "self"]
DESCRIPTIONS: dict[str, str] = {
    "labels": "identity labels (all ordered pairs of two images of one person: the published way)",
    "synthetic": "rendered persons with exact key points (two images of one person in one camera)",
    "groups": "pseudo-persons from a file of groups (tracks or clusters), no identity labels",
    "self": "no labels: each image with itself, and there and back again through another pose",
}
"""What stands in weights, cards and reports."""


@dataclass(frozen=True)
class Pairs:
    """N ordered pairs of numbers of images, and the key points of every image."""

    sources: Int[Tensor, "N"]
    targets: Int[Tensor, "N"]
    points: Float[Tensor, "R 18 3"]
    """Of every record, not only of those in pairs."""
    kind: PairKind
    without_points: int
    """Images left out because their key points are not usable."""

    def __len__(self) -> int:
        """N."""
        return len(self.sources)


def make_pairs(
    records: Sequence[Record],
    points: Float[Tensor, "R 18 3"],
    kind: PairKind,
    groups: Mapping[str, int] | None = None,
    first_target: int = 0,
) -> Pairs:
    """All ordered pairs a kind allows, in the order of the records.

    ``labels``: two different images of one person and modality. ``synthetic``: the same, in one camera, so that
    light and background stay. ``groups``: two images of one group. ``self``: an image and itself. Images without
    usable key points are in no pair. With ``first_target`` only records from that number on are targets, and only
    those before it are sources.

    Raises:
        UsageError: no pair at all, labels asked for where there are none, or no groups given.
    """
    good = usable(points)
    if kind == "self":
        numbers = good.nonzero()[:, 0]
        sources, targets = numbers, numbers
    else:
        sources, targets = _ordered_pairs(_members(records, good, kind, groups))
    if first_target:
        wanted = (sources < first_target) & (targets >= first_target)
        sources, targets = sources[wanted], targets[wanted]
    if not len(sources):
        raise UsageError(
            f"no pair of kind {kind!r} among {len(records)} images, {int(good.sum())} with usable key points; "
            "a split without persons has pairs of kind self only"
        )
    return Pairs(sources, targets, points, kind, int((~good).sum()))


def _members(
    records: Sequence[Record], good: Bool[Tensor, "R"], kind: PairKind, groups: Mapping[str, int] | None
) -> list[list[int]]:
    cells: dict[object, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if not good[number]:
            continue
        if kind == "groups":
            if groups is None:
                raise UsageError("pairs of kind 'groups' need --pairs.groups FILE: one line an image, path and group")
            if is_named(record, groups):
                cells[said_of(record, groups)].append(number)
        elif record.person != UNKNOWN:
            place = record.camera if kind == "synthetic" else UNKNOWN
            cells[record.person, place, record.modality].append(number)
    return list(cells.values())


def _ordered_pairs(cells: list[list[int]]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    sources, targets = [], []
    for cell in cells:
        for source in cell:
            for target in cell:
                if source != target:
                    sources.append(source)
                    targets.append(target)
    return torch.tensor(sources, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64)


class PairSampler:
    """Every epoch a new random order of all pairs, cut into whole batches: the sources first, then the targets."""

    def __init__(self, pairs: Pairs, batch_size: int, seed: int) -> None:
        if len(pairs) < batch_size:
            raise UsageError(f"{len(pairs)} pairs are too few for a batch of {batch_size}; lower --train.batch_size")
        self.pairs, self.pair_count, self.seed = pairs, batch_size, seed
        self.batch_size = 2 * batch_size
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the pairs."""
        return len(self.pairs) // self.pair_count

    def batch(self, step: int) -> list[int]:
        """Numbers of the images of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (
                epoch,
                torch.randperm(len(self.pairs), generator=generator_from("pairs", self.seed, epoch)),
            )
        rows = self._order[1][place * self.pair_count : (place + 1) * self.pair_count]
        return [*self.pairs.sources[rows].tolist(), *self.pairs.targets[rows].tolist()]


# ---- which images --------------------------------------------------------------------------------------------------


class Joined(Dataset):
    """Images of several data sets under one roof; the k-th one's paths begin with ``k/``."""

    title: ClassVar[str] = "several data sets"
    licence: ClassVar[str] = "those of its parts"
    access: ClassVar[str] = "see its parts"
    splits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parts: Sequence[Dataset]) -> None:
        """Keep the parts; each must be open already."""
        self.parts = tuple(parts)
        self.root = Path()

    def records(self, split: str) -> list[Record]:
        """Of no split: ``join`` makes the records."""
        raise UsageError("several data sets at once have no split")

    def read(self, record: Record) -> bytes:
        """The image from the data set its path names."""
        return self.parts[int(record.path.partition("/")[0])].read(self.inner(record))

    def join(self, lists: Sequence[Sequence[Record]]) -> list[Record]:
        """Records of each part, one list after the other."""
        return [replace(r, path=f"{number}/{r.path}") for number, part in enumerate(lists) for r in part]

    @staticmethod
    def inner(record: Record) -> Record:
        """A record as its own data set knows it."""
        return replace(record, path=record.path.partition("/")[2])

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """None: it is never looked for by name."""
        return {}


def training_records(records: Sequence[Record], held_out: set[int], visible_only: bool) -> list[Record]:
    """Without the held-out persons, and without infrared images if asked."""
    return [
        record
        for record in records
        if record.person not in held_out and not (visible_only and record.modality != Modality.VISIBLE)
    ]


def persons_tested(dataset: Dataset) -> set[int]:
    """Persons that a data set's scores are about: those of its test splits and trials, if it has any.

    Of a folder that sets no test image apart nobody: its trials are over all images, those of training too.
    """
    persons: set[int] = set()
    for split in {"test", "query", "gallery"} & set(dataset.splits):
        try:
            persons |= {record.person for record in dataset.records(split)}
        except UsageError:
            return set()
    for mode in set(dataset.modes) - {"validation"}:
        with contextlib.suppress(UsageError):  # a folder whose test images are of one kind of light has no such trials
            for trial in dataset.trials(mode):
                persons |= {record.person for record in (*trial.query, *trial.gallery)}
    return persons - {UNKNOWN}


def held_out_persons(dataset: Dataset) -> set[int]:
    """Test persons, and those of the validation split where there is one.

    Raises:
        UsageError: nobody is set apart, so that asking for it must be a mistake.
    """
    held_out = persons_tested(dataset)
    if "val" in dataset.splits:
        with contextlib.suppress(UsageError):  # a folder names the split whether it has such images or not
            held_out |= {record.person for record in dataset.records("val")}
    if not held_out - {UNKNOWN}:
        raise UsageError(f"--pairs.held_out: {dataset.title} {dataset.root} sets no test or validation persons apart")
    return held_out - {UNKNOWN}


def same_people(first: Synthetic, second: Synthetic, numbers: set[int]) -> set[int]:
    """Those of the numbers under which both sets show one person: all garments, hair and shoes are the same.

    Rendered persons are numbered from 1 whatever the seed, so that equal numbers alone say nothing.
    """

    def clothes(people: Synthetic) -> dict[int, dict[str, str]]:
        records = (record for split in ("train", "val", "test") for record in people.records(split))
        return {record.person: people.truth(record)["garments"] for record in records if record.person in numbers}

    mine, theirs = clothes(first), clothes(second)
    return {number for number in mine.keys() & theirs.keys() if mine[number] == theirs[number]}


def exact_points(dataset: Synthetic, records: Sequence[Record]) -> Float[Tensor, "R 18 3"]:
    """Annotated key points as parts of the image; visible 1, hidden 0.5, outside 0."""
    if not records:
        return torch.zeros(0, 18, 3)
    stored = torch.stack([dataset.key_points(record) for record in records])
    size = open_rgb(dataset.read(records[0]), records[0].path).size  # one renderer, one size
    return torch.cat([stored[..., :2] / stored.new_tensor(size), stored[..., 2:] / 2], dim=2)


def key_points_of(dataset: Dataset, records: Sequence[Record], table: str, option: str) -> Float[Tensor, "R 18 3"]:
    """Key points of a table, or the exact ones of synthetic people, or those of the table beside the data.

    Raises:
        UsageError: there is none; ``option`` is what gives one.
        DataError: the table cannot be read or lacks an image.
    """
    if not table and isinstance(dataset, Synthetic):
        return exact_points(dataset, records)
    beside = dataset.root / TABLE, Path(f"{dataset.root}-key_points") / TABLE  # where dapg pose estimate writes it
    file = Path(table) if table else next((place for place in beside if place.is_file()), None)
    if file is None:
        raise UsageError(f"no key points at {beside[0]}: run dapg pose estimate, and give its table as {option}")
    return read_table(file).of(records)
