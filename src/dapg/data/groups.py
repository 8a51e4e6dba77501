"""Shared: pseudo-persons, that is which pictures a tracker or a clustering puts together; path<TAB>group number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text
from dapg.core.types import Record


def read_groups(path: Path) -> dict[str, int]:
    """Path -> group number.

    Raises:
        DataError: missing, or a line of another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    groups = {}
    for number, line in enumerate(lines, 1):
        name, tab, group = line.rpartition("\t")
        if not tab or not group.strip().lstrip("-").isdigit():
            raise DataError(f"{path}, line {number}: expected a path, a tab and a group number, got {line!r}")
        groups[name] = int(group)
    return groups


def write_groups(path: Path, groups: Mapping[str, int]) -> None:
    """The same as a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, "".join(f"{name}\t{group}\n" for name, group in groups.items()))


def with_groups(records: Sequence[Record], groups: Mapping[str, int]) -> list[Record]:
    """The records that are in a group, each with its group's number as its person.

    Raises:
        DataError: none of them is.
    """
    found = [replace(record, person=groups[record.path]) for record in records if record.path in groups]
    if not found:
        raise DataError(
            f"none of the {len(records)} pictures is in a group; paths begin at the data set's root, such as "
            f"{records[0].path}, not {next(iter(groups), 'nothing')}"
        )
    return found
