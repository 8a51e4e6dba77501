"""Shared by methods without labels: settings, two views of each image, one head, negatives, features to score."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypeVar

from dapg.augment.noise_chain import ChainConfig
from dapg.augment.views import ViewConfig, chain_views, standard_view
from dapg.core import distributed
from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.ranges import Count, Share
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self
from dapg.core.types import Modality
from dapg.methods.base import ConfigT_co, Method, MethodConfig
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.base import Head
from dapg.models.heads.moco_head import MoCoHead

Pair = Literal["standard", "corrupted"]
"""``standard``: two independent views of the recipe; ``corrupted``: x_q and x2 of one noise chain."""
Negatives = Literal["queue", "batch"]
"""Earlier keys of a momentum encoder, or the batch's other images, seen by the one online encoder."""


@dataclass(frozen=True)
class PairConfig(MethodConfig):
    """Two views of each image."""

    views: ViewConfig = field(default_factory=ViewConfig)
    """How a standard view is made."""
    pair: Pair = "standard"
    """standard, or corrupted: the two views are x_q and x2 of one noise chain."""
    chain: ChainConfig = field(default_factory=ChainConfig)
    """The noise chain of corrupted views."""

    def __post_init__(self) -> None:
        """Refuse a bank, which this method would not use."""
        if self.chain.bank:
            raise UsageError("chain.bank is for dapg; two corrupted views are made anew in every step")


@dataclass(frozen=True)
class QueueConfig(MethodConfig):
    """A momentum encoder, whose earlier keys wait in a queue."""

    momentum: Share = 0.999
    """Share of itself that the key encoder keeps at each step."""
    queue: Count = 65_536
    """Keys remembered (K); at most half the number of images, so that few (one in eight at most) meet their own older
    key: every epoch has a new order."""
    head: MoCoHead.Config = field(default_factory=MoCoHead.Config)
    """Projection head."""

    def at(self, scale: Scale) -> Self:
        """In some hundred steps the key encoder has to follow faster."""
        config = super().at(scale)
        return config if scale.published else replace(config, momentum=0.99)


@dataclass(frozen=True)
class NegativesConfig(QueueConfig):
    """Where the negatives come from."""

    negatives: Negatives = "queue"
    """Earlier keys of a momentum encoder, or the batch's other images, seen by the one online encoder."""

    def at(self, scale: Scale) -> Self:
        """A momentum encoder of some hundred steps is hardly trained (docs/log.md)."""
        config = super().at(scale)
        return config if scale.published else replace(config, negatives="batch")


PairConfigT_co = TypeVar("PairConfigT_co", bound=PairConfig, default=PairConfig, covariant=True)


class TwoViews(Method[PairConfigT_co]):
    """A method that learns from two views of each image."""

    headline = "backbone"

    def _pair(
        self, batch: Batch, generator: SampleGenerator, streams: tuple[str, str] = ("first", "second")
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 3 h w"]]:
        """Both views; standard ones are drawn from the forks of ``generator`` named in ``streams``."""
        if self.settings.pair == "corrupted":
            views = chain_views(batch.images, self.settings.views, self.settings.chain, generator.fork("chain"))
            return self._normalised(views[0]), self._normalised(views[2])
        first, second = self._view_configs()
        return (
            self._view(batch, first, generator.fork(streams[0])),
            self._view(batch, second, generator.fork(streams[1])),
        )

    def _view_configs(self) -> tuple[ViewConfig, ViewConfig]:
        """Settings of the first and of the second standard view."""
        return self.settings.views, self.settings.views

    def _view(self, batch: Batch, config: ViewConfig, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        return standard_view(batch.images, config, generator, self.backbone.mean, self.backbone.std)


class Contrastive(Method[ConfigT_co]):
    """A method without labels: a projection head, and the features to score."""

    headline = "backbone"
    head: Head
    """From the pooled feature map to what the loss compares."""

    progress: Tensor
    """Share of the training that is done: a buffer of the methods whose step depends on it."""
    _read: tuple[tuple[int, int], float] | None = None

    def set_progress(self, share: float) -> None:
        """Keep ``progress`` in the checkpoint, and on the host, so that no step has to ask the device for it."""
        self.progress.fill_(share)
        self._read = self._stamp(), float(torch.tensor(share, dtype=self.progress.dtype))

    def get_progress(self) -> float:
        """``progress``; read from the device only where it was loaded since."""
        if self._read is None or self._read[0] != self._stamp():
            self._read = self._stamp(), float(self.progress)
        return self._read[1]

    def _stamp(self) -> tuple[int, int]:
        return id(self.progress), self.progress._version

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


def other_images(positives: Float[Tensor, "B P D"]) -> tuple[Float[Tensor, "N D"], Bool[Tensor, "B N"]]:
    """Negatives of the batch: every process's positives, and which of them belong to another image than the row's.

    With gradient. An image is told from the others by its place alone, so another image of its person is a negative.
    """
    every = distributed.gather(positives)
    first, count = distributed.first_row(len(positives)), positives.shape[1]
    rows = torch.arange(first, first + len(positives), device=every.device)
    owners = torch.arange(len(every), device=every.device).repeat_interleave(count)
    return every.flatten(0, 1), rows[:, None] != owners
