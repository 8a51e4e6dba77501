"""Shared by methods without labels: two views of each picture, one backbone, one head, negatives, features to score."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from dapg.augment.views import ViewConfig, chain_views, standard_view
from dapg.core import distributed
from dapg.core.batch import Batch
from dapg.core.images import normalise
from dapg.core.rng import SampleGenerator
from dapg.core.types import Modality
from dapg.methods.base import Method
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.base import Head

Pair = Literal["standard", "corrupted"]
"""``standard``: two independent views of the recipe; ``corrupted``: x_q and x2 of one noise chain."""
Negatives = Literal["queue", "batch"]
"""Earlier keys of a momentum encoder, or the batch's other pictures, seen by the one online encoder."""


class TwoViews(Method):
    """A method that learns from two views of each picture, made from its own ``Config``: views, pair and chain."""

    headline = "backbone"
    settings: Any
    """The method's own ``Config``, which has ``views``, ``pair`` and ``chain``."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the views."""
        size: tuple[int, int] = self.settings.views.size
        return size

    def _pair(
        self, batch: Batch, generator: SampleGenerator, streams: tuple[str, str] = ("first", "second")
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 3 h w"]]:
        """Both views; standard ones are drawn from the forks of ``generator`` named in ``streams``."""
        if self.settings.pair == "corrupted":
            views = chain_views(batch.images, self.settings.views, self.settings.chain, generator.fork("chain"))
            return self._normalised(views[0]), self._normalised(views[2])
        one, other = self._view_configs()
        return (
            self._view(batch, one, generator.fork(streams[0])),
            self._view(batch, other, generator.fork(streams[1])),
        )

    def _view_configs(self) -> tuple[ViewConfig, ViewConfig]:
        """Settings of the first and of the second standard view."""
        return self.settings.views, self.settings.views

    def _normalised(self, images: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 h w"]:
        """Pictures in [0, 1] with the mean and deviation of the network."""
        return normalise(images, self.backbone.mean, self.backbone.std)

    def _view(self, batch: Batch, config: ViewConfig, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        return standard_view(batch.images, config, generator, self.backbone.mean, self.backbone.std)


class Contrastive(TwoViews):
    """What methods without labels share besides: a projection head, and the features to score."""

    head: Head
    """From the pooled feature map to what the loss compares."""

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``backbone``: pooled feature map; ``projection``: what the loss compares."""
        pooled = average_pool(self.backbone(images))
        return {
            "backbone": functional.normalize(pooled),
            "projection": functional.normalize(self.head(pooled)),
        }

    def project(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Unit rows that the loss compares."""
        return functional.normalize(self.head(average_pool(self.backbone(view))))


def other_pictures(positives: Float[Tensor, "B P D"]) -> tuple[Float[Tensor, "N D"], Bool[Tensor, "B N"]]:
    """Negatives of the batch: every process's positives, and which of them belong to another picture than the row's.

    With gradient. A picture is told from the others by its place alone, so another picture of its person is a negative.
    """
    every = distributed.gather(positives)
    first, count = distributed.first_row(len(positives)), positives.shape[1]
    rows = torch.arange(first, first + len(positives), device=every.device)
    owners = torch.arange(len(every), device=every.device).repeat_interleave(count)
    return every.flatten(0, 1), rows[:, None] != owners
