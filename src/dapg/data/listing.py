"""Files of a data set: which are images, where links lead, how lists are read. One rule for every set."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dapg.core.errors import DataError
from dapg.core.types import leads_out

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
"""In lower case; a file's own suffix may be in any case."""


def is_image(path: str) -> bool:
    """Whether a relative path names an image: a known suffix, and nothing hidden on the way.

    macOS leaves ``._NAME`` beside NAME on copies, and ``__MACOSX`` folders in archives.
    """
    parts = PurePosixPath(path).parts
    hidden = any(part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts)
    return bool(parts) and not hidden and PurePosixPath(parts[-1]).suffix.lower() in IMAGE_SUFFIXES


def images_in(folder: Path) -> list[str]:
    """Sorted names of the images in one folder.

    Raises:
        DataError: the folder cannot be read, or a name is not UTF-8.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if is_image(path.name))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    return _utf8(names, folder)


def images_below(root: Path) -> list[str]:
    """Sorted paths of all images below ``root``, relative to it; linked folders are followed, each once.

    Raises:
        DataError: a name is not UTF-8.
    """
    return _utf8(sorted(path for path in files_below(root) if is_image(path)), root)


def files_below(root: Path) -> Iterator[str]:
    """Relative paths of all files below ``root``, of the folders that ``walk`` passes through."""
    for folder, _, files in walk(root):
        yield from ((folder / name).relative_to(root).as_posix() for name in files)


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As ``os.walk``, in the order of names, and through links; what you take out of a list of folders is passed over.

    Hidden folders are left out, and so are links to a folder on the way to them, which would lead round for ever.
    """
    for name, folders, files in os.walk(root, followlinks=True):
        here = Path(name)
        folders[:] = sorted(
            folder
            for folder in folders
            if not folder.startswith(".") and folder != "__MACOSX" and not _leads_back(here / folder, root)
        )
        yield here, folders, files


def _leads_back(folder: Path, root: Path) -> bool:
    """Whether it is a link to one of the folders above it, by the way from the root or by where those really lie."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    above = [way.resolve() for way in folder.parents if way.is_relative_to(root)]
    return any(target == way or target in way.parents for way in above)


def _utf8(paths: list[str], root: Path) -> list[str]:
    """The paths, as every command and every list must be able to write them down."""
    bad = [path for path in paths if any("\ud800" <= letter <= "\udfff" for letter in path)]
    if bad:
        raise DataError(
            f"{root}: {len(bad)} file name(s) are not UTF-8, such as {os.fsencode(bad[0])!r}; rename them (convmv does "
            "whole folders)"
        )
    return paths


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file; a byte-order mark is not part of the first.

    Raises:
        DataError: missing, or not UTF-8: names the line.
    """
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}. See docs/reference/datasets.md.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


_NUMBERS = re.compile(r"\s*\d+\s*(,\s*\d+\s*)*,?\s*")


def read_numbers(path: Path) -> list[int]:
    """Whole numbers between commas or one per line, ascending.

    Raises:
        DataError: missing, empty, or with anything else in it: names the line.
    """
    numbers: list[int] = []
    for place, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        if _NUMBERS.fullmatch(line) is None or len(line) > 1_000_000:
            raise DataError(f"{path}, line {place}: expected whole numbers between commas, such as 6,10,17")
        numbers += [int(number) for number in line.split(",") if number.strip()]
    if not numbers:
        raise DataError(f"{path}: there is no number in it")
    return sorted(numbers)


def inside(text: str, where: str) -> str:
    """A relative path with forward slashes that stays below its root.

    Raises:
        DataError: an absolute path, or one that leads out.
    """
    if not text or leads_out(text):
        raise DataError(f"{where}: a path must be relative and stay below the data set's folder, not {text!r}")
    return PurePosixPath(text.replace("\\", "/")).as_posix()
