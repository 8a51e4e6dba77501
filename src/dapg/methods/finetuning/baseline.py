"""The base method of AGW's code: two streams, average pooling, batch-hard triplet, no non-local blocks."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.ranges import Weight
from dapg.losses.triplet import batch_hard_triplet
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.two_stream import TwoStreamConfig


class Baseline(TwoStreamMethod["Baseline.Config"]):
    """AGW without its three parts: what they add is measured against this (``--method base`` in the code)."""

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Published values; there is nothing to mend."""

        network: TwoStreamConfig = field(
            default_factory=lambda: TwoStreamConfig(pooling="average", non_local=(0, 0, 0, 0))
        )
        """Pooling and non-local blocks."""
        margin: Weight = 0.3
        """Margin of the batch-hard triplet."""

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return batch_hard_triplet(features, labels, self.settings.margin)
