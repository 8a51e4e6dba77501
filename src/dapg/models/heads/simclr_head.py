"""SimCLR's projection head (Chen et al. 2020): linear, batch norm, ReLU, linear, batch norm."""

import torch

from dapg.models.heads._mlp import TwoLayers


class SimCLRHead(TwoLayers):
    """Two layers, each followed by batch norm as in the authors' code."""

    def __init__(self, input_dim: int, config: TwoLayers.Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(input_dim, config, generator)
        self._build((input_dim, config.hidden_dim or input_dim, config.output_dim), (True, True), generator)
