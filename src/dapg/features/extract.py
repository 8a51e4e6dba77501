"""Features of a list of pictures, once each, in the list's order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dapg.core.batch import Batch
from dapg.core.types import Modality, Record, Trial
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import Encoder

CENTRED = ", centred per camera"


def extract(
    encoder: Encoder,
    dataset: Dataset,
    records: Sequence[Record],
    batch_size: int = 64,
    loader: LoaderConfig | None = None,
    show_progress: bool = True,
) -> dict[str, Float[Tensor, "N D"]]:
    """Named features on the CPU, float32; row i belongs to ``records[i]``.

    Raises:
        DataError: a picture cannot be read; scores over fewer pictures would be other scores.
    """
    height, width = encoder.input_size
    config = replace(loader or LoaderConfig(), height=height, width=width)
    batches = ordered_batches(dataset, records, batch_size, config, encoder.device.type == "cuda")
    return encode_batches(encoder, batches, len(records), show_progress)


@torch.no_grad()
def encode_batches(
    encoder: Encoder, batches: Iterable[Batch], count: int, show_progress: bool = True, title: str = "features"
) -> dict[str, Float[Tensor, "N D"]]:
    """Named features of ``count`` decoded pictures in their order, on the CPU, float32."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    with tqdm(total=count, desc=title, unit="picture", disable=None if show_progress else True) as bar:
        for batch in batches:
            collected: dict[str, Tensor] = {}
            for modality in Modality:
                rows = (batch.modalities == int(modality)).nonzero()[:, 0]
                if len(rows) == 0:
                    continue
                for name, features in encoder.encode(batch.images[rows], modality).items():
                    if name not in collected:
                        collected[name] = torch.zeros(len(batch), features.shape[1])
                    collected[name][rows] = features.float().cpu()
            for name, features in collected.items():
                parts[name].append(features)
            bar.update(len(batch))
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def trial_features(
    encoder: Encoder, dataset: Dataset, trials: Sequence[Trial], batch_size: int, workers: int, show_progress: bool
) -> tuple[dict[str, Tensor], dict[Record, int]]:
    """Features of every picture of the trials, each encoded once, raw and centred per camera; and their rows."""
    rows = trial_rows(trials)
    records = list(rows)
    features = extract(encoder, dataset, records, batch_size, LoaderConfig(workers=workers), show_progress)
    return with_centred(features, records), rows


def trial_rows(trials: Sequence[Trial]) -> dict[Record, int]:
    """A row for each picture that is in some trial."""
    rows: dict[Record, int] = {}
    for trial in trials:
        for record in (*trial.query, *trial.gallery):
            rows.setdefault(record, len(rows))
    return rows


def with_centred(features: dict[str, Tensor], records: Sequence[Record]) -> dict[str, Tensor]:
    """Each feature as it is, and centred per camera."""
    cameras = torch.tensor([record.camera for record in records])
    return {**features, **{name + CENTRED: centre_per_camera(values, cameras) for name, values in features.items()}}


def centre_per_camera(features: Float[Tensor, "N D"], cameras: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
    """Take each camera's mean feature away and normalise again: removes colour cast and background shared by a camera.

    It uses the test pictures (not their persons) of each camera, so scores with it are reported beside raw ones.
    """
    centred = features.clone()
    for camera in sorted(set(cameras.tolist())):
        rows = cameras == camera
        centred[rows] -= features[rows].mean(dim=0)
    return functional.normalize(centred)
