"""DAPG stage 2: alignment by pose generation (the paper's section II-B, Fig. 4).

    anchor      a view of the image                                        online encoder   -> q
    positives   ChannelAug of the person in a random canonical pose          momentum encoder -> k: positives of Eq. 2
    queue       earlier keys: negatives of Eq. 2

With ``negatives: batch`` the online encoder makes q and k, and the other images' k are the negatives.

An image without another one of its person is its own positive, as in stage 1. Nobody's label is looked at: where
queue or batch hold a second image of a person, it is a negative of the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment.channel import choose_channels, draw_channels
from dapg.augment.views import ViewConfig, standard_view
from dapg.core.batch import Batch, StepResult
from dapg.core.errors import UsageError
from dapg.core.images import to_float
from dapg.core.ranges import Count, Positive, Share
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Self
from dapg.core.settings import from_dict
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.core.types import JsonObject
from dapg.losses.info_nce import Reduction, multi_positive_info_nce
from dapg.losses.js import js_divergence, log_similarity_distribution
from dapg.methods.alignment.base import AlignmentConfig, AlignmentMethod
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import Contrastive, NegativesConfig, other_images
from dapg.models.backbones.base import Backbone
from dapg.models.heads.moco_head import MoCoHead
from dapg.models.momentum import KeyEncoder


class DAPGAlign(AlignmentMethod["DAPGAlign.Config"], Contrastive["DAPGAlign.Config"]):
    """An image must find its person in another pose and other colours."""

    @dataclass(frozen=True)
    class Config(AlignmentConfig, NegativesConfig):
        """Defaults are the recommended reading; ``paper()`` is the literal one."""

        temperature: Positive = 0.1
        """τ of Eq. 2. The paper's 0.7 is nearly flat; 0.1 is LUPerson's."""
        positives: Count = 1
        """Images of the person in other poses that each anchor is compared with, drawn anew in each step."""
        positives_reduction: Reduction = "sum_inside"
        """Eq. 2 sums the positives inside the logarithm; ``mean_outside`` pulls each of them."""
        channel: Share = 0.5
        """Probability that a positive shows one colour channel, or its luma, three times (CAJ's ChannelExchange)."""
        channel_order: Literal["before", "after"] = "before"
        """Whether channels are exchanged before the image is normalised, or after it as in CAJ's code."""
        alpha: Share = 1.0
        """Share of the contrastive term; below 1 the rest is Eq. 3-5 among at least two positives."""
        js_temperature: Positive = 0.1
        """Of the softmax that makes the p of Eq. 3."""
        views: ViewConfig = field(default_factory=lambda: ViewConfig(blur=0.0))
        """Crop, flip, grey and erasing, of anchor and positives, each with its own draw."""

        def following(self, before: JsonObject) -> Self:
            """The head before, too, where it was one like this."""
            config, head = super().following(before), before.get("head", {})
            if set(head) != set(vars(self.head)):
                return config
            return replace(config, head=from_dict(MoCoHead.Config, head, "head."))

    @classmethod
    def paper(cls) -> "DAPGAlign.Config":
        """The printed τ of 0.7, and the views of stage 1: crop, flip and grey only."""
        return cls.Config(temperature=0.7, js_temperature=0.7, views=ViewConfig(blur=0.0, erasing=0.0))

    @classmethod
    def recipe(cls, usual: "Recipe[DAPGAlign.Config]") -> "Recipe[DAPGAlign.Config]":
        """The usual one; the paper has Adam at 0.0075 and 64 images a step, and goes on after a collapse."""
        if usual.scale.settings != "paper":
            return usual
        train = replace(
            usual.train,
            batch_size=64,
            optimizer=OptimizerConfig("adam", lr=0.0075, lr_batch=0, weight_decay=0.0),
            schedule=ScheduleConfig(),
            on_collapse="warn",
            precision="fp32",
        )
        return replace(usual, train=train)

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        if config.alpha < 1 and config.positives < 2:
            raise UsageError("the consistency of Eq. 3-5 compares positives: alpha below 1 needs positives 2 or more")
        super().__init__(config, backbone, facts, generator)
        self.head = MoCoHead(backbone.feature_dim, config.head, generator)
        if config.negatives == "queue":
            size = max(1, min(config.queue, facts.pictures // 2))
            self.keys = KeyEncoder(backbone, self.head, config.momentum, size, config.head.output_dim)

    def take_head(self, state: Mapping[str, Tensor]) -> None:
        """Go on with stage 1's projection head; its momentum copy starts equal, the queue stays empty.

        Raises:
            RuntimeError: names or shapes of another head.
        """
        self.head.load_state_dict(state)
        if self.settings.negatives == "queue":
            self.keys.head.load_state_dict(state)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Eq. 2 for one batch; with ``alpha`` below 1 the positives also pass the online encoder, for Eq. 3-5."""
        config = self.settings
        mean, std = self.backbone.mean, self.backbone.std
        anchor_view = standard_view(batch.images, config.views, generator.fork("anchor"), mean, std)
        images, own = self.positives(batch, config.positives, generator.fork("pose"))
        views = [
            self._positive_view(images[:, place], generator.fork(f"positive {place}"))
            for place in range(config.positives)
        ]
        if config.negatives == "queue":
            anchor = self.project(anchor_view)
            keys = torch.stack([self.keys(view, generator) for view in views], dim=1)  # (B, P, D)
            negatives, _, counted = self.keys.queue.contents()
            self.keys.remember(keys[:, 0])
        else:
            anchor, *seen = self.project(torch.cat([anchor_view, *views])).chunk(1 + config.positives)
            keys = torch.stack(seen, dim=1)
            negatives, counted = other_images(keys)
        contrastive = multi_positive_info_nce(
            anchor, keys, negatives, config.temperature, config.positives_reduction, counted
        )
        consistency = torch.zeros_like(contrastive)
        if config.alpha < 1:
            online = keys if config.negatives == "batch" else self._online(views)
            distribution = log_similarity_distribution(online, negatives.detach(), config.js_temperature, counted)
            consistency = js_divergence(distribution)
        loss = config.alpha * contrastive + (1 - config.alpha) * consistency  # Eq. 1
        logs = {
            "contrastive": contrastive.detach(),
            "js": consistency.detach(),
            "own_positive": own.float().mean(),
            "positive_similarity": torch.einsum("bd,bpd->bp", anchor.detach(), keys.detach()).mean(),
        }
        return StepResult(loss, logs, features=lambda: anchor)

    def after_step(self, step: int, total_steps: int) -> None:
        """The key encoder follows; this step's keys become negatives of the next."""
        if self.settings.negatives == "queue":
            self.keys.update(self.backbone, self.head)

    def _online(self, views: list[Float[Tensor, "B 3 h w"]]) -> Float[Tensor, "B P D"]:
        """The positives as the online encoder sees them, with gradient."""
        return torch.stack(self.project(torch.cat(views)).chunk(len(views)), dim=1)

    def _positive_view(self, images: UInt8[Tensor, "B 3 H W"], generator: SampleGenerator) -> Tensor:
        """(B, 3, h, w): ChannelAug of a view of its own."""
        config = self.settings
        choice = draw_channels(config.channel, generator.fork("channel"), luma=True)
        with torch.autocast(images.device.type, enabled=False):  # images stay in single precision
            if config.channel_order == "before":
                changed = choose_channels(to_float(images), choice)
                images = changed.mul(255).round().to(torch.uint8)
            view = standard_view(images, config.views, generator.fork("view"), self.backbone.mean, self.backbone.std)
            return view if config.channel_order == "before" else choose_channels(view, choice)
