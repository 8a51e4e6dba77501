"""Graph convolution (Kipf and Welling 2017) over a few nodes of every sample, with edges from how alike nodes are."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def similarity_adjacency(nodes: Float[Tensor, "B N D"]) -> Float[Tensor, "B N N"]:
    """Edge weights max(0, cosine) between all nodes of a sample, each node tied to itself with weight 1."""
    unit = functional.normalize(nodes, dim=2)
    return (unit @ unit.transpose(1, 2)).clamp(min=0)


def normalise_adjacency(adjacency: Float[Tensor, "B N N"]) -> Float[Tensor, "B N N"]:
    """D^(-1/2) A D^(-1/2) with D the row sums (Kipf and Welling, Eq. 2; A holds the self-loops); its norm is at most 1.

    A node without any edge, not even to itself, stays without.
    """
    degree = adjacency.sum(dim=2).clamp(min=1e-6)
    scale = degree.rsqrt()
    return scale[:, :, None] * adjacency * scale[:, None, :]


class GraphConvolution(nn.Module):
    """X -> Â X W: every node becomes a linear map of the weighted mean of its neighbours. No bias, no activation."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        """The linear map W; the caller draws its weights."""
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim, bias=False)

    def forward(
        self, nodes: Float[Tensor, "B N D"], adjacency: Float[Tensor, "B N N"] | None
    ) -> Float[Tensor, "B N E"]:
        """``adjacency`` is normalised; None lets every node see itself only."""
        mapped: Tensor = self.linear(nodes)
        return mapped if adjacency is None else torch.bmm(adjacency.to(mapped.dtype), mapped)
