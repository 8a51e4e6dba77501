"""Contract of an alignment method: it goes on from a pre-training, with other images of each person as positives."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from typing_extensions import TypeVar

from dapg.core.batch import Batch
from dapg.core.device import send
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Self
from dapg.core.types import JsonObject
from dapg.methods.base import DataFacts, Method, MethodConfig
from dapg.models.backbones.base import Backbone

COMPANIONS, VALID = "companions", "companions_valid"
"""Names in ``batch.extras`` of other images of each person, (B, P, 3, H, W), and of which of them are there, (B, P).

Generated, true or somebody else's: that is settled where they are loaded (``data/companions.py``)."""


GeneratePositives = Callable[[UInt8[Tensor, "B 3 H W"], int, SampleGenerator], UInt8[Tensor, "B P 3 H W"]]
"""Images and P in, P images of each person in drawn poses out (``_on_the_fly.OnTheFly``)."""


@dataclass(frozen=True)
class AlignmentConfig(MethodConfig):
    """What the settings of every alignment method have."""

    def following(self, before: JsonObject) -> Self:
        """The same for a network that was pre-trained by a method with the settings ``before`` (plain values).

        The size of the views is taken over; add what else must be equal.
        """
        views = before.get("views", {})
        size = int(views.get("height", self.views.height)), int(views.get("width", self.views.width))
        return replace(self, views=self.views.resized(size))


AlignmentConfigT_co = TypeVar("AlignmentConfigT_co", bound=AlignmentConfig, default=AlignmentConfig, covariant=True)


class AlignmentMethod(Method[AlignmentConfigT_co]):
    """A method of ``methods/alignment``. The stage calls ``take_head`` and ``generate_with`` once, before training."""

    def __init__(
        self, config: AlignmentConfigT_co, backbone: Backbone, facts: DataFacts, generator: torch.Generator
    ) -> None:
        super().__init__(config, backbone, facts, generator)
        self._on_the_fly: GeneratePositives | None = None  # no module: it is neither trained nor saved

    @abstractmethod
    def take_head(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the projection head of the run before; a method without one has nothing to do here.

        Raises:
            RuntimeError: names or shapes of another head.
        """

    def generate_with(self, on_the_fly: GeneratePositives) -> None:
        """Make the positives during training, where the batch brings none."""
        self._on_the_fly = on_the_fly

    def positives(
        self, batch: Batch, count: int, generator: SampleGenerator
    ) -> tuple[UInt8[Tensor, "B {count} 3 H W"], Bool[Tensor, "B"]]:
        """``count`` other images of each person, and for which images there is none and it stands in itself."""
        if self._on_the_fly is None or COMPANIONS in batch.extras:
            return positive_images(batch, count, generator)
        nobody = torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)
        return self._on_the_fly(batch.images, count, generator), nobody


def positive_images(
    batch: Batch, count: int, generator: SampleGenerator
) -> tuple[UInt8[Tensor, "B {count} 3 H W"], Bool[Tensor, "B"]]:
    """``count`` of each image's companions, drawn at random without replacement, and whose positive is the image.

    Where there are fewer, they come again; where there is none, the image stands for them itself.
    """
    if COMPANIONS not in batch.extras:
        everyone = torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)
        return batch.images[:, None].expand(-1, count, -1, -1, -1), everyone
    companions, valid = batch.extras[COMPANIONS], batch.extras[VALID]
    draws: Float[Tensor, "B P"] = send(generator.uniform(companions.shape[1]), valid.device)
    order = torch.where(valid, draws, -1.0).argsort(dim=1, descending=True)  # real ones first, in a random order
    available = valid.sum(dim=1, keepdim=True)
    places = torch.arange(count, device=valid.device)[None] % available.clamp(min=1)
    chosen = companions[torch.arange(len(batch), device=valid.device)[:, None], order.gather(1, places)]
    own = available[:, 0] == 0
    return torch.where(own[:, None, None, None, None], batch.images[:, None], chosen), own
