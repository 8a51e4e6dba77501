"""Identity loss: which of the training persons is this?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def identity_loss(
    logits: Float[Tensor, "B persons"], labels: Int[Tensor, "B"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean cross entropy over the batch, in single precision; AGW has no label smoothing.

    ``labels`` are classes 0 ... persons - 1.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(wide, labels, label_smoothing=label_smoothing)


def accuracy(logits: Float[Tensor, "B persons"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Share of the batch whose largest logit is the right person's, detached."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()
