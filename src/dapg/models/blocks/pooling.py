"""From a feature map to one vector a picture: average pooling, and generalised mean (GeM) pooling as AGW has it."""

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.errors import UsageError, nearest


def pool(features: Float[Tensor, "B C h w"], kind: str) -> Float[Tensor, "B C"]:
    """Pool by name: ``average`` or ``gem``.

    Raises:
        UsageError: another name.
    """
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise UsageError(f"no pooling is called {kind!r}{nearest(kind, list(_KINDS))}; known: {known}")
    return _KINDS[kind](features)


def average_pool(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Mean over all positions."""
    return features.mean(dim=(2, 3))


def gem_pool(
    features: Float[Tensor, "B C h w"], power: float | Float[Tensor, ""] = 3.0, epsilon: float = 1e-12
) -> Float[Tensor, "B C"]:
    """(mean over positions of x^power + epsilon)^(1/power); 3 is the fixed power of the published AGW code.

    Features come from a ReLU; a negative one counts as 0. Half-precision input is pooled in float32, where its cube
    does not overflow.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=0)
    return (wide.pow(power).mean(dim=(2, 3)) + epsilon).pow(1 / power)


_KINDS = {"average": average_pool, "gem": gem_pool}
