"""Jensen-Shannon consistency of the positives (paper Eq. 3-5), and the distributions it can be taken over."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.core.errors import UsageError


def js_divergence(log_probabilities: Float[Tensor, "B P N"]) -> Float[Tensor, ""]:
    """Mean over the batch of the Jensen-Shannon divergence of P distributions over N outcomes, in nats.

    1/P * sum of KL(p_i || M) with M the mean of the p_i. The paper's Eq. 4 has commas where the sum of M must stand
    (docs/explanation/method.md). 0 for equal distributions, log P for disjoint ones; -inf stands for probability 0.
    """
    finite = log_probabilities.clamp(min=-1e4)  # e^-10000 is 0 all the same, and -inf - (-inf) would be no number
    mean = finite.logsumexp(dim=1, keepdim=True) - math.log(finite.shape[1])  # (B, 1, N): log M
    return (finite.exp() * (finite - mean)).sum(dim=2).mean()


def log_similarity_distribution(
    features: Float[Tensor, "B P D"],
    keys: Float[Tensor, "K D"],
    temperature: float,
    valid: Bool[Tensor, "K"] | Bool[Tensor, "B K"] | None = None,
) -> Float[Tensor, "B P K"]:
    """Log softmax of each feature's similarities to the keys: how alike it finds everybody else.

    The paper wants "a tighter distribution of similarities among positive samples" without saying over what; this is
    our default reading. All rows have unit length. Keys that do not count (``valid``) get probability 0. Where no
    key counts, as before the first push to a queue, every distribution is the uniform one, so that they agree.
    """
    if not temperature > 0:
        raise UsageError(f"temperature is above 0, got {temperature}")
    with torch.autocast(features.device.type, enabled=False):
        wide = torch.promote_types(features.dtype, torch.float32)
        similarity = features.to(wide) @ keys.to(wide).T / temperature  # (B, P, K)
        if valid is not None:
            counted = valid if valid.ndim == 1 else valid[:, None, :]
            none = ~counted.any(dim=-1, keepdim=True)
            similarity = similarity.masked_fill(~counted, float("-inf")).masked_fill(none, 0.0)
        return similarity.log_softmax(dim=2)


def log_feature_distribution(features: Float[Tensor, "B P D"], temperature: float) -> Float[Tensor, "B P D"]:
    """Log softmax over the feature's own dimensions, the other reading of Eq. 3 (as CIL regularises features)."""
    if not temperature > 0:
        raise UsageError(f"temperature is above 0, got {temperature}")
    wide = torch.promote_types(features.dtype, torch.float32)
    return (features.to(wide) / temperature).log_softmax(dim=2)
