"""Residual block of the PMWGCN reconstruction: graph convolution over wavelet sub-bands and body regions.

PMWGCN ("Polymorphic Mask Wavelet Graph Convolutional Network") has neither public code nor public text; this block is
re-built from its title and is called a reconstruction wherever it appears.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.ranges import Layers
from dapg.models.blocks.graph_convolution import GraphConvolution, normalise_adjacency, similarity_adjacency
from dapg.models.blocks.initialise import initialise
from dapg.models.blocks.wavelet import haar_analysis, haar_synthesis


class WaveletGraph(nn.Module):
    """Feature map -> sub-bands -> one node per sub-band and horizontal region -> graph convolution -> back, added.

    The last batch norm starts at 0 and the wavelet inverts exactly, so the block begins as the identity and any
    pre-trained network keeps its features.
    """

    @dataclass(frozen=True)
    class Config:
        """Every choice here is ours."""

        wavelet: bool = True
        """Split the map into four Haar sub-bands; False takes the map as its only band."""
        graph: bool = True
        """Let nodes see the others; False gives each node itself alone, everything else unchanged."""
        regions: Layers = 4
        """Horizontal regions a band is pooled into; fewer where a band has fewer rows."""
        reduction: Layers = 4
        """Channels between the two graph convolutions are the map's divided by this."""

    def __init__(self, channels: int, config: Config, generator: torch.Generator) -> None:
        """Weights are drawn from ``generator``."""
        super().__init__()
        self.config = config
        hidden = max(1, channels // config.reduction)
        with torch.device("meta"):
            self.first = GraphConvolution(channels, hidden)
            self.second = GraphConvolution(hidden, channels)
            self.norm = nn.BatchNorm1d(channels)
        initialise(self, generator)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The map plus what the graph adds to each region of each sub-band."""
        height, width = x.shape[-2:]
        bands = haar_analysis(x) if self.config.wavelet else x[:, None]
        rows = bands.shape[-2]
        regions = min(self.config.regions, rows)
        nodes = _pool_regions(bands, regions)
        added = self._convolve(nodes.flatten(1, 2)).reshape(nodes.shape)
        region = torch.arange(rows, device=x.device) * regions // rows
        bands = bands + added[:, :, region].movedim(3, 2)[..., None]  # (B, bands, C, rows, 1)
        return haar_synthesis(bands, (height, width)) if self.config.wavelet else bands[:, 0]

    def _convolve(self, nodes: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        adjacency = normalise_adjacency(similarity_adjacency(nodes)) if self.config.graph else None
        hidden = functional.relu(self.first(nodes, adjacency))
        out: Tensor = self.second(hidden, adjacency)
        normed: Tensor = self.norm(out.flatten(0, 1))
        return normed.reshape(out.shape)


def _pool_regions(bands: Float[Tensor, "B S C r w"], regions: int) -> Float[Tensor, "B S {regions} C"]:
    """Mean of every region; row i belongs to region floor(i · regions / rows)."""
    rows = bands.shape[-2]
    region = torch.arange(rows, device=bands.device) * regions // rows
    member = functional.one_hot(region, regions).to(bands.dtype)  # (rows, regions)
    member = member / member.sum(dim=0)
    return torch.einsum("bscr,rk->bskc", bands.mean(dim=4), member)
