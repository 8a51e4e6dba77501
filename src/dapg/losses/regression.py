"""BYOL's regression loss (Grill et al. 2020, Eq. 2): a prediction is drawn towards the other view's projection."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def regression(prediction: Float[Tensor, "B D"], target: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean over the batch of 2 - 2 cos(prediction, target), which is their squared distance at unit length.

    Rows of any length; no gradient flows into ``target``. BYOL adds the same with the two views swapped.
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    prediction, target = prediction.to(wide), target.detach().to(wide)
    return 2 - 2 * functional.cosine_similarity(prediction, target, dim=1).mean()
