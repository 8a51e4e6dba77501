"""Shared by the contrastive methods: one backbone, one projection head, standard views."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dapg.augment.views import standard_view
from dapg.core.rng import SampleGenerator
from dapg.core.types import Batch, Modality
from dapg.methods.base import Method
from dapg.models.heads.base import Head
from dapg.models.pooling import average_pool


class Contrastive(Method):
    """What does not differ between methods: the input size, a view, and the features to score."""

    headline = "backbone"
    settings: Any
    """The method's own ``Config``, which has ``views``."""
    head: Head
    """From the pooled feature map to what the loss compares."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the views."""
        size: tuple[int, int] = self.settings.views.size
        return size

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

    def _view(self, batch: Batch, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        return standard_view(batch.images, self.settings.views, generator, self.backbone.mean, self.backbone.std)
