"""SSL with a channel-wise transformer, RECONSTRUCTED from its title: SimCLR's task behind attention over channels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dapg.core.ranges import Channels, Layers
from dapg.core.types import Modality
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.pretraining.simclr import SimCLR
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.channel_attention import ChannelAttention
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.simclr_head import SimCLRHead


class ChannelTransformer(SimCLR):
    """What the two views must have in common is read by a transformer whose tokens are channels.

    RECONSTRUCTION. Neither code nor text of Ye, Hong, Zeng and Zhuang, "Self-supervised person re-identification with
    channel-wise transformer" (IEEE Big Data 2022), was at hand: ours is its title and the field's practice. Only the
    network before the transformer is handed on.
    """

    @dataclass(frozen=True)
    class Config(SimCLR.Config):
        """SimCLR's settings, and those of the transformer, which are ours."""

        together: Channels = 16
        """Channels in a token: 128 tokens on a ResNet-50."""
        width: Channels = 128
        """Length of a token inside the transformer."""
        layers: Layers = 1
        """Transformer layers."""
        attention_heads: Layers = 4
        """Attention heads."""

    settings: Config

    @classmethod
    def paper(cls) -> "ChannelTransformer.Config":
        """The same: nothing of it is published."""
        return cls.Config()

    @classmethod
    def recipe(cls, usual: "Recipe[SimCLR.Config]") -> "Recipe[SimCLR.Config]":
        """The usual one: none is published."""
        return usual

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.attention = ChannelAttention(
            backbone.feature_dim, config.together, config.width, config.layers, config.attention_heads, generator
        )
        self.head = SimCLRHead(config.width, config.head, generator)

    def project(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Unit rows that the loss compares."""
        return functional.normalize(self.head(self.attention(self.backbone(view))))

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``backbone``: pooled feature map, which is handed on; ``projection``: what the loss compares."""
        features = self.backbone(images)
        return {
            "backbone": functional.normalize(average_pool(features)),
            "projection": functional.normalize(self.head(self.attention(features))),
        }
