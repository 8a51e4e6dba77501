"""Shared: files that say something about each image (name<TAB>text), such as which pseudo-person it shows.

An image's name is its path and, where it is a box of a file, ``#left,top,right,bottom``; a path alone speaks of all
boxes of the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text
from dapg.core.types import Record
from dapg.data import listing

Said = TypeVar("Said")


def read_groups(path: Path) -> dict[str, int]:
    """Name of an image -> group number.

    Raises:
        DataError: missing, or a line of another form.
    """
    groups = {}
    for number, (name, group) in enumerate(read_lines(path, "group number").items(), 1):
        if not group.strip().lstrip("-").isdigit():
            raise DataError(f"{path}, line {number}: {group!r} is no group number")
        groups[name] = int(group)
    return groups


def read_lines(path: Path, what: str) -> dict[str, str]:
    """Name of an image -> what a file says about it: ``name<TAB>text``, an image a line.

    Raises:
        DataError: missing, a line without a tab, or an image that is named twice.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(listing.read_lines(path), 1):
        name, tab, text = line.rpartition("\t")
        if not tab:
            raise DataError(f"{path}, line {number}: expected a path, a tab and a {what}, got {line!r}")
        if name in texts:
            raise DataError(f"{path}, line {number}: {name} is named twice")
        texts[name] = text
    return texts


def write_lines(path: Path, texts: Mapping[str, str | int]) -> None:
    """The same as a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, "".join(f"{name}\t{text}\n" for name, text in texts.items()))


def with_groups(records: Sequence[Record], groups: Mapping[str, int]) -> list[Record]:
    """The records that are in a group, each with its group's number as its person.

    Raises:
        DataError: none of them is.
    """
    return [replace(record, person=said_of(record, groups)) for record in named(records, groups, "group")]


def is_named(record: Record, said: Mapping[str, object]) -> bool:
    """Whether something is said of an image, or of its whole file."""
    return record.name in said or record.path in said


def said_of(record: Record, said: Mapping[str, Said]) -> Said:
    """What is said of an image that ``is_named``: of itself, else of its whole file."""
    return said[record.name if record.name in said else record.path]


def named(records: Sequence[Record], said: Mapping[str, object], what: str) -> list[Record]:
    """The records of which something is said.

    Raises:
        DataError: none of them is; says how their paths begin. ``what`` is missing, such as a caption.
    """
    known = [record for record in records if is_named(record, said)]
    if not known:
        raise DataError(
            f"no {what} is given for any of the {len(records)} images; paths begin at the data set's root, such as "
            f"{records[0].path}, not {next(iter(said), 'nothing')}"
        )
    return known
