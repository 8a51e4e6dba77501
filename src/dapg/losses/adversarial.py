"""Losses of pose generation (PN-GAN): least-squares adversarial terms, reconstruction, likeness of features.

LSGAN (Mao et al. 2017) as PN-GAN writes it: without the factor 1/2, real is 1, generated 0.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.errors import UsageError


def fools_loss(generated_scores: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """The generator's adversarial term: mean of (D(generated) - 1)^2 over all patches."""
    return ((generated_scores - 1) ** 2).mean()


def tells_apart_loss(
    real_scores: Float[Tensor, "B 1 h w"], generated_scores: Float[Tensor, "B 1 h w"]
) -> Float[Tensor, ""]:
    """The discriminator's loss: mean of D(generated)^2 plus mean of (D(real) - 1)^2."""
    return (generated_scores**2).mean() + ((real_scores - 1) ** 2).mean()


def reconstruction_loss(
    generated: Float[Tensor, "B C H W"],
    target: Float[Tensor, "B C H W"],
    person: Float[Tensor, "B 1 H W"] | None = None,
    person_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean absolute difference; pixels of the person count ``person_weight`` times as much as others.

    Args:
        generated: what the generator painted.
        target: what it should look like.
        person: 1 on the person, 0 elsewhere; None counts all pixels alike (the published loss).
        person_weight: above 0. The mean is divided by the sum of weights, so that the loss keeps its scale.

    Raises:
        UsageError: a weight of 0 or below.
    """
    difference = (generated - target).abs()
    if person is None:
        return difference.mean()
    if not person_weight > 0:
        raise UsageError(f"person_weight is above 0, got {person_weight}")
    weight = (1 + (person_weight - 1) * person).expand_as(difference)
    return (weight * difference).sum() / weight.sum()


def feature_loss(
    generated: Mapping[str, Float[Tensor, "B C h w"]], target: Mapping[str, Float[Tensor, "B C h w"]]
) -> Float[Tensor, ""]:
    """Mean absolute difference of feature maps, each by the mean size of the target's, averaged over the maps.

    The perceptual loss of Johnson et al. (2016) with absolute differences; dividing makes layers count alike.

    Raises:
        ValueError: not the same maps on both sides.
    """
    if generated.keys() != target.keys() or not target:
        raise ValueError(f"feature maps differ: {sorted(generated)} and {sorted(target)}")
    terms = []
    for name, wanted in target.items():
        scale = wanted.detach().abs().mean().clamp(min=1e-6)
        terms.append((generated[name] - wanted.detach()).abs().mean() / scale)
    return torch.stack(terms).mean()
