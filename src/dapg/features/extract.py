"""Features of a list of images, once each, in the list's order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dapg.core.batch import Batch
from dapg.core.device import send
from dapg.core.progress import progress_bar
from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Record, Trial
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import Encoder
from dapg.features.table import FeatureTable


def extract(encoder: Encoder, dataset: Dataset, records: Sequence[Record], runtime: Runtime) -> FeatureTable:
    """Named features on the CPU, float32.

    Raises:
        DataError: an image cannot be read; scores over fewer images would be other scores.
    """
    height, width = encoder.input_size
    config = LoaderConfig(height=height, width=width, workers=runtime.workers)
    batches = ordered_batches(dataset, records, runtime.batch_size, config, encoder.device.type == "cuda")
    return encode_batches(encoder, batches, records, runtime.progress)


@torch.no_grad()
def encode_batches(
    encoder: Encoder, batches: Iterable[Batch], records: Sequence[Record], progress: bool = False
) -> FeatureTable:
    """Named features of decoded images, which come in the order of ``records``."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    with progress_bar("features", "image", len(records), shown=progress) as bar:
        for batch in batches:
            collected: dict[str, Tensor] = {}
            images = batch.images.to(encoder.device, non_blocking=True)
            for modality in Modality:
                rows = (batch.modalities == int(modality)).nonzero()[:, 0]
                if len(rows) == 0:
                    continue
                chosen = images if len(rows) == len(batch) else images.index_select(0, send(rows, encoder.device))
                for name, features in encoder.encode(chosen, modality).items():
                    if name not in collected:
                        collected[name] = torch.zeros(len(batch), features.shape[1])
                    collected[name][rows] = features.float().cpu()
            for name, features in collected.items():
                parts[name].append(features)
            bar.update(len(batch))
    return FeatureTable({name: torch.cat(blocks) for name, blocks in parts.items()}, records)


def trial_features(encoder: Encoder, dataset: Dataset, trials: Sequence[Trial], runtime: Runtime) -> FeatureTable:
    """Features of every image of the trials, each encoded once, raw and centred per camera."""
    return extract(encoder, dataset, trial_records(trials), runtime).with_centred()


def trial_records(trials: Sequence[Trial]) -> list[Record]:
    """Every image that is in some trial, once."""
    return list(dict.fromkeys(record for trial in trials for record in (*trial.query, *trial.gallery)))
