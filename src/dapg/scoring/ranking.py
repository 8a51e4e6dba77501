"""Ranked lists: for each query the nearest gallery pictures that the protocol keeps, and whether they match."""

from dataclasses import dataclass

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

    ``gallery`` holds positions in the gallery, -1 where the protocol keeps fewer than K pictures; there ``similarity``
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


def left_out(labels: Labels) -> Bool[Tensor, "Q G"]:
    """True for pairs that the protocol leaves out of the ranking (see ``core.types.Protocol``)."""
    protocol = labels.protocol
    query_persons, gallery_persons = labels.query_persons, labels.gallery_persons
    removed = torch.zeros(len(query_persons), len(gallery_persons), dtype=torch.bool, device=query_persons.device)
    for junk in protocol.junk_persons:
        removed |= gallery_persons == junk
    if labels.query_cameras is None or labels.gallery_cameras is None:
        return removed  # Labels refuses this where the rules need cameras
    if protocol.same_person_same_camera:
        same_person = query_persons[:, None] == gallery_persons
        removed |= same_person & (labels.query_cameras[:, None] == labels.gallery_cameras)
    for group in set(protocol.camera_groups.values()):
        members = [camera for camera, number in protocol.camera_groups.items() if number == group]
        cameras = torch.tensor(members, device=query_persons.device)
        removed |= torch.isin(labels.query_cameras, cameras)[:, None] & torch.isin(labels.gallery_cameras, cameras)
    return removed


def rank(
    query_features: Float[Tensor, "Q D"],
    gallery_features: Float[Tensor, "G D"],
    labels: Labels,
    top: int = 10,
) -> Ranking:
    """The ``top`` gallery pictures of each query; equally near ones in gallery order.

    Features need not have unit length. A person without label (negative) matches nobody. Memory is bounded for any
    number of queries; CUDA is used where the features are.

    Raises:
        UsageError: ``top`` below 1, or a feature that is not finite.
    """
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    labels = labels.to(query_features.device)
    query_features, gallery_features = unit_rows(query_features), unit_rows(gallery_features)
    if not bool(query_features.isfinite().all()) or not bool(gallery_features.isfinite().all()):
        raise UsageError("a feature is NaN or infinite")
    step = max(1, _ELEMENTS // max(1, len(gallery_features)))
    parts = []
    for start in range(0, len(query_features), step):
        rows = slice(start, start + step)
        asked = labels.of_queries(rows)
        values = query_features[rows] @ gallery_features.T
        values.masked_fill_(left_out(asked), -torch.inf)
        indices, kept = _first(values, top)
        found = indices >= 0
        same = labels.gallery_persons[indices.clamp(min=0)] == asked.query_persons[:, None]
        matches = same & found & (asked.query_persons > UNKNOWN)[:, None]
        parts.append((indices.cpu(), kept.cpu(), matches.cpu()))
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
