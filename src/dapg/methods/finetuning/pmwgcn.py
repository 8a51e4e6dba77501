"""PMWGCN, a reconstruction from its title: polymorphic masks, wavelet sub-bands, graph convolution over them.

Neither code nor text of the Polymorphic Mask Wavelet Graph Convolutional Network is public. Nothing here can be
compared with its printed scores; docs/explanation/finetuners.md says what is our choice (everything).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.augment.masks import SHAPES, polymorphic_mask
from dapg.core.batch import Batch
from dapg.core.ranges import Share
from dapg.core.rng import SampleGenerator
from dapg.losses.triplet import weighted_regularised_triplet
from dapg.methods.base import DataFacts
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.wavelet_graph import WaveletGraph


class PMWGCN(TwoStreamMethod["PMWGCN.Config"]):
    """Reconstruction: AGW on masked images, with a wavelet-graph block between trunk and pooling."""

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Every value is ours: nothing is published."""

        block: WaveletGraph.Config = field(default_factory=WaveletGraph.Config)
        """Wavelet and graph; each can be switched off."""
        mask: Share = 0.5
        """Probability of a mask on a training image; 0 switches masks off."""
        mask_shapes: tuple[str, ...] = SHAPES
        """Shapes to choose from."""
        mask_area: tuple[Share, Share] = (0.1, 0.4)
        """Share of the image that a mask may take."""

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.block = WaveletGraph(backbone.feature_dim, config.block, generator)

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return weighted_regularised_triplet(features, labels)

    def _view(self, batch: Batch, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        chosen = self.settings
        views = super()._view(batch, generator)
        return polymorphic_mask(views, generator.fork("mask"), chosen.mask, chosen.mask_shapes, chosen.mask_area)

    def _pooled(
        self, visible: Float[Tensor, "V 3 h w"] | None, infrared: Float[Tensor, "I 3 h w"] | None
    ) -> Float[Tensor, "B D"]:
        return self.two_stream.pool(self.block(self.two_stream(self.backbone, visible, infrared)))
