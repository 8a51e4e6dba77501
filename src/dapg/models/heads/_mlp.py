"""Shared by the heads: two linear layers with a ReLU, and batch norm where a method wants it."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.ranges import Channels
from dapg.core.scales import Scale, Self
from dapg.models.blocks.initialise import initialise
from dapg.models.heads.base import Head


class TwoLayers(Head):
    """Linear, (batch norm,) ReLU, linear, (batch norm)."""

    @dataclass(frozen=True)
    class Config(Head.Config):
        """Sizes of the layers."""

        hidden_dim: Channels | None = None
        """Size of the middle layer; None takes the input's (2048-2048-128 on a ResNet-50)."""
        output_dim: Channels = 128
        """Size of the vectors the loss compares."""

        def at(self, scale: Scale) -> Self:
            """A little head on a little network."""
            return self if scale.published else replace(self, hidden_dim=256, output_dim=64)

    def _build(self, dims: tuple[int, int, int], norms: tuple[bool, bool], generator: torch.Generator | None) -> None:
        """Layers of ``dims`` = (input, hidden, output); a linear layer before a batch norm needs no bias."""
        input_dim, hidden_dim, self.output_dim = dims
        with torch.device("meta"):
            layers: list[nn.Module] = [nn.Linear(input_dim, hidden_dim, bias=not norms[0])]
            if norms[0]:
                layers.append(nn.BatchNorm1d(hidden_dim))
            layers.append(nn.ReLU(inplace=True))
            layers.append(nn.Linear(hidden_dim, self.output_dim, bias=not norms[1]))
            if norms[1]:
                layers.append(nn.BatchNorm1d(self.output_dim))
            self.layers = nn.Sequential(*layers)
        initialise(self, generator)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """Project pooled features."""
        out: Tensor = self.layers(x)
        return out
