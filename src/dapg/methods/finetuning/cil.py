"""CIL for visible-infrared images: erasing, mixing, AugMix, and consistency of the views (Chen et al. 2021)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.augment.augmix import augmix
from dapg.augment.erasing import cil_erasing
from dapg.augment.padded import padded_image, standardise
from dapg.core.batch import Batch, StepResult
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import Factor, Weight
from dapg.core.rng import SampleGenerator
from dapg.losses.identity import accuracy, identity_loss
from dapg.losses.js import js_divergence
from dapg.losses.triplet import weighted_regularised_triplet
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.two_stream import TwoStreamConfig

VIEWS = 3
"""A clean image and two AugMix copies."""


class CIL(TwoStreamMethod["CIL.Config"]):
    """AGW's network and losses on clean views, and equal class probabilities for every person's three views.

    Source: Zoky-2020/CIL-CrossModal, the code behind the corrupted scores of CIL and DAPG; augmentation as in
    MinghuiChen43/CIL-ReID.
    """

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Defaults are the published method without its code's slips, which docs/explanation/finetuners.md lists."""

        js_weight: Weight = 12.0
        """Weight of the consistency term (AugMix and CIL: 12)."""
        severity: Factor = 3.0
        """AugMix's largest level."""
        erase_clean: bool = False
        """The clean view is erased and mixed too, as in the published code, whose operations work in place."""
        legacy_wrap: bool = False
        """Values that erasing pushes out of [0, 1] wrap modulo 256 as in the published code; ours are clipped."""
        infrared_views: Literal["augmented", "constant"] = "augmented"
        """The two copies of an infrared image: AugMix copies, or the image itself, as in the published code. Then
        their divergence is 0 and the consistency of visible images has half its weight."""
        include_self: bool = False
        """The triplet's positives include the anchor itself at distance 0, as in the published code."""
        legacy_weights: bool = False
        """The triplet's weights to the letter of the published code, which vanish at large distances."""

        def __post_init__(self) -> None:
            """Refuse views that CIL does not have."""
            if self.views.erasing:
                raise UsageError("CIL erases before AugMix: views.erasing must be 0")

    @classmethod
    def paper(cls) -> "CIL.Config":
        """The published code to the letter. It scores the feature before the neck: ``--feature before_bn``."""
        return cls.Config(
            network=TwoStreamConfig(learn_power=False, non_local_channels=1),
            erase_clean=True,
            legacy_wrap=True,
            infrared_views="constant",
            include_self=True,
            legacy_weights=True,
        )

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Identity loss and triplet of the clean views; consistency of the logits of all three."""
        order = self._visible_first(batch)
        half = len(batch) // 2
        visible, infrared = order[:half], order[half:]
        rows = send(order, batch.images.device)
        labels, images = self._classes(batch.persons[rows]), batch.images[rows]
        warm = self.visible_triple(images[:half], generator.rows(visible))
        cold = self.infrared_triple(images[half:], generator.rows(infrared))
        pooled, logits = self._embed(warm.flatten(0, 1), cold.flatten(0, 1))

        classes = logits.shape[1]
        clean = pooled.reshape(2, VIEWS, half, -1)[:, 0].flatten(0, 1)  # (modality, view, image, D) -> (B, D)
        of_views = logits.float().reshape(2, VIEWS, half, classes).transpose(1, 2).flatten(0, 1)  # (B, view, class)
        identity = identity_loss(of_views[:, 0], labels)
        triplet = self._triplet(clean, labels)
        consistency = js_divergence(of_views.log_softmax(dim=2))
        logs = {
            "identity": identity.detach(),
            "triplet": triplet.detach(),
            "js": consistency.detach(),
            "accuracy": accuracy(of_views[:, 0], labels),
        }
        return StepResult(identity + triplet + self.settings.js_weight * consistency, logs)

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return weighted_regularised_triplet(features, labels, self.settings.include_self, self.settings.legacy_weights)

    def visible_triple(
        self, images: UInt8[Tensor, "B 3 H W"], generator: SampleGenerator
    ) -> Float[Tensor, "3 B 3 h w"]:
        """Normalised clean view and two AugMix copies of the erased and mixed image."""
        chosen = self.settings
        with torch.autocast(images.device.type, enabled=False):
            clean = padded_image(images, chosen.views, generator)
            erased = cil_erasing(clean, generator.fork("cil"), chosen.legacy_wrap)
            return self._triple(erased if chosen.erase_clean else clean, erased, generator)

    def infrared_triple(
        self, images: UInt8[Tensor, "B 3 H W"], generator: SampleGenerator
    ) -> Float[Tensor, "3 B 3 h w"]:
        """The same for infrared images: nothing is erased, and the copies may be the image itself."""
        with torch.autocast(images.device.type, enabled=False):
            clean = padded_image(images, self.settings.views, generator)
            if self.settings.infrared_views == "augmented":
                return self._triple(clean, clean, generator)
            view = standardise(clean, self.settings.views, generator, self.backbone.mean, self.backbone.std)
            return view.expand(VIEWS, *view.shape)

    def _triple(
        self, clean: Float[Tensor, "B 3 h w"], start: Float[Tensor, "B 3 h w"], generator: SampleGenerator
    ) -> Float[Tensor, "3 B 3 h w"]:
        """``clean`` and two AugMix copies of ``start``, normalised."""
        streams = generator.fork("copy 1", "copy 2")
        copies = augmix(start.repeat(2, 1, 1, 1), streams, self.settings.severity, truncate=True)
        views = torch.cat([clean, copies]).reshape(VIEWS, *clean.shape)
        flat = standardise(views.flatten(0, 1), self.settings.views, generator, self.backbone.mean, self.backbone.std)
        return flat.reshape(views.shape)
