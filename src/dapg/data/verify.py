"""Shared by all data sets: is this copy complete, readable, free of duplicates and of persons in two splits?"""

import contextlib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dapg.core import plugins
from dapg.core.errors import DataError, UsageError
from dapg.core.images import grey_values, open_rgb
from dapg.core.types import UNKNOWN, Modality, Record, Trial
from dapg.data.base import Dataset

_EXAMPLES = 3
Kind = Literal["layout", "list", "count", "missing", "extra", "unreadable", "small", "duplicate", "overlap", "levels"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or (``error`` False) that a person should look at once."""

    kind: Kind
    where: str
    """File, folder or list, relative to the root."""
    message: str
    error: bool = True

    def __str__(self) -> str:
        """One line for the terminal."""
        return f"{'ERROR' if self.error else 'note '} {self.kind:10} {self.where}: {self.message}"


@dataclass(frozen=True)
class Verification:
    """What was counted, and what was found."""

    title: str
    root: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """True when no finding is an error."""
        return not any(finding.error for finding in self.findings)


@runtime_checkable
class Audited(Protocol):
    """A data set that knows its published counts and lists."""

    def audit(self) -> Iterator[Finding]:
        """Compare lists and counts with the published ones; opens no image."""
        ...

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Pairs of splits that must not share a person."""
        ...


def verify_folder(name: str, root: Path | str, decode: bool = True, threads: int = 4) -> Verification:
    """Verify the copy of data set ``name`` under ``root``; a wrong layout is a finding, too.

    Raises:
        UsageError: no such data set.
    """
    kind = plugins.load("data.sets", name, Dataset)
    try:
        dataset = kind(root)
    except DataError as error:
        return Verification(kind.title, str(root), {}, (Finding("layout", ".", str(error)),))
    report = verify(dataset, decode, threads)
    return replace(report, findings=(*_other_layout(name, Path(root)), *report.findings))


def _other_layout(name: str, root: Path) -> Iterator[Finding]:
    """A note where a plain folder is a published set: as a folder it has neither persons nor test protocol."""
    for other in plugins.names("data.sets") if name == "folder" and root.is_dir() else ():
        kind = plugins.load("data.sets", other, Dataset)
        if kind.published_persons:
            with contextlib.suppress(DataError, UsageError):
                kind(root)
                yield Finding("layout", ".", f"this is the layout of {kind.title}: give {other}={root}", error=False)


def verify(dataset: Dataset, decode: bool = True, threads: int = 4) -> Verification:
    """Count every split and trial, compare with the published counts, and read every image.

    Args:
        dataset: an open data set.
        decode: read and decode every image (the slow part), and look for equal files.
        threads: images read at a time.
    """
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    splits: dict[str, Sequence[Record]] = {}
    for split in dataset.splits:
        try:
            splits[split] = dataset.records(split)
        except (DataError, UsageError) as error:
            # UsageError: this copy lacks the files of an optional split. DataError: they are there and wrong.
            findings.append(Finding("list", split, str(error), isinstance(error, DataError)))
            continue
        counts |= count_records(split, splits[split])
    for mode in dataset.modes:
        try:
            counts |= count_trials(mode, dataset.trials(mode))
        except (DataError, UsageError) as error:
            findings.append(Finding("list", mode, str(error), isinstance(error, DataError)))
    pairs: Sequence[tuple[str, str]] = ()
    if isinstance(dataset, Audited):
        pairs = dataset.disjoint_splits()
        try:
            findings.extend(dataset.audit())  # extend keeps what was found before an error
        except DataError as error:
            findings.append(Finding("list", ".", str(error)))
    for first, second in pairs:
        findings += shared_persons(first, splits.get(first, []), second, splits.get(second, []))
    if decode:
        findings += read_all(dataset, _distinct(splits.values()), threads)
    unique = tuple(dict.fromkeys(findings))
    return Verification(dataset.title, str(dataset.root), counts, unique)


def grouped(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each cause: findings of one kind whose messages differ in names and numbers alone."""
    causes: dict[tuple[str, bool, str], list[Finding]] = {}
    for finding in findings:
        cause = re.sub(r"\S*[\d/\\]\S*", "#", finding.message.replace(finding.where, "#"))
        causes.setdefault((finding.kind, finding.error, cause), []).append(finding)
    for group in causes.values():
        if len(group) <= _EXAMPLES:
            yield from map(str, group)
            continue
        first = group[0]
        more = ", ".join(finding.where for finding in group[1:_EXAMPLES])
        yield f"{first}; {len(group) - 1:,} more like it, such as {more} (--all lists them)"


def count_records(split: str, records: Sequence[Record]) -> dict[str, int]:
    """Images, persons, and images per modality and camera of a split."""
    visible = sum(record.modality == Modality.VISIBLE for record in records)
    cameras = Counter(record.camera for record in records if record.camera != UNKNOWN)
    return {
        f"{split}: images": len(records),
        f"{split}: persons": len({record.person for record in records} - {UNKNOWN}),
        f"{split}: visible": visible,
        f"{split}: infrared": len(records) - visible,
        **{f"{split}: camera {camera}": number for camera, number in sorted(cameras.items())},
    }


def count_trials(mode: str, trials: Sequence[Trial]) -> dict[str, int]:
    """Number of trials, and sizes of the first one's query and gallery sets."""
    counts = {f"{mode}: trials": len(trials)}
    if trials:
        counts |= {f"{mode}: query": len(trials[0].query), f"{mode}: gallery": len(trials[0].gallery)}
    return counts


def shared_persons(first: str, left: Sequence[Record], second: str, right: Sequence[Record]) -> Iterator[Finding]:
    """A finding when a person is in both splits: scores on the second would be scores on training people."""
    both = sorted(({record.person for record in left} & {record.person for record in right}) - {UNKNOWN})
    if both:
        listed = ", ".join(map(str, both[:10])) + (", ..." if len(both) > 10 else "")
        yield Finding("overlap", f"{first} and {second}", f"{len(both)} person(s) in both: {listed}")


def read_all(dataset: Dataset, records: Sequence[Record], threads: int) -> Iterator[Finding]:
    """Read and decode every image; name the unreadable and too small ones and the files with equal content."""
    levels = _Levels()

    def look(record: Record) -> tuple[Record, bytes | None, str]:
        try:
            data = dataset.read(record)
            levels.add(grey_values(data, record.path))
            width, height = open_rgb(data, record.path).size
        except DataError as error:
            return record, None, str(error)
        problem = ""
        if record.box is not None:
            left, top, right, bottom = record.box
            width, height = min(right, width) - left, min(bottom, height) - top
            if width <= 0 or height <= 0:
                return record, None, f"the box {record.box} lies outside the image"
        if height < dataset.smallest[0] or width < dataset.smallest[1]:
            problem = f"{width} x {height}"
        return record, hashlib.blake2b(data, digest_size=16).digest(), problem

    same: dict[tuple[bytes, object], list[Record]] = defaultdict(list)
    small: list[str] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for record, digest, problem in pool.map(look, records):
            if digest is None:
                yield Finding("unreadable", record.path, problem)
                continue
            same[digest, record.box].append(record)
            small += [f"{record.path} ({problem})"] * bool(problem)
    if small:
        listed = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        least = f"{dataset.smallest[1]} x {dataset.smallest[0]}"
        yield Finding("small", ".", f"{len(small)} image(s) smaller than {least} (width x height): {listed}", False)
    for group in same.values():
        if len(group) > 1:
            yield _duplicate(group)
    yield from levels.findings()


class _Levels:
    """Which part of their range 16-bit grey images use."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []

    def add(self, values: NDArray[np.int64] | None) -> None:
        """Take one image; None is no 16-bit grey one. Called from several threads."""
        if values is not None and values.size:
            self._ends.append((int(values.min()), int(values.max())))

    def findings(self) -> Iterator[Finding]:
        """A note where they fill less than half of the 256 levels that are left of them."""
        if not self._ends:
            return
        low, high = min(low for low, _ in self._ends), max(high for _, high in self._ends)
        used = (high >> 8) - (low >> 8) + 1
        if used > 128:
            return
        remedy = f"--data.bits {max(8, high.bit_length())}" if low < high // 2 else "--data.percentiles [1,99]"
        message = f"16 bits of grey, values {low} to {high} ({len(self._ends)} images): uses {used} of 256 levels"
        yield Finding("levels", ".", f"{message}; give {remedy}", error=False)


def _duplicate(group: Sequence[Record]) -> Finding:
    persons = {record.person for record in group}
    others = ", ".join(record.path for record in group[1:4]) + (", ..." if len(group) > 4 else "")
    if len(persons) > 1:
        return Finding("duplicate", group[0].path, f"the same file, as another person, is {others}")
    return Finding("duplicate", group[0].path, f"the same file is {others}", error=False)


def _distinct(splits: Iterable[Sequence[Record]]) -> list[Record]:
    """Every image once, whatever splits it is in."""
    return list({(record.path, record.box): record for records in splits for record in records}.values())


def expect(counts: Iterable[tuple[str, int, int]], what: str) -> Iterator[Finding]:
    """A finding for each (where, found, published) that differs."""
    for where, counted, published in counts:
        if counted != published:
            yield Finding("count", where, f"{counted} {what}, published {published}")


def odd_persons(records: Sequence[Record], published: int) -> str:
    """Persons of a split that do not have the published number of images, as text for a message."""
    numbers = Counter(record.person for record in records)
    odd = [f"person {person} has {number}" for person, number in sorted(numbers.items()) if number != published]
    return "; ".join(odd[:5]) + ("; ..." if len(odd) > 5 else "")


def unseen_trials(trials: Sequence[Trial], training_persons: Iterable[int]) -> list[Trial]:
    """The trials that test none of the persons a model was trained on.

    RegDB's ten trials are ten partitions of the same people: a model belongs to one of them, and on any other it would
    be asked for people it has learnt by heart.

    Args:
        trials: trials of one mode.
        training_persons: labels of the same data set, stored with the model.

    Raises:
        UsageError: every trial tests training persons.
    """
    seen = set(training_persons) - {UNKNOWN}
    shared = [len(seen & {record.person for record in (*trial.query, *trial.gallery)}) for trial in trials]
    clean = [trial for trial, number in zip(trials, shared, strict=True) if number == 0]
    if not clean and trials:
        raise UsageError(
            f"the model was trained on {min(shared)} or more of the persons that each trial of mode "
            f"{trials[0].mode!r} tests; test it on the partition it was trained for"
        )
    return clean
