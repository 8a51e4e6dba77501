"""The base method of AGW's code: two streams, average pooling, batch-hard triplet, no non-local blocks."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from dapg.augment.padded import PaddedViewConfig
from dapg.losses.triplet import batch_hard_triplet
from dapg.methods.finetuning._two_stream import TwoStreamMethod
from dapg.models.two_stream import TwoStreamConfig


class Baseline(TwoStreamMethod):
    """AGW without its three parts: what they add is measured against this (``--method base`` in the code)."""

    @dataclass(frozen=True)
    class Config:
        """Published values; there is nothing to mend."""

        network: TwoStreamConfig = field(
            default_factory=lambda: TwoStreamConfig(pooling="average", non_local=(0, 0, 0, 0))
        )
        """Pooling and non-local blocks."""
        margin: float = 0.3
        """Margin of the batch-hard triplet."""
        trunk_rate: float = 0.1
        """Learning rate of the backbone, as a share of that of neck and classifier."""
        flip_test: bool = False
        """Score the mean feature of a picture and its mirror image."""
        views: PaddedViewConfig = field(default_factory=PaddedViewConfig)
        """What the network sees of a picture in training."""

    settings: Config

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return batch_hard_triplet(features, labels, self.settings.margin)
