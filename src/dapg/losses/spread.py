"""How far features are spread: the numbers that show a collapse before any score does."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spread(features: Float[Tensor, "B D"]) -> dict[str, Tensor]:
    """Both numbers, under the names that training logs."""
    return {"feature_std": feature_std(features), "effective_rank": effective_rank(features)}


def feature_std(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean over dimensions of the standard deviation over the batch, times √D.

    Unit features spread evenly over the sphere give 1, identical ones 0 (the check of SimSiam, Chen and He 2021,
    section 4.1, scaled so that it does not depend on D).
    """
    spread: Tensor = features.detach().float().std(dim=0, unbiased=False).mean()
    return spread * math.sqrt(features.shape[1])


def effective_rank(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007): 1 collapsed, min(B, D) at most."""
    rows = features.detach().float()
    values = torch.linalg.svdvals(rows.nan_to_num())  # which would fail before anybody says that the loss is NaN
    shares = values / values.sum().clamp_min(1e-12)
    rank = torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum())
    return torch.where(rows.isfinite().all(), rank, torch.nan)
