"""Non-local block as AGW has it (Wang et al. 2018 without softmax): every position sees every other."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.errors import UsageError


class NonLocal(nn.Module):
    """x + norm(project(attention g(x))), attention = theta(x)ᵀ phi(x) / positions.

    The last batch norm starts at weight and bias 0, so that a new block changes nothing. Names of the parts are those
    of AGW's code (model.py, ``Non_local``) save that ``W`` is ``project`` and ``norm`` here.
    """

    def __init__(self, channels: int, inner: int, generator: torch.Generator) -> None:
        """``inner`` channels of theta, phi and g; 0 takes half.

        Raises:
            UsageError: ``inner`` is negative.
        """
        super().__init__()
        if inner < 0:
            raise UsageError(f"a non-local block has 1 or more inner channels, or 0 for half of all, not {inner}")
        inner = inner or max(1, channels // 2)
        self.theta, self.phi, self.g = (pointwise(channels, inner, generator) for _ in range(3))
        self.project = pointwise(inner, channels, generator)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """One block. Without a softmax the products may be taken in either order; the shorter one is."""
        batch, _, height, width = x.shape
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))  # (B, inner, N)
        inner, positions = theta.shape[1:]
        if inner < positions:
            seen = (g @ phi.transpose(1, 2) / positions) @ theta
        else:
            seen = g @ (phi.transpose(1, 2) @ theta / positions)
        out: Tensor = self.norm(self.project(seen.reshape(batch, inner, height, width)))
        return x + out


def pointwise(in_channels: int, out_channels: int, generator: torch.Generator) -> nn.Conv2d:
    """1 x 1 convolution with bias; weights uniform within 1 / √in, PyTorch's own start."""
    with torch.device("meta"):
        layer = nn.Conv2d(in_channels, out_channels, 1)
    layer.to_empty(device="cpu")
    bound = in_channels**-0.5
    for tensor in layer.parameters():
        nn.init.uniform_(tensor, -bound, bound, generator=generator)
    return layer
