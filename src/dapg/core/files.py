"""Files that are whole or absent: atomic writes, JSON, CSV, and a lock that dies with its process."""

import contextlib
import csv
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from dapg.core.errors import BusyError, DapgError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
"""Files that ship inside the package: people, weights, poses, frost."""


_SCARCE = 100_000_000
"""Bytes: with fewer free, a library that only says "write failed" has met a full disk."""


def _mode_of_a_new_file(path: Path) -> int:
    """What the umask leaves of 0o666, by making a file: whoever asks for the umask changes it for all threads."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
        path.unlink()


@contextlib.contextmanager
def atomic_path(path: Path | str, flushed: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The content is flushed to the disk before the rename, so that a killed process or a power cut leaves the old
    file or the new one; not ``flushed``, a power cut may leave it empty. A full disk is reported as such, and the old
    file stays.
    """
    final = Path(path)
    # Not the whole name: a legal name of 250 characters would become one of more than 255.
    temporary = final.with_name(f"{_stem(final)}.{own_name()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of_a_new_file(temporary)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fchmod(handle.fileno(), mode)  # some writers make files that only their owner can read
            if flushed:
                os.fsync(handle.fileno())
        temporary.replace(final)
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        raise write_failure(final, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_failure(path: Path, error: Exception) -> DapgError:
    """What to say of a file that could not be written: where, why, and what to do about it."""
    return DapgError(f"could not write {path}: {getattr(error, 'strerror', None) or error}{full_disk(path, error)}")


def full_disk(path: Path, error: Exception) -> str:
    """Which disk is full and what to do, after a semicolon; nothing where a write failed for another reason."""
    place = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    named = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if not named and (isinstance(error, OSError) or free >= _SCARCE):
        return ""
    return (
        f"; {free // 10**6:,} MB are free on the disk of {place}: make room there, then run it again to go on, or give "
        "an --out on another disk"
    )


def remove_leftovers(folder: Path, below: bool = False) -> None:
    """Delete the temporary files of killed writers in a folder, or in all ``below`` it too; for who holds its lock."""
    for temporary in (folder.rglob if below else folder.glob)(".*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers_of(files: Iterable[Path]) -> None:
    """Delete the temporary files of writers that were killed at these files; for who alone may write them.

    Others may be writing other files of the same folders.
    """
    stems: dict[Path, set[str]] = {}
    for file in files:
        stems.setdefault(file.parent, set()).add(_stem(file))
    for folder, mine in stems.items():
        for temporary in folder.glob(".*.tmp"):
            if temporary.name.rsplit(".", 2)[0] in mine:
                temporary.unlink(missing_ok=True)


def own_name() -> str:
    """A part of a file's name that no other writer has: in each container, the first process is number 1."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _stem(final: Path) -> str:
    return f".{hashlib.blake2b(final.name.encode(), digest_size=8).hexdigest()}"


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a whole binary file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write a whole UTF-8 text file or nothing."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed ``.npz`` file of named arrays."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]  # "allow_pickle" is no name of an array


_FORMULA = re.compile(r"'*[=+\-@\t\r\n].", re.DOTALL)
_GUARDED = re.compile(r"'+[=+\-@\t\r\n].", re.DOTALL)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated lines of rows of cells, none of which a spreadsheet takes for a formula.

    Spreadsheets run a text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break, even if it is a file's
    name. An apostrophe before it makes it text (OWASP, "CSV injection"). Numbers stay as they are.
    """
    lines: list[str] = []
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")  # what the end holds is quoted
    writer.writerows([_guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def plain_cell(cell: str) -> str:
    """A cell as it was before ``csv_text`` guarded it; any other text as it is."""
    return cell[1:] if _GUARDED.match(cell) else cell


def _guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_json(path: Path | str, value: object) -> None:
    """Write JSON with sorted keys and two-space indents, a list of numbers on one line.

    NaN and infinity become null, which JSON has no word for.
    """
    text = json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # Inside a string a line break is escaped, so that only lists begin like this.
    text = re.sub(r"\[\n([-+.\deE,\s]*)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    atomic_write_text(path, text + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def folder_lock(folder: Path, rank: int = 0, patience: float = 15.0) -> Iterator[None]:
    """Only one process at a time works in a folder; the system frees the lock when the process dies, however it dies.

    The file ``.lock.<rank>`` holds the owner's process id. Loader workers, which may outlive a killed run by some
    seconds, do not keep the lock: filelock closes its descriptor in forked children.

    Args:
        folder: created where it is missing.
        rank: each process of a run has a lock of its own.
        patience: seconds to wait for a dying process to let go.

    Raises:
        BusyError: another live process works in this folder.
        DapgError: the lock cannot be written.
    """
    path = folder / f".lock.{rank}"

    def sign(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())

    lock = FileLock(path, timeout=patience, poll_interval=0.2, fallback_to_soft=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        owner = path.read_text().strip() or "unknown"
        raise BusyError(f"{folder} is in use by process {owner}; stop it or give another --out") from None
    except OSError as error:  # some network file systems know no locks
        raise DapgError(f"cannot lock {path}: {error.strerror or error}; give another --out") from error
    try:
        yield
    finally:
        lock.release()
