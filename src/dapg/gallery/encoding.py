"""What a gallery needs to know of an image: read, decoded and encoded, in this process or in shards."""

import functools
import hashlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import BusyError, DataError, UsageError
from dapg.core.files import folder_lock, write_arrays
from dapg.core.images import cut, decode, sharpness
from dapg.core.launch import ShardsFailed, launch
from dapg.core.schema import read_arrays
from dapg.core.shards import Job, RunShard, piece
from dapg.data.sightings import Sighting
from dapg.features.networks import Network, NetworkSettings
from dapg.gallery.database import INCOMING, OWNER, UPLOAD

SHARD = 256
"""Images of a shard, which are also written in one transaction."""


@dataclass(frozen=True)
class Decoded:
    """An image that the network has not seen yet."""

    sighting: Sighting
    sha256: str
    crop: bytes
    image: UInt8[Tensor, "3 H W"]


@dataclass(frozen=True)
class Encoded:
    """What is written down of an image."""

    sighting: Sighting
    sha256: str
    crop: bytes
    vector: Float16[np.ndarray, "D"]
    quality: float


@dataclass(frozen=True)
class Damaged:
    """A file that is no image."""

    sighting: Sighting
    message: str


def read_decoded(sighting: Sighting, size: tuple[int, int], copy: bool) -> Decoded | Damaged:
    """The image at the network's size, with what is kept of its file: all of it, the crop of a box, or nothing."""
    try:
        data = sighting.read()
        image = decode(data, size, sighting.box, sighting.path)
        stays = not copy and Path(sighting.path).is_file()
        crop = b"" if stays else data if sighting.box is None else cut(data, sighting.box)
    except DataError as error:
        return Damaged(sighting, str(error))
    return Decoded(sighting, hashlib.sha256(data).hexdigest(), crop, image)


def encode(network: Network, batch: Sequence[Decoded | Damaged]) -> list[Encoded | Damaged]:
    """The same, in the same order, with features."""
    decoded = [result for result in batch if isinstance(result, Decoded)]
    if not decoded:
        return [result for result in batch if isinstance(result, Damaged)]
    images = torch.stack([result.image for result in decoded])
    vectors = iter(network.encode_mixed(images, [result.sighting.modality for result in decoded]))
    qualities = iter(sharpness(images).tolist())
    return [
        result
        if isinstance(result, Damaged)
        else Encoded(result.sighting, result.sha256, result.crop, next(vectors), next(qualities))
        for result in batch
    ]


@dataclass(frozen=True)
class Encoding:
    """How shards are encoded; it travels to the workers."""

    network: NetworkSettings
    model: str
    """Hash of the network."""
    device: str
    batch_size: int
    threads: int
    copy: bool


def in_shards(
    folder: Path, parts: Iterable[Sequence[Sighting]], encoding: Encoding, engine: EngineSettings
) -> Iterator[list[Encoded | Damaged]]:
    """Have workers encode all parts, and give them one after the other; each is forgotten when the next is asked for.

    Args:
        folder: of this job, which all workers see; what is finished in it is not encoded again.
        parts: lists of sightings, by their places in a source; an empty one is left out.
        encoding: how.
        engine: who does the work.

    Raises:
        BusyError: another command encodes the same source.
        ShardsFailed: after all other parts.
    """
    shards = {f"{number:06d}-{_digest(part, encoding)}": part for number, part in enumerate(parts) if part}
    if not shards:
        return
    failed: ShardsFailed | None = None
    with folder_lock(folder, OWNER):
        sizes = {shard: len(part) for shard, part in shards.items()}
        try:
            launch(Job("index", folder, sizes, "picture", functools.partial(_start, folder, shards, encoding)), engine)
        except ShardsFailed as error:
            failed = error
        for shard, part in shards.items():
            if failed is None or shard not in failed.reasons:
                yield _read(piece(folder, shard, ".npz"), part)
                piece(folder, shard, ".npz").unlink(missing_ok=True)
        if failed:
            raise failed
        shutil.rmtree(folder)


def remove_pieces(gallery: Path) -> None:
    """What killed commands have left of images, which a deletion must not leave behind."""
    for folder in (*(gallery / INCOMING).glob("*/"), *gallery.glob(f"{UPLOAD}*/")):
        with suppress(BusyError), folder_lock(folder, OWNER, patience=0.0):
            shutil.rmtree(folder)


def _digest(part: Sequence[Sighting], encoding: Encoding) -> str:
    """Changes with whatever the features depend on."""
    lines = [f"{s.path} {s.stamp} {s.box} {s.modality}" for s in part]
    about = f"{encoding.model} {encoding.batch_size} {encoding.copy}"
    return hashlib.blake2b("\n".join([about, *lines]).encode(), digest_size=8).hexdigest()


def _start(folder: Path, shards: Mapping[str, Sequence[Sighting]], encoding: Encoding) -> RunShard:
    network = Network(encoding.network, encoding.device)
    if network.card.hash != encoding.model:
        raise UsageError(
            f"{encoding.network.model} is another network on this machine than where the command was given"
        )
    pool = ThreadPoolExecutor(encoding.threads)
    read = functools.partial(read_decoded, size=network.input_size, copy=encoding.copy)

    def run_shard(shard: str) -> list[Path]:
        results: list[Encoded | Damaged] = []
        ahead = pool.map(read, shards[shard])  # all of them, while batches are encoded
        while batch := list(itertools.islice(ahead, encoding.batch_size)):
            results += encode(network, batch)
        _write(piece(folder, shard, ".npz"), results)
        return [piece(folder, shard, ".npz")]

    return run_shard


def _write(path: Path, results: Sequence[Encoded | Damaged]) -> None:
    whole = [result for result in results if isinstance(result, Encoded)]
    arrays = {
        "damaged": np.array([result.message if isinstance(result, Damaged) else "" for result in results], np.str_),
        "sha256": np.array([result.sha256 for result in whole], np.str_),
        "vectors": np.array([result.vector for result in whole], np.float16),
        "qualities": np.array([result.quality for result in whole]),
        "ends": np.cumsum([len(result.crop) for result in whole], dtype=np.int64),
        "crops": np.frombuffer(b"".join(result.crop for result in whole), np.uint8),
    }
    write_arrays(path, arrays)


def _read(path: Path, part: Sequence[Sighting]) -> list[Encoded | Damaged]:
    arrays = read_arrays(path)
    crops = [crop.tobytes() for crop in np.split(arrays["crops"], arrays["ends"][:-1])]
    rows = zip(arrays["sha256"].tolist(), crops, arrays["vectors"], arrays["qualities"].tolist(), strict=False)
    return [
        Damaged(sighting, message) if message else Encoded(sighting, *next(rows))
        for sighting, message in zip(part, arrays["damaged"].tolist(), strict=True)
    ]
