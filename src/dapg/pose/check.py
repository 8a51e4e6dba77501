"""Did generation hit the pose? Key points of generated images against the canonical ones, kept in the manifest."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from dapg.augment.skeleton import canonical_poses
from dapg.core.errors import DataError, UsageError
from dapg.core.files import folder_lock, remove_leftovers_of
from dapg.core.images import decode, upright_size
from dapg.core.progress import progress_bar
from dapg.core.types import JsonObject
from dapg.data.loading import OnBadImage
from dapg.data.manifest import ABOUT, MANIFEST, GeneratedImage, read_manifest, write_manifest
from dapg.pose.estimators.base import Estimator
from dapg.pose.scores import pck

SAVE_EVERY = 64
"""Batches between two saved states."""


def check_generated(folder: Path | str, network: Estimator, on_bad_image: OnBadImage = "skip") -> JsonObject:
    """Score every generated image of a folder that has no score yet: PCK at 0.2 of the torso against its pose.

    The manifest is rewritten whole from time to time, so that a killed run goes on where it was.

    Args:
        folder: what ``dapg pose generate`` wrote.
        network: finds the key points.
        on_bad_image: whether an image that cannot be read is left without a score, or an error.

    Returns:
        The number of images, by pose their mean score, and why some could not be read.

    Raises:
        UsageError: a pose that is not one of the canonical ones.
        DataError: no manifest, or, with ``fail``, an image that cannot be read.
        BusyError: another process is at it.
    """
    read_manifest(folder)  # or a folder that is none would get a lock
    with folder_lock(Path(folder)):
        remove_leftovers_of(Path(folder, name) for name in (MANIFEST, ABOUT))
        return _check(Path(folder), network, on_bad_image == "skip")


def _check(folder: Path, network: Estimator, skip: bool) -> JsonObject:
    manifest = read_manifest(folder)
    targets = canonical_poses()
    unknown = [pose for pose in manifest.poses if pose not in targets]
    if unknown:
        raise UsageError(
            f"{folder}: {', '.join(unknown)} is not one of the canonical poses, whose key points are known"
        )
    images = list(manifest.pictures)
    todo = [number for number, image in enumerate(images) if image.file and image.score is None]
    unreadable: dict[str, str] = {}
    with progress_bar("check", "image", len(todo)) as bar:
        for count, start in enumerate(range(0, len(todo), network.batch_size)):
            numbers = todo[start : start + network.batch_size]
            decoded = {}
            for number in numbers:
                try:
                    decoded[number] = _read(folder / images[number].file, network)
                except DataError as error:
                    if not skip:
                        raise
                    unreadable[images[number].file] = str(error)
            scores = _scores([images[number] for number in decoded], list(decoded.values()), network)
            for number, score in zip(decoded, scores, strict=True):
                images[number] = replace(images[number], score=score)
            bar.update(len(numbers))
            if (count + 1) % SAVE_EVERY == 0:
                write_manifest(replace(manifest, pictures=tuple(images)))
    if len(unreadable) < len(todo):
        write_manifest(replace(manifest, pictures=tuple(images)))
    means = {pose: _mean([p.score for p in images if p.pose == pose]) for pose in manifest.poses}
    count = sum(bool(image.file) for image in images)
    return {"pictures": count, "mean_score": means, "unreadable": unreadable}


def _read(path: Path, network: Estimator) -> tuple[UInt8[Tensor, "3 H W"], tuple[int, int]]:
    """An image as the network takes it, and its own size."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; run dapg pose generate again") from error
    return decode(data, network.input_size, None, str(path)), upright_size(data, None, str(path))


def _scores(
    listed: Sequence[GeneratedImage],
    decoded: Sequence[tuple[UInt8[Tensor, "3 H W"], tuple[int, int]]],
    network: Estimator,
) -> list[float]:
    if not listed:
        return []
    sizes = [size for _, size in decoded]
    points = network.estimate(torch.stack([image for image, _ in decoded]), torch.tensor(sizes))
    target = torch.stack([canonical_poses()[image.pose] for image in listed])
    aspect = torch.tensor([width / height for height, width in sizes])
    scores: list[float] = pck(points, target, aspect).tolist()
    return scores


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / max(len(known), 1)
