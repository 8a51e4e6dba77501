"""MoCo v2's projection head (Chen et al. 2020): linear, ReLU, linear."""

import torch

from dapg.models.heads._mlp import TwoLayers


class MoCoHead(TwoLayers):
    """Two layers without batch norm, which would let a query recognise its key's batch."""

    def __init__(self, input_dim: int, config: TwoLayers.Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(input_dim, config, generator)
        self._build((input_dim, config.hidden_dim or input_dim, config.output_dim), (False, False), generator)
