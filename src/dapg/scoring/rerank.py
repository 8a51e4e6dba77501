"""Options that look at the whole gallery again: k-reciprocal re-ranking and query expansion. Never applied unasked.

k-reciprocal: Zhong, Zheng, Cao, Li, Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.
Query expansion: alpha-QE of Radenović, Tolias, Chum, Fine-tuning CNN Image Retrieval, TPAMI 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.ranges import Count, Share, Weight
from dapg.scoring.labels import TrialRows
from dapg.scoring.metrics import Scores, score
from dapg.scoring.ranking import similarity, unit_rows

MAX_IMAGES = 40_000
"""Queries and gallery together; k-reciprocal holds two matrices of their square."""


@dataclass(frozen=True)
class Rerank:
    """Which option, with the values its authors use."""

    method: Literal["none", "k-reciprocal", "query-expansion"] = "none"
    """none, k-reciprocal or query-expansion."""
    k1: Count = 20
    """k-reciprocal: size of the neighbourhood."""
    k2: Count = 6
    """k-reciprocal: neighbours averaged in local query expansion; 1 switches it off."""
    weight: Share = 0.3
    """k-reciprocal: weight lambda of the original distance."""
    neighbours: Count = 10
    """query-expansion: gallery images added to each query."""
    power: Weight = 3.0
    """query-expansion: a neighbour counts with its similarity to this power."""


def reranked_name(feature: str, settings: Rerank) -> str:
    """Under which name scores with the option stand beside those of the feature itself."""
    return f"{feature}, {settings.method}"


def score_reranked(
    features: Float[Tensor, "N D"], trials: Sequence[TrialRows], settings: Rerank, max_rank: int
) -> list[Scores]:
    """Scores of each trial with the option; otherwise as ``metrics.score_trials``.

    Raises:
        UsageError: as ``reranked_distances``.
    """
    return [
        score(reranked_distances(features[trial.query], features[trial.gallery], settings), trial.labels, max_rank)
        for trial in trials
    ]


def reranked_distances(
    query: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"], settings: Rerank
) -> Float[Tensor, "Q G"]:
    """Distances to score in place of ``-similarity``; ``none`` gives just that.

    Both options use gallery images as context, also those that a protocol later leaves out for some query.

    Raises:
        UsageError: settings out of range, or too many images for k-reciprocal.
    """
    if settings.method == "none":
        return -similarity(query, gallery)
    if settings.method == "query-expansion":
        return -similarity(expand_queries(query, gallery, settings.neighbours, settings.power), gallery)
    return k_reciprocal(query, gallery, settings.k1, settings.k2, settings.weight)


def expand_queries(
    query: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"], neighbours: int = 10, power: float = 3.0
) -> Float[Tensor, "Q D"]:
    """Each query plus its nearest gallery features, weighted by similarity^power (negative ones by 0), unit length.

    Raises:
        UsageError: less than one neighbour.
    """
    if neighbours < 1:
        raise UsageError(f"query expansion needs at least 1 neighbour, not {neighbours}")
    query, gallery = unit_rows(query), unit_rows(gallery)
    values, places = (query @ gallery.T).topk(min(neighbours, len(gallery)), dim=1)
    weights = values.clamp(min=0) ** power
    return unit_rows(query + torch.einsum("qk,qkd->qd", weights, gallery[places]))


def k_reciprocal(
    query: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"], k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Float[Tensor, "Q G"]:
    """(1 - weight) · Jaccard distance of expanded k-reciprocal neighbourhoods + weight · original distance.

    The original distance is the squared Euclidean one of unit features divided by the largest of its row, as in the
    authors' code; neighbourhoods hold the image itself.

    Raises:
        UsageError: k1 or k2 below 1, weight outside [0, 1], or more images than fit.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise UsageError(f"k-reciprocal needs k1 and k2 >= 1 and a weight in [0, 1]; got {k1}, {k2}, {weight}")
    count = len(query) + len(gallery)
    if count > MAX_IMAGES:
        raise UsageError(f"{count} images are too many for k-reciprocal re-ranking (at most {MAX_IMAGES})")
    features = torch.cat([unit_rows(query), unit_rows(gallery)])
    distances = (2 - 2 * features @ features.T).clamp_(min=0)
    distances /= distances.max(dim=1, keepdim=True).values.clamp(min=1e-12)
    nearest = distances.argsort(dim=1, stable=True)[:, : max(k1 + 1, k2)]
    encoding = _encode(distances, _expanded(nearest, k1))
    if k2 > 1:
        encoding = torch.stack([encoding[rows].mean(dim=0) for rows in nearest[:, :k2]])
    jaccard = _jaccard(encoding[: len(query)], encoding[len(query) :])
    return (1 - weight) * jaccard + weight * distances[: len(query), len(query) :]


def _reciprocal(nearest: Int[Tensor, "N K"], k: int) -> Bool[Tensor, "N N"]:
    """True where each of the two is among the other's k nearest (besides itself)."""
    member = torch.zeros(len(nearest), len(nearest), dtype=torch.bool, device=nearest.device)
    member.scatter_(1, nearest[:, : k + 1], True)
    return member & member.T


def _expanded(nearest: Int[Tensor, "N K"], k1: int) -> Bool[Tensor, "N N"]:
    """R*(p, k1): R(p, k1), and R(q, k1 / 2) of every q in it that shares at least two thirds of its own with it."""
    whole, half = _reciprocal(nearest, k1), _reciprocal(nearest, round(k1 / 2))
    sizes = half.sum(dim=1)
    expanded = whole.clone()
    for row in range(len(whole)):
        members = whole[row].nonzero()[:, 0]
        shared = (half[members] & whole[row]).sum(dim=1)
        added = members[shared > 2 / 3 * sizes[members]]
        expanded[row] |= half[added].any(dim=0)
    return expanded


def _encode(distances: Float[Tensor, "N N"], members: Bool[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """Gaussian weight exp(-distance) for members, 0 for others, rows summing to 1."""
    weights = torch.exp(-distances) * members
    return weights / weights.sum(dim=1, keepdim=True)


def _jaccard(query: Float[Tensor, "Q N"], gallery: Float[Tensor, "G N"]) -> Float[Tensor, "Q G"]:
    """1 - sum of minima / sum of maxima; rows sum to 1, so the maxima sum to 2 - minima."""
    columns = gallery.T.contiguous()
    jaccard = query.new_empty(len(query), len(gallery))
    for row, values in enumerate(query):
        used = values.nonzero()[:, 0]  # a neighbourhood is small: all other columns have minimum 0
        minima = torch.minimum(columns[used], values[used][:, None]).sum(dim=0)
        jaccard[row] = 1 - minima / (2 - minima)
    return jaccard
