"""Corrupted test images on disk, made once per machine and shared by models of one input size; bounded.

One file holds one test set as the network sees it. Its name is a hash of everything that the images depend on, their
originals' content included, so a file is never out of date; the oldest go when there is no room.
"""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dapg.core.files import atomic_path
from dapg.core.types import JsonObject
from dapg.corruptions import library

FOLDER = "DAPG_CACHE"
"""Environment variable that names another folder than ``~/.cache/dapg``."""


def default_folder() -> Path:
    """``$DAPG_CACHE``, else ``dapg`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen) / "corrupted"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dapg" / "corrupted"


@dataclass
class ImageCache:
    """Files below a folder, at most ``limit`` bytes of them.

    What this process used is not thrown out to make room for more of its own: going through more than fits again and
    again would otherwise find nothing.
    """

    folder: Path
    limit: int
    """Bytes; 0 keeps nothing."""
    started: float = field(default_factory=time.time)

    def path(self, described: JsonObject) -> Path:
        """The file of the images that depend on what is described."""
        whole = {**described, "draws": library.DRAWS, "torch": torch.__version__}
        name = hashlib.blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=16).hexdigest()
        return self.folder / f"{name}.npy"

    def get(self, path: Path) -> UInt8[np.ndarray, "N 3 h w"] | None:
        """Images in memory-mapped form, newest from now on; None where there are none."""
        try:
            images: UInt8[np.ndarray, "N 3 h w"] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError):
            return None
        return images

    def put(self, path: Path, images: UInt8[np.ndarray, "N 3 h w"]) -> None:
        """Keep images where they fit; a cache that cannot be written is only slower."""
        if self._make_room(images.nbytes + 1024):
            with contextlib.suppress(OSError), atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, images, allow_pickle=False)

    def clear(self) -> int:
        """Delete all images; returns the bytes that were freed."""
        return sum(self._delete(path) for path, _, _ in self._files())

    def _files(self) -> list[tuple[Path, int, float]]:
        """Path, bytes and time of last use of each, the oldest first."""
        files = []
        for path in self.folder.glob("*.npy"):
            with contextlib.suppress(OSError):  # another process may have thrown it out
                status = path.stat()
                files.append((path, status.st_size, status.st_mtime))
        return sorted(files, key=lambda file: file[2])

    def _make_room(self, size: int) -> bool:
        files = self._files()
        used = sum(length for _, length, _ in files)
        for path, length, last_use in files:
            if used + size <= self.limit or last_use >= self.started:
                break
            used -= length
            self._delete(path)
        return used + size <= self.limit

    @staticmethod
    def _delete(path: Path) -> int:
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError:
            return 0
        return size
