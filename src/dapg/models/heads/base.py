"""Contract of a head: a small network from one vector an image to another, used in pre-training only."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.scales import Scaled


class Head(nn.Module, ABC):
    """A projection (or prediction) head; the loss sees its output, the next stage sees the vector before it.

    A new head is a new file ``models/heads/<name>.py`` with one public subclass whose ``Config`` is nested. Its
    constructor is ``Name(input_dim, config, generator)``; the weights are drawn on the CPU from ``generator`` alone
    (None: a fixed seed). The output is not normalised: a method divides by the length where its loss asks for it.
    """

    @dataclass(frozen=True)
    class Config(Scaled):
        """Settings of a head; a subclass nests its own."""

    output_dim: int
    """D of the vectors that ``forward`` returns."""

    @abstractmethod
    def __init__(self, input_dim: int, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """Project pooled features."""
