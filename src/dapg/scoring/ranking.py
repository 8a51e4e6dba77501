"""Ranked lists: for each query the nearest gallery images that the protocol keeps, and whether they match."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import UNKNOWN
from dapg.scoring.labels import Labels

_ELEMENTS = 16_000_000
"""Similarities held at a time."""


@dataclass(frozen=True)
class Ranking:
    """The first K answers of each query, nearest first, on the CPU.

    ``gallery`` holds positions in the gallery, -1 where the protocol keeps fewer than K images; there ``similarity``
    is minus infinity and ``matches`` is False.
    """

    gallery: Int[Tensor, "Q K"]
    similarity: Float[Tensor, "Q K"]
    matches: Bool[Tensor, "Q K"]


def unit_rows(features: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows scaled to unit length, float32 or better; a row of zeros stays zero."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return torch.nn.functional.normalize(features, dim=1)


def similarity(query: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"]) -> Float[Tensor, "Q G"]:
    """Cosine of the angle between every query and gallery feature, in [-1, 1] up to rounding.

    Its negative is the distance of all protocols (the published code ranks by the dot product of unit features).
    """
    return unit_rows(query) @ unit_rows(gallery).T


def rank(
    query_features: Float[Tensor, "Q D"] | Float[np.ndarray, "Q D"],
    gallery_features: Float[Tensor, "G D"] | Float[np.ndarray, "G D"],
    labels: Labels,
    top: int = 10,
) -> Ranking:
    """The ``top`` gallery images of each query; equally near ones in gallery order.

    Features need not have unit length. A person without label (negative) matches nobody. Memory is bounded for any
    number of queries; CUDA is used where the features are.

    Raises:
        UsageError: ``top`` below 1, or a feature that is not finite.
    """
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    query, gallery = unit_rows(torch.as_tensor(query_features)), unit_rows(torch.as_tensor(gallery_features))
    query_persons, gallery_persons = (
        torch.tensor(persons, device=query.device) for persons in (labels.query_persons, labels.gallery_persons)
    )
    if not bool(query.isfinite().all()) or not bool(gallery.isfinite().all()):
        raise UsageError("a feature is NaN or infinite")
    step = max(1, _ELEMENTS // max(1, len(gallery)))
    parts = []
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        values = query[rows] @ gallery.T
        left_out = np.stack([labels.left_out(number) for number in range(start, start + len(values))])
        values.masked_fill_(torch.from_numpy(left_out).to(values.device), -torch.inf)
        indices, similarities = _first(values, top)
        persons = query_persons[rows, None]
        matches = (gallery_persons[indices.clamp(min=0)] == persons) & (indices >= 0) & (persons > UNKNOWN)
        parts.append((indices.cpu(), similarities.cpu(), matches.cpu()))
    if not parts:
        empty = torch.empty(0, top)
        return Ranking(empty.long(), empty, empty.bool())
    return Ranking(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _first(values: Float[Tensor, "b G"], top: int) -> tuple[Int[Tensor, "b {top}"], Float[Tensor, "b {top}"]]:
    """Positions and values of the largest entries, equal ones by position; -1 and -inf where entries run out.

    ``topk`` alone breaks ties at will: it finds the smallest value that can be among the first, and all entries from
    there up are sorted stably.
    """
    width = min(top, values.shape[1])
    positions = values.new_full((len(values), top), -1, dtype=torch.int64)
    firsts = values.new_full((len(values), top), -torch.inf)
    if width == 0:
        return positions, firsts
    threshold = values.topk(width, dim=1).values[:, -1:]
    rows, columns = ((values >= threshold) & (values > -torch.inf)).nonzero(as_tuple=True)
    order = values[rows, columns].argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    rows, columns = rows[order], columns[order]
    counts = torch.bincount(rows, minlength=len(values))
    place = torch.arange(len(rows), device=values.device) - (counts.cumsum(0) - counts)[rows]
    wanted = place < top
    rows, columns, place = rows[wanted], columns[wanted], place[wanted]
    positions[rows, place] = columns
    firsts[rows, place] = values[rows, columns]
    return positions, firsts
