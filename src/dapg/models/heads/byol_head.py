"""BYOL's projector and predictor (Grill et al. 2020): linear, batch norm, ReLU, linear."""

from dataclasses import dataclass

import torch

from dapg.core.ranges import Channels
from dapg.models.heads._mlp import TwoLayers


class BYOLHead(TwoLayers):
    """Two layers; the projector takes pooled features, the predictor the projector's output."""

    @dataclass(frozen=True)
    class Config(TwoLayers.Config):
        """Settings of the head."""

        hidden_dim: Channels = 4096
        """Size of the middle layer."""
        output_dim: Channels = 256
        """Size of the vectors the loss compares."""

    def __init__(self, input_dim: int, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(input_dim, config, generator)
        self._build((input_dim, config.hidden_dim, config.output_dim), (True, False), generator)
