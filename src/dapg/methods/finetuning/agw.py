"""AGW: two streams, non-local blocks, GeM pooling, weighted regularised triplet (Ye et al., TPAMI 2021)."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from dapg.losses.triplet import weighted_regularised_triplet
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.two_stream import TwoStreamConfig


class AGW(TwoStreamMethod["AGW.Config"]):
    """The standard baseline of visible-infrared re-identification (mangye16/Cross-Modal-Re-ID-baseline)."""

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Defaults are the published method without its code's slips, which docs/explanation/finetuners.md lists."""

        include_self: bool = False
        """The triplet's positives include the anchor itself at distance 0, as in the published code."""
        legacy_weights: bool = False
        """The triplet's weights to the letter of the published code, which vanish at large distances."""

    @classmethod
    def paper(cls) -> "AGW.Config":
        """The published code to the letter: one-channel non-local blocks, fixed GeM, its triplet weights."""
        network = TwoStreamConfig(learn_power=False, non_local_channels=1)
        return cls.Config(network=network, include_self=True, legacy_weights=True)

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return weighted_regularised_triplet(features, labels, self.settings.include_self, self.settings.legacy_weights)
