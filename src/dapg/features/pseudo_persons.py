"""Pseudo-persons for images without labels: the tracks of a cropped video, or clusters of near features."""

import importlib.util
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.ranges import Count, Pixels, Processes, Seed
from dapg.core.runtime import Runtime
from dapg.core.seeds import derive_seed
from dapg.core.settings import unset
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.words import counted
from dapg.data.loading import OnBadImage
from dapg.data.source import open_dataset, select_records
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import Unreadable, extract
from dapg.features.neighbours import read_sightings

TRACKS = "tracks"
_FEW = 20_000
"""Up to so many images are clustered exactly; beyond, in random batches."""


@dataclass(frozen=True)
class GroupSettings:
    """Which images, and what puts two of them together."""

    data: DataConfig = field(default_factory=DataConfig)
    """Images; their labels are not looked at."""
    by: str = "histogram"
    """tracks (a folder that ``dapg data crop`` made), or features: histogram, random, imagenet, a run's folder or a
    weights file."""
    groups: Count = 200
    """Clusters of features (k-means)."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 128
    """Rows of the input, where the model does not say."""
    width: Pixels = 64
    """Columns of the input, where the model does not say."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    seed: Seed = 0
    """Of random weights, subsets and first centres."""
    workers: Processes = 2
    """Loader processes."""
    out: str = "groups.tsv"
    """The file: an image a line, path, tab, number."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def group(settings: GroupSettings, unreadable: Unreadable | None = None) -> dict[str, int]:
    """Name of each image (``Record.name``) -> number of its group.

    Args:
        settings: which images, and what puts two of them together.
        unreadable: takes the images that are left out because they cannot be read.

    Raises:
        UsageError: fewer images than groups, an unknown model, no tracks, or scikit-learn is missing.
        DataError: an image cannot be read, with ``on_bad_image: fail``, or none can.
    """
    if settings.by == TRACKS:
        seen = read_sightings(Path(settings.data.root))
        return dict(zip(seen.files, seen.tracks.tolist(), strict=True))
    dataset = open_dataset(settings.data)
    records = select_records(dataset, settings.data, settings.seed)
    require_clusters(len(records), settings.groups)
    size = (settings.height, settings.width)
    runtime = Runtime(resolve_device(settings.device), workers=settings.workers, progress=True)
    encoder = build_encoder(settings.by, settings.backbone, size, settings.seed, runtime.device)
    left_out = {} if unreadable is None else unreadable
    table = extract(encoder, dataset, records, runtime, left_out if settings.on_bad_image == "skip" else None)
    require_clusters(len(table), settings.groups)
    numbers = clusters(table[encoder.headline], settings.groups, settings.seed)
    return {record.name: number for record, number in zip(table.records, numbers, strict=True)}


def require_clusters(images: int, groups: int) -> None:
    """Fail before the features are made, not after.

    Raises:
        UsageError: fewer images than groups, fewer than two groups, or scikit-learn is missing.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise UsageError("clustering needs scikit-learn: pip install 'dapg[plot]'")
    if not 2 <= groups <= images:
        raise UsageError(f"--groups is between 2 and the number of images ({images}), not {groups}")


def clusters(features: Float[Tensor, "N D"], groups: int, seed: int) -> list[int]:
    """The k-means cluster of each row; the numbers mean nothing."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = KMeans if len(features) <= _FEW else MiniBatchKMeans
    model = kind(groups, n_init=1, random_state=derive_seed("clusters", seed) % 2**32)
    numbers: list[int] = model.fit_predict(features.to(torch.float32).numpy()).tolist()
    return numbers


def describe(groups: Mapping[str, int]) -> str:
    """One line: how many images in how many groups, and of what sizes."""
    sizes = sorted(Counter(groups.values()).values())
    return (
        f"{counted(len(groups), 'image')} in {counted(len(sizes), 'group')} of {sizes[0]} to {sizes[-1]} "
        f"(half have at most {sizes[(len(sizes) - 1) // 2]})"
    )
