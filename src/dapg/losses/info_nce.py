"""Contrastive losses: multi-positive InfoNCE (paper Eq. 2), of which one positive is MoCo's, and SimCLR's NT-Xent."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError

Reduction = Literal["sum_inside", "mean_outside"]


def multi_positive_info_nce(
    query: Float[Tensor, "B D"],
    positives: Float[Tensor, "B P D"],
    negatives: Float[Tensor, "K D"],
    temperature: float,
    reduction: Reduction = "sum_inside",
    valid: Bool[Tensor, "K"] | Bool[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the batch of -log(positives / (positives + negatives)), in terms of e^(similarity / temperature).

    ``sum_inside`` is the paper's Eq. 2: the positives are summed inside the logarithm, so one close positive is
    enough. ``mean_outside`` is the mean over positives of -log(that positive / (all positives + negatives)), as in
    SupCon (Khosla et al. 2020, Eq. 2), which pulls each of them. With one positive both are InfoNCE.

    The sums are taken in log space and in float32 at least, also under autocast, so that a small temperature neither
    overflows nor drowns in half precision.

    Args:
        query: unit rows.
        positives: P unit rows for each query.
        negatives: unit rows shared by all queries, for example the keys of a queue.
        temperature: above 0.
        reduction: where the sum over positives stands.
        valid: which negatives count, for all queries or for each; None: all. The others have no influence on value
            and gradient: unfilled slots of a queue, or keys of the query's own image.

    Raises:
        UsageError: temperature not above 0, or an unknown reduction.
    """
    _check_temperature(temperature)
    if reduction not in ("sum_inside", "mean_outside"):
        raise UsageError(f"reduction is 'sum_inside' or 'mean_outside', got {reduction!r}")
    with torch.autocast(query.device.type, enabled=False):
        query, positives, negatives = _wide(query), _wide(positives), _wide(negatives)
        positive = torch.einsum("bd,bpd->bp", query, positives) / temperature
        negative = query @ negatives.T / temperature  # (B, K)
        if valid is not None:
            negative = negative.masked_fill(~valid, float("-inf"))
        everything = torch.cat([positive, negative], dim=1).logsumexp(dim=1)  # (B,)
        numerator = positive.logsumexp(dim=1) if reduction == "sum_inside" else positive.mean(dim=1)
        return (everything - numerator).mean()


def label_guided_info_nce(
    query: Float[Tensor, "B D"],
    key: Float[Tensor, "B D"],
    others: Float[Tensor, "K D"],
    same: Bool[Tensor, "B K"],
    temperature: float,
    valid: Bool[Tensor, "K"] | None = None,
) -> Float[Tensor, ""]:
    """PNL's instance loss: the own key and every other key of the same label are positives, each on its own terms.

    The mean over the batch of the mean over a query's positives of -log softmax, where the softmax runs over the own
    key and all others (DengpanFu/LUPerson-NL, PNL; its paper normalises otherwise). Computed in float32 at least.

    Args:
        query: unit rows.
        key: unit rows, the other view of each query's image.
        others: unit rows shared by all queries, for example the keys of a queue.
        same: which of them are positives of which query; all false gives InfoNCE.
        temperature: above 0.
        valid: which of ``others`` count at all; None: all.

    Raises:
        UsageError: temperature not above 0.
    """
    _check_temperature(temperature)
    with torch.autocast(query.device.type, enabled=False):
        query, key, others = _wide(query), _wide(key), _wide(others)
        own = (query * key).sum(dim=1, keepdim=True) / temperature  # (B, 1)
        shared = query @ others.T / temperature  # (B, K)
        if valid is not None:
            same = same & valid
            shared = shared.masked_fill(~valid, float("-inf"))
        everything = torch.cat([own, shared], dim=1).logsumexp(dim=1)
        positives = own[:, 0] + shared.masked_fill(~same, 0.0).sum(dim=1)
        return (everything - positives / (1 + same.sum(dim=1))).mean()


def nt_xent(
    features_a: Float[Tensor, "B D"],
    features_b: Float[Tensor, "B D"],
    temperature: float,
    all_a: Float[Tensor, "N D"] | None = None,
    all_b: Float[Tensor, "N D"] | None = None,
    row_offset: int = 0,
) -> Float[Tensor, ""]:
    """SimCLR's loss (Chen et al. 2020, Eq. 1): each of 2 B views finds its partner among all 2 N - 1 other views.

    On several processes each passes its own rows and the features of all; the mean over processes of the results is
    the loss of the whole batch. Computed in float32 at least, also under autocast.

    Args:
        features_a: unit rows of the first views.
        features_b: unit rows of the second views; row i belongs to row i of ``features_a``.
        temperature: above 0.
        all_a: first views of every process, in order of rank; None: ``features_a`` is all there is.
        all_b: second views of every process.
        row_offset: the row of ``all_a`` at which this process's rows start.

    Raises:
        UsageError: temperature not above 0.
        ValueError: gathered rows that cannot be those of this process.
    """
    _check_temperature(temperature)
    if (all_a is None) != (all_b is None):
        raise ValueError("give both all_a and all_b, or neither")
    columns_a = features_a if all_a is None else all_a
    columns_b = features_b if all_b is None else all_b
    count = len(features_a)
    if row_offset < 0 or row_offset + count > len(columns_a):
        raise ValueError(f"rows {row_offset} to {row_offset + count} do not lie within {len(columns_a)} gathered rows")
    with torch.autocast(features_a.device.type, enabled=False):
        rows = torch.cat([_wide(features_a), _wide(features_b)])  # (2 B, D)
        columns = torch.cat([_wide(columns_a), _wide(columns_b)])  # (2 N, D)
        similarity = rows @ columns.T / temperature
        own, partner = _places(count, len(columns_a), row_offset, rows.device)
        similarity = similarity.scatter(1, own[:, None], float("-inf"))
        return (similarity.logsumexp(dim=1) - similarity.gather(1, partner[:, None])[:, 0]).mean()


def _places(count: int, total: int, row_offset: int, device: torch.device) -> tuple[Int[Tensor, "R"], Int[Tensor, "R"]]:
    """For each row: the column of itself, and the column of the other view of its image."""
    first = torch.arange(row_offset, row_offset + count, device=device)
    return torch.cat([first, first + total]), torch.cat([first + total, first])


def _wide(features: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Half precision to float32; float32 and float64 as they are."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise UsageError(f"temperature is above 0, got {temperature}")
