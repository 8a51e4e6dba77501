"""A transformer whose tokens are groups of channels of a feature map: what fires together, wherever it fires."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.errors import UsageError
from dapg.models.blocks.initialise import initialise

GRID = (4, 2)
"""Rows and columns that a feature map is averaged to, so that a token is as long at every input size."""


class ChannelAttention(nn.Module):
    """From a feature map to one vector: neighbouring channels make a token, tokens attend to each other."""

    def __init__(
        self, channels: int, together: int, width: int, layers: int, heads: int, generator: torch.Generator | None
    ) -> None:
        """Draw the weights on the CPU from ``generator`` alone.

        Args:
            channels: C of the feature map.
            together: channels in a token; divides C.
            width: length of a token inside the transformer, and of the output.
            layers: transformer layers.
            heads: attention heads; divides ``width``.
            generator: of the weights.

        Raises:
            UsageError: numbers that do not divide each other.
        """
        super().__init__()
        if channels % together or width % heads:
            raise UsageError(
                f"{together} channels a token must divide the network's {channels}, and {heads} heads the width {width}"
            )
        self.together = together
        with torch.device("meta"):
            self.enter = nn.Linear(together * GRID[0] * GRID[1], width)
            layer = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        initialise(self, generator)
        place = torch.empty(channels // together, width)
        self.place = nn.Parameter(nn.init.normal_(place, std=0.02, generator=generator))
        """Which channels a token stands for."""

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D"]:
        """The mean token after the transformer."""
        cells = functional.adaptive_avg_pool2d(features, GRID).flatten(2)  # (B, C, 8)
        tokens = cells.reshape(len(cells), -1, self.together * cells.shape[2])
        out: Tensor = self.encoder(self.enter(tokens) + self.place)
        return out.mean(dim=1)
