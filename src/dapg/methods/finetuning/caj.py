"""CAJ: channel-augmented joint learning, two visible views, enhanced triplet, flip test (Ye et al., ICCV 2021)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.augment.channel import channel_adapt_grey, channel_exchange
from dapg.augment.padded import PaddedViewConfig, padded_image, standardise
from dapg.core.batch import Batch, StepResult
from dapg.core.device import send
from dapg.core.ranges import Share
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self
from dapg.losses.enhanced_triplet import enhanced_triplet
from dapg.losses.identity import accuracy, identity_loss
from dapg.methods.base import Recipe
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.two_stream import TwoStreamConfig

ChannelChange = Callable[[Float[Tensor, "B 3 h w"], SampleGenerator], Float[Tensor, "B 3 h w"]]


class CAJ(TwoStreamMethod["CAJ.Config"]):
    """A modern recipe on AGW's network: channel augmentation alone is worth more than most pre-trainings in print.

    Source: the folder ICCV21_CAJ of mangye16/Cross-Modal-Re-ID-baseline, ``--method adp``.
    """

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Defaults are the published recipe without its code's slips, which docs/explanation/finetuners.md lists."""

        change_normalised: bool = False
        """Exchange channels after normalising, as the published code does. Channels are normalised differently, so
        that the result is no grey image's; ours are exchanged before, and look to the network as infrared ones do."""
        infrared_grey: Share = 0.5
        """Probability of luma in the fourth case of ChannelAdapGray, on infrared images."""
        include_self: bool = False
        """The triplet's positives include the anchor itself at distance 0, as in the published code."""
        legacy_weights: bool = False
        """The triplet's weights to the letter of the published code, which vanish at large distances."""
        saturate: bool = False
        """Cut the squared difference off at 88 as the published code does; beyond it an anchor has no gradient."""
        flip_test: bool = True
        """Score the mean feature of an image and its mirror image (``testa.py``)."""
        views: PaddedViewConfig = field(default_factory=lambda: PaddedViewConfig(erasing=0.5))
        """What the network sees of an image in training, before channels are exchanged."""

        def at(self, scale: Scale) -> Self:
            """Without the scale's channel mixing: it exchanges channels itself."""
            config = super().at(scale)
            return replace(config, views=replace(config.views, mixing=None))

    @classmethod
    def paper(cls) -> "CAJ.Config":
        """The published code to the letter, with the erasing colour that it puts into normalised images."""
        return cls.Config(
            network=TwoStreamConfig(learn_power=False, non_local_channels=1),
            change_normalised=True,
            include_self=True,
            legacy_weights=True,
            saturate=True,
            views=PaddedViewConfig(erasing=0.5, erasing_value=(0.4914, 0.4822, 0.4465)),
        )

    @classmethod
    def recipe(cls, usual: "Recipe[CAJ.Config]") -> "Recipe[CAJ.Config]":
        """AGW's for the 100 epochs of train_ext.py."""
        return replace(usual, train=replace(usual.train, epochs=100.0)) if usual.scale.published else usual

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Identity loss and enhanced triplet of three views: visible, visible with one channel, infrared."""
        order = self._visible_first(batch)
        half = len(batch) // 2
        visible, infrared = order[:half], order[half:]
        persons = self._classes(batch.persons[send(order, batch.images.device)])
        labels = torch.cat([persons[:half], persons])
        warm, infrared_images = (batch.images[send(rows, batch.images.device)] for rows in (visible, infrared))
        views = torch.cat(
            [
                self._changed_view(warm, generator.rows(visible).fork("plain"), None),
                self._changed_view(warm, generator.rows(visible).fork("channel"), channel_exchange),
            ]
        )
        adapt = partial(channel_adapt_grey, probability=self.settings.infrared_grey)
        cold = self._changed_view(infrared_images, generator.rows(infrared).fork("plain"), adapt)
        pooled, logits = self._embed(views, cold)
        identity = identity_loss(logits, labels)
        triplet = self._triplet(pooled, labels)
        logs = {"identity": identity.detach(), "triplet": triplet.detach(), "accuracy": accuracy(logits, labels)}
        return StepResult(identity + triplet, logs)

    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        chosen = self.settings
        return enhanced_triplet(features, labels, chosen.include_self, chosen.legacy_weights, chosen.saturate)

    def _changed_view(
        self, images: UInt8[Tensor, "B 3 H W"], generator: SampleGenerator, change: ChannelChange | None
    ) -> Float[Tensor, "B 3 h w"]:
        """One view; its channels are changed before normalising and erasing, or after both as published."""
        views = self.settings.views
        with torch.autocast(images.device.type, enabled=False):
            image = padded_image(images, views, generator)
            if change is not None and not self.settings.change_normalised:
                image = change(image, generator.fork("channels"))
            view = standardise(image, views, generator, self.backbone.mean, self.backbone.std)
            if change is not None and self.settings.change_normalised:
                view = change(view, generator.fork("channels"))
            return view
