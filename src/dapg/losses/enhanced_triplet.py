"""Enhanced squared triplet of CAJ (Ye et al., ICCV 2021): AGW's weighted distances, their difference squared."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dapg.losses.triplet import weighted_distances

SATURATION = 88.0
"""Where CAJ's code cuts the squared difference off: beyond it e^x would overflow single precision (loss.py)."""


def enhanced_triplet(
    features: Float[Tensor, "B D"],
    labels: Int[Tensor, "B"],
    include_self: bool = False,
    legacy_weights: bool = False,
    saturate: bool = False,
) -> Float[Tensor, ""]:
    """Mean over anchors of log(1 + exp(s · difference²)), s the sign of difference = positive - negative distance.

    The square pushes hard where the order is wrong by much and lets go where it is right by much.

    Args:
        features: one row an image, not normalised; at least one negative for each.
        labels: person of each row.
        include_self: see ``weighted_distances``.
        legacy_weights: see ``weighted_distances``.
        saturate: cut the square off at 88 as the published code does. Such an anchor has no gradient, so a training
            whose distances are large at first can stick there. Without it the square goes on as its tangent beyond
            88: linear, finite at any distance, with the gradient it had.
    """
    positive, negative = weighted_distances(features, labels, include_self, legacy_weights)
    difference = positive - negative
    if saturate:
        square = difference.square().clamp(max=SATURATION)
    else:  # huber is x² / 2 up to delta, then delta (|x| - delta / 2)
        square = 2 * functional.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=_KNEE)
    # The published y is 1 where positive equals negative, but then the square is 0 all the same.
    return functional.softplus(difference.detach().sign() * square).mean()


_KNEE = SATURATION**0.5
