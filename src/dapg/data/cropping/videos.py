"""Shared: videos and folders of frames, read in order; what cannot be decoded is passed over and counted."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dapg.core.errors import DataError
from dapg.core.images import open_rgb
from dapg.data.cropping._opencv import opencv
from dapg.data.listing import is_image, walk

VIDEO_SUFFIXES = {
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
}  # fmt: skip
_PATIENCE = 100
"""Frames in a row that cannot be decoded before the rest of a video is given up."""
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Video:
    """One video file, or one folder of images in the order of their names. Nothing is decoded yet."""

    name: str
    """Path below what the user named, with forward slashes; the folder of its crops."""
    path: Path
    frames_per_second: float
    frames: int
    """As the file claims; 0 where it does not say."""
    fingerprint: str
    """Changes when the file does."""
    pictures: tuple[str, ...] = ()
    """File names of a folder of images."""


@dataclass(frozen=True)
class Moment:
    """One frame."""

    number: int
    """Counts the frames that could be decoded, from 0; for a folder of images, all its images."""
    seconds: float
    """Since the beginning, by the file's own clock."""
    pixels: UInt8[np.ndarray, "H W 3"] | None
    """None where this frame cannot be decoded."""


def find_videos(source: Path, frames_per_second: float, without: Path | None = None) -> tuple[list[Video], list[str]]:
    """The videos that a path names, sorted by name, and a message for each that cannot be opened.

    Args:
        source: a video, or a folder. Below a folder every video counts, and every folder that holds images.
        frames_per_second: of folders of images, which do not say.
        without: a folder that is passed over, as it holds crops.

    Raises:
        DataError: there is no such path, no video, or none that can be opened.
    """
    if source.is_file():
        return [_open_file(source, source.name)], []
    if not source.is_dir():
        raise DataError(f"{source} is neither a video nor a folder")
    videos, problems = [], []
    without = without and without.resolve()
    for folder, folders, files in walk(source):
        folders[:] = [name for name in folders if (folder / name).resolve() != without]
        visible = sorted(name for name in files if not name.startswith("."))
        for name in visible:
            path = folder / name
            if path.suffix.lower() in VIDEO_SUFFIXES:
                try:
                    videos.append(_open_file(path, path.relative_to(source).as_posix()))
                except DataError as error:
                    problems.append(str(error))
        images = tuple(name for name in visible if is_image(name))
        if images:
            relative = folder.relative_to(source).as_posix()
            name = source.resolve().name if relative == "." else relative
            videos.append(_folder_of_images(folder, name, images, frames_per_second))
    if not videos:
        reason = problems[0] if problems else f"no video ({', '.join(sorted(VIDEO_SUFFIXES))}) and no image"
        raise DataError(f"nothing to crop below {source}: {reason}")
    return sorted(videos, key=lambda video: video.name), problems


class Reader:
    """The wanted frames of a video from its beginning, in order.

    Frames that are not wanted are decoded and dropped: seeking lands beside the frame asked for in many formats, and a
    crop would be lost or doubled.
    """

    def __init__(self, video: Video, wanted: Callable[[int], bool]) -> None:
        self.video, self.wanted = video, wanted
        self.missing = 0
        """After the last frame: how many could not be decoded, or lie beyond the point where the file's clock ends."""

    def __iter__(self) -> Iterator[Moment]:
        """Stop asking when no more is needed; ``missing`` is known only after the last frame."""
        return self._images() if self.video.pictures else self._frames()

    def _frames(self) -> Iterator[Moment]:
        cv2 = opencv()
        capture = _capture(self.video.path)
        number = failed = self.missing = 0
        last = -1.0
        try:
            while failed < _PATIENCE:
                if not capture.grab():  # the end, or a damaged frame: what follows may be fine
                    failed += 1
                    continue
                clock = float(capture.get(cv2.CAP_PROP_PTS))
                if failed:
                    self.missing += max(1, round(clock - last) - 1)
                failed, last = 0, max(clock, last, float(number))
                if self.wanted(number):
                    decoded, pixels = capture.retrieve()
                    seconds = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000 or number / self.video.frames_per_second
                    yield Moment(number, seconds, np.ascontiguousarray(pixels[:, :, ::-1]) if decoded else None)
                number += 1
        finally:
            capture.release()
        # By the clock, not by the number of frames: a variable rate has fewer frames than duration times rate.
        self.missing += max(0, self.video.frames - round(last) - 1)

    def _images(self) -> Iterator[Moment]:
        for number, name in enumerate(self.video.pictures):
            if not self.wanted(number):
                continue
            path = self.video.path / name
            try:
                pixels = np.array(open_rgb(path.read_bytes(), str(path)))
            except (DataError, OSError):
                pixels = None
            yield Moment(number, number / self.video.frames_per_second, pixels)


def _open_file(path: Path, name: str) -> Video:
    capture = _capture(path)
    cv2 = opencv()
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    frames = int(max(0, capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    capture.release()
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as handle:
        digest.update(handle.read(_MEBIBYTE))
        handle.seek(max(0, size - _MEBIBYTE))
        digest.update(handle.read(_MEBIBYTE))
    return Video(name, path, rate if 0 < rate < 1000 else 25.0, frames, digest.hexdigest())


def _folder_of_images(path: Path, name: str, images: tuple[str, ...], frames_per_second: float) -> Video:
    text = "\n".join(f"{image}\t{(path / image).stat().st_size}" for image in images)
    fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Video(name, path, frames_per_second, len(images), fingerprint, images)


def _capture(path: Path) -> Any:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(f"{path}: not a video that can be opened (damaged, cut off before its index, or unknown codec)")
    return capture
