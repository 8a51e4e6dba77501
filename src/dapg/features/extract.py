"""Features of a list of images, once each, in the list's order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dapg.core.batch import Batch
from dapg.core.device import send
from dapg.core.errors import DataError, UsageError
from dapg.core.progress import progress_bar
from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Record, Trial
from dapg.core.words import counted
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import Encoder
from dapg.features.table import FeatureTable

Unreadable = dict[str, str]
"""Name of an image (``Record.name``) -> why it could not be read."""


def extract(
    encoder: Encoder,
    dataset: Dataset,
    records: Sequence[Record],
    runtime: Runtime,
    unreadable: Unreadable | None = None,
) -> FeatureTable:
    """Named features on the CPU, float32.

    Args:
        encoder: makes them.
        dataset: opens the images.
        records: the images.
        runtime: where, and how many at once.
        unreadable: takes the images that cannot be read, which are then left out of the table; None: they are an error.

    Raises:
        DataError: an image cannot be read, or none of them.
    """
    height, width = encoder.input_size
    config = LoaderConfig(height=height, width=width, workers=runtime.workers)
    skip = unreadable is not None
    batches = ordered_batches(dataset, records, runtime.batch_size, config, encoder.device.type == "cuda", skip)
    return encode_batches(encoder, batches, records, runtime.progress, unreadable)


@torch.no_grad()
def encode_batches(
    encoder: Encoder,
    batches: Iterable[Batch],
    records: Sequence[Record],
    progress: bool = False,
    unreadable: Unreadable | None = None,
) -> FeatureTable:
    """Named features of decoded images, which come in the order of ``records``."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    with progress_bar("features", "image", len(records), shown=progress) as bar:
        for batch in batches:
            if unreadable is not None:
                unreadable |= {bad.name: bad.reason for bad in batch.bad_images}
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
    table = FeatureTable({name: torch.cat(blocks) for name, blocks in parts.items()}, records)
    if not unreadable:
        return table
    rest = [record for record in records if record.name not in unreadable]
    if not rest:
        name, reason = next(iter(unreadable.items()))
        raise DataError(f"none of {len(records)} images can be read; first {name}: {reason}")
    return table.of(rest)


def checked_feature(encoder: Encoder, wanted: str, derived: Sequence[str] = ()) -> str:
    """The feature to report, the encoder's headline where none is named; tried on a black image before the real ones.

    Args:
        encoder: makes the features.
        wanted: one of its features; empty: its headline.
        derived: endings of names of features that are made from each of its own later.

    Raises:
        UsageError: it makes none of that name.
    """
    if not wanted:
        return encoder.headline
    black = torch.zeros(1, 3, *encoder.input_size, dtype=torch.uint8)
    with torch.no_grad():
        names = list(encoder.encode(black.to(encoder.device), Modality.VISIBLE))
    if wanted not in (*names, *(name + ending for name in names for ending in derived)):
        raise UsageError(f"there is no feature {wanted!r}; there are {', '.join(names)}")
    return wanted


def readable_trials(trials: Sequence[Trial], unreadable: Unreadable) -> list[Trial]:
    """The trials without those images; no longer the published ones where there are any.

    Raises:
        DataError: a trial loses all its queries or its gallery.
    """
    if not unreadable:
        return list(trials)

    def rest(records: Sequence[Record]) -> tuple[Record, ...]:
        return tuple(record for record in records if record.name not in unreadable)

    return [replace(trial, query=rest(trial.query), gallery=rest(trial.gallery), comparable=False) for trial in trials]


def left_out(unreadable: Unreadable, consequence: str = "so that the score is another one") -> list[str]:
    """A note for a result, if there is something to note."""
    if not unreadable:
        return []
    name, reason = next(iter(unreadable.items()))
    said = reason if name in reason else f"{name}: {reason}"
    what = f"{counted(len(unreadable), 'unreadable image')} left out"
    return [f"{', '.join(filter(None, [what, consequence]))}; first {said}"]


def trial_features(
    encoder: Encoder,
    dataset: Dataset,
    trials: Sequence[Trial],
    runtime: Runtime,
    unreadable: Unreadable | None = None,
) -> FeatureTable:
    """Features of every image of the trials, each encoded once, raw and centred per camera; see ``extract``."""
    return extract(encoder, dataset, trial_records(trials), runtime, unreadable).with_centred()


def trial_records(trials: Sequence[Trial]) -> list[Record]:
    """Every image that is in some trial, once."""
    return list(dict.fromkeys(record for trial in trials for record in (*trial.query, *trial.gallery)))
