"""Triplet losses over the images of a batch: weighted regularised (AGW, Ye et al. 2021) and batch-hard.

Features are not normalised; distances are Euclidean. Everything is computed in single precision whatever comes in.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

_SMALLEST_SQUARE = 1e-12
"""Squared distances below count as this, so that the root has a gradient (AGW's loss.py)."""
_LEGACY_EPSILON = 1e-6
"""What AGW's code adds to the denominators of its weights."""


def pairwise_distances(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Euclidean distances in float32 or wider, at least 1e-6.

    Differences are squared as they are; the shorter ``|a|² + |b|² - 2ab`` loses all digits of small distances between
    long features.
    """
    with torch.autocast(features.device.type, enabled=False):
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        distances = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.clamp(min=_SMALLEST_SQUARE**0.5)


def weighted_distances(
    features: Float[Tensor, "B D"], labels: Int[Tensor, "B"], include_self: bool = False, legacy_weights: bool = False
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Of each anchor the weighted mean distance to its positives and to its negatives.

    Weights are softmax(d) over the positives and softmax(-d) over the negatives: far positives and near negatives
    count most.

    Args:
        features: one row an image, at least one negative for each.
        labels: person of each row.
        include_self: the anchor counts among its own positives at distance 1e-6, as in AGW's code. A person's only
            image has no other positive and always does.
        legacy_weights: take the weights of AGW's code to the letter. It adds 1e-6 to the denominators and does not
            shift the negatives' exponents, so that beyond a distance of about 10 the negatives' weights no longer sum
            to 1 and their mean tends to 0.
    """
    distances = pairwise_distances(features)
    same = labels[:, None] == labels
    positive = same if include_self else _without_self(same)
    negative = ~same
    if legacy_weights:
        farthest = (distances * positive).amax(dim=1, keepdim=True)
        pull = (distances - farthest).masked_fill(~positive, float("-inf")).exp()
        push = (-distances).masked_fill(~negative, float("-inf")).exp()
        pull = pull / (pull.sum(dim=1, keepdim=True) + _LEGACY_EPSILON)
        push = push / (push.sum(dim=1, keepdim=True) + _LEGACY_EPSILON)
    else:
        pull = distances.masked_fill(~positive, float("-inf")).softmax(dim=1)
        push = (-distances).masked_fill(~negative, float("-inf")).softmax(dim=1)
    return (pull * distances).sum(dim=1), (push * distances).sum(dim=1)


def weighted_regularised_triplet(
    features: Float[Tensor, "B D"], labels: Int[Tensor, "B"], include_self: bool = False, legacy_weights: bool = False
) -> Float[Tensor, ""]:
    """Mean over anchors of log(1 + exp(positive - negative)) of the weighted distances; no margin.

    The published code takes the exponential first, which is infinite beyond a difference of 88; this stays finite.
    Arguments as ``weighted_distances``.
    """
    positive, negative = weighted_distances(features, labels, include_self, legacy_weights)
    return functional.softplus(positive - negative).mean()


def batch_hard_triplet(
    features: Float[Tensor, "B D"], labels: Int[Tensor, "B"], margin: float = 0.3
) -> Float[Tensor, ""]:
    """Mean of max(0, margin + farthest positive - nearest negative) (Hermans et al. 2017; AGW's base method)."""
    distances = pairwise_distances(features)
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same, float("-inf")).amax(dim=1)
    nearest = distances.masked_fill(same, float("inf")).amin(dim=1)
    return functional.relu(margin + farthest - nearest).mean()


def _without_self(same: Bool[Tensor, "B B"]) -> Bool[Tensor, "B B"]:
    """Positives other than the anchor; the anchor stays where it is the only one."""
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    alone = same.sum(dim=1, keepdim=True) == 1
    return same & (~itself | alone)
