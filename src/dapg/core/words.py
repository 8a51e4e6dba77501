"""Numbers in sentences, and paths that other people may read."""

from pathlib import PurePosixPath, PureWindowsPath
from typing import TypeVar

T = TypeVar("T")


def counted(number: int, noun: str) -> str:
    """``1 seed``, ``2 boxes``, ``3,000 queries``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('x') else 's'}"
    return f"{number:,} {noun if number == 1 else plural}"


def without_folders(value: T) -> T:
    """Settings, or words of a command line, with ``.../name`` for each absolute path: pages are shown to others.

    Looks into dictionaries, lists and tuples, and behind the ``=`` of ``NAME=PATH`` and ``--option=PATH``.
    """
    if isinstance(value, str):
        return "=".join(map(_without_folder, value.split("=")))  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(map(without_folders, value))
    return value


def _without_folder(word: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(word).is_absolute():
            return f".../{kind(word).name}"
    return word
