"""Contract of a backbone: pictures to a feature map, cut into a modality-specific stem and shared stages."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD


class Backbone(nn.Module, ABC):
    """A network from normalised pictures to a feature map of ``feature_dim`` channels.

    A new backbone is a new file ``models/backbones/<name>.py`` with one public subclass whose ``Config`` is nested.
    Its constructor is ``Name(config, generator)``. The weights are drawn on the CPU from ``generator`` alone (None: a
    fixed seed, for weights loaded right after); torch's global generator is not touched. ``state_dict()`` has
    torchvision's key names and shapes where torchvision knows the network, so that weights travel both ways.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of a backbone; a subclass nests its own."""

    config: Config
    """The settings it was built with; they are stored beside exported weights."""
    feature_dim: int
    """C of the feature map that ``forward`` returns."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean (of pictures in [0, 1]) that belongs to the weights; the weights loader sets it."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel deviation that belongs to the weights; the weights loader sets it."""

    @abstractmethod
    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__()

    @abstractmethod
    def stem_names(self) -> tuple[str, ...]:
        """Names (for ``get_submodule``) of the stem's modules with weights, in the order they run."""

    @abstractmethod
    def apply_stem(self, modules: Sequence[nn.Module], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """The stem with these modules in place of its own: how a second stream (AGW) runs its copy of them."""

    @abstractmethod
    def stages(self) -> Mapping[str, Sequence[nn.Module]]:
        """Blocks of the trunk in the order they run: ``layer1`` ... ``layer4``, at strides 4, 8, 16 and 32.

        A two-stream network that puts non-local blocks between them walks this mapping itself.
        """

    @abstractmethod
    def stage_dims(self) -> Mapping[str, int]:
        """Channels that leave each stage."""

    def stem_modules(self) -> list[nn.Module]:
        """The stem's own modules; a second stream keeps deep copies of them."""
        return [self.get_submodule(name) for name in self.stem_names()]

    def stem(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """The first, modality-specific layers."""
        return self.apply_stem(self.stem_modules(), images)

    def trunk(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """The shared layers: every block of every stage."""
        for blocks in self.stages().values():
            for block in blocks:
                x = block(x)
        return x

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Feature map of pictures normalised with ``mean`` and ``std``."""
        return self.trunk(self.stem(images))
