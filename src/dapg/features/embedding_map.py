"""Numbers behind the report's images of a feature space: histograms of distances, and its t-SNE map."""

import importlib.util

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.core.seeds import derive_seed
from dapg.core.types import UNKNOWN, JsonObject, Modality
from dapg.features.table import FeatureTable

BINS = 100
MOST_IMAGES = 4000
"""Of each modality in a histogram; of more a random part, which no eye can tell from all."""
MOST_POINTS = 2000
_PAIRS = (
    (Modality.VISIBLE, Modality.VISIBLE),
    (Modality.VISIBLE, Modality.INFRARED),
    (Modality.INFRARED, Modality.INFRARED),
)


def distance_histograms(table: FeatureTable, feature: str, seed: int = 0) -> JsonObject:
    """How far apart images of the same person and of other persons are, for each pair of modalities.

    Args:
        table: unit features of labelled test images.
        feature: which of them.
        seed: which images are taken where there are more than ``MOST_IMAGES`` of a modality.

    Returns:
        ``edges``: 101 cosine distances 0 ... 2 (1 - dot product); ``pairs``: for each pair of modalities that occurs
        the counts ``same`` and ``other`` of pairs of images per bin. Every pair of different images counts once,
        also those that a protocol leaves out of its ranking.
    """
    features, persons = table[feature], table.persons
    rows = {modality: _some(table, modality, seed) for modality in Modality}
    pairs = []
    for first, second in _PAIRS:
        if len(rows[first]) == 0 or len(rows[second]) == 0:
            continue
        counts = np.zeros((2, BINS), dtype=np.int64)
        for start in range(0, len(rows[first]), 500):
            left = rows[first][start : start + 500]
            distances = 1 - features[left] @ features[rows[second]].T
            same = persons[left][:, None] == persons[rows[second]]
            counted = left[:, None] < rows[second] if first == second else torch.ones_like(same)
            bins = (distances * (BINS / 2)).long().clamp(0, BINS - 1)
            for kind, chosen in enumerate((same & counted, ~same & counted)):
                counts[kind] += torch.bincount(bins[chosen], minlength=BINS).numpy()
        names = [modality.name.lower() for modality in (first, second)]
        pairs.append({"modalities": names, "same": counts[0].tolist(), "other": counts[1].tolist()})
    return {"edges": np.linspace(0, 2, BINS + 1).tolist(), "pairs": pairs}


def require_tsne() -> None:
    """Fail before the features are made, not after.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise UsageError("t-SNE needs scikit-learn: pip install 'dapg[plot]'")


def tsne_map(table: FeatureTable, feature: str, persons: int, seed: int = 0) -> list[JsonObject]:
    """Images of some random persons in two dimensions, near where their features are near (van der Maaten, 2008).

    Distances between far clusters and the sizes of clusters mean nothing in such a map.

    Returns:
        For each image ``x``, ``y``, ``person``, ``camera`` and ``modality``.

    Raises:
        UsageError: scikit-learn is not installed, or there are fewer than three images.
    """
    require_tsne()
    from sklearn.manifold import TSNE

    known = sorted(set(table.persons.tolist()) - {UNKNOWN})
    order = torch.randperm(len(known), generator=generator_from("t-SNE persons", seed))[:persons].tolist()
    chosen = {known[place] for place in order}
    rows = [row for row, person in enumerate(table.persons.tolist()) if person in chosen]
    if len(rows) > MOST_POINTS:
        drawn = torch.randperm(len(rows), generator=generator_from("t-SNE pictures", seed))[:MOST_POINTS]
        rows = [rows[place] for place in sorted(drawn.tolist())]
    if len(rows) < 3:
        raise UsageError(f"t-SNE needs at least three images of known persons, not {len(rows)}")
    places: NDArray[np.float32] = TSNE(
        metric="cosine",
        init="random",
        perplexity=min(30.0, (len(rows) - 1) / 3),
        random_state=derive_seed("t-SNE", seed) % 2**32,
    ).fit_transform(table[feature][rows].numpy())
    return [
        {
            "x": round(float(x), 3),
            "y": round(float(y), 3),
            "person": table.records[row].person,
            "camera": table.records[row].camera,
            "modality": table.records[row].modality.name.lower(),
        }
        for row, (x, y) in zip(rows, places, strict=True)
    ]


def _some(table: FeatureTable, modality: Modality, seed: int) -> Int[Tensor, "n"]:
    """Rows of labelled images of a modality, ascending, at most ``MOST_IMAGES``."""
    rows = ((table.modalities == int(modality)) & (table.persons != UNKNOWN)).nonzero()[:, 0]
    if len(rows) <= MOST_IMAGES:
        return rows
    chosen = torch.randperm(len(rows), generator=generator_from("histogram pictures", int(modality), seed))
    return rows[chosen[:MOST_IMAGES].sort().values]
