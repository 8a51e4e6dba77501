"""SimCLR's projection head (Chen et al. 2020): linear, batch norm, ReLU, linear, batch norm."""

from dataclasses import dataclass

import torch

from dapg.models.heads._mlp import TwoLayers


class SimCLRHead(TwoLayers):
    """Two layers, each followed by batch norm as in the authors' code."""

    @dataclass(frozen=True)
    class Config(TwoLayers.Config):
        """Settings of the head."""

        hidden_dim: int | None = None
        """Size of the middle layer; None takes the input's (2048-2048-128 on a ResNet-50)."""
        output_dim: int = 128
        """Size of the vectors the loss compares."""

    def __init__(self, input_dim: int, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(input_dim, config, generator)
        self._build((input_dim, config.hidden_dim or input_dim, config.output_dim), (True, True), generator)
