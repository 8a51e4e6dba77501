"""Contract of a backbone: images to a feature map; and of a pyramid, whose layers are cut into stem and stages.

What a network can be used for follows from what it has:

    forward                        every method without labels, scores, heat maps (Grad-CAM looks at ``map_module``)
    stem_names, apply_stem, trunk  two-stream methods (AGW and its kin), which run a second stem on infrared images
    stages, stage_dims             non-local blocks between the stages, ``end`` and ``fixed``
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.errors import UsageError, nearest
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.core.ranges import Factor, Stride
from dapg.core.settings import unset
from dapg.core.train_config import BackboneConfig

STAGES = ("layer1", "layer2", "layer3", "layer4")
"""Stages of a whole pyramid, at strides 4, 8, 16 and 32."""
STEM = "stem"
_FIXED_IMAGES = 16
"""Images that go through a fixed block at once."""


@dataclass(frozen=True)
class Converted:
    """Tensors of a foreign file under a backbone's own names and in its shapes."""

    tensors: Mapping[str, Tensor]
    used: frozenset[str] = frozenset()
    """Names in the file that they were made from, where these differ."""
    words: str = ""
    """What was done to them beyond renaming, for the report."""


class Backbone(nn.Module, ABC):
    """A network from normalised images to a feature map of ``feature_dim`` channels.

    A new backbone is a new file ``models/backbones/<name>.py`` with one public subclass whose ``Config`` is nested.
    Its constructor is ``Name(config, generator)``. The weights are drawn on the CPU from ``generator`` alone (None: a
    fixed seed, for weights loaded right after); torch's global generator is not touched. ``state_dict()`` has
    torchvision's key names and shapes where torchvision knows the network, so that weights travel both ways. It takes
    images of any size whose sides are multiples of 32.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of a backbone; a subclass nests its own. Those that ``BackboneConfig`` has, too, come from there."""

    config: Config
    """The settings it was built with; they are stored beside exported weights."""
    feature_dim: int
    """C of the feature map that ``forward`` returns."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean (of images in [0, 1]) that belongs to the weights; the weights loader sets it."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel deviation that belongs to the weights; the weights loader sets it."""

    @abstractmethod
    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__()
        self.config = config

    @property
    def architecture(self) -> str:
        """The name by which the plug-in is loaded: its file's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Feature map of images normalised with ``mean`` and ``std``.

        A transformer returns the grid of its patches after the last norm; what is pooled, and where a heat map looks,
        are these places. Ours can move them so that their mean is the class token.
        """
        return self.trunk(self.stem(images))

    def map_module(self) -> nn.Module:
        """The module whose output is the feature map, in ``forward`` and in ``trunk``; networks with a stem name it."""
        return self

    def stem_names(self) -> tuple[str, ...]:
        """Names (for ``get_submodule``) of the stem's modules with weights, in the order they run.

        Raises:
            UsageError: the network has no stem that could be there twice.
        """
        raise UsageError(f"{type(self).__name__} has no stem that a two-stream method could copy for infrared light")

    def apply_stem(self, modules: Sequence[nn.Module], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """The stem with these modules in place of its own: how a second stream (AGW) runs its copy of them.

        One module is called; a network whose stem has several says how they follow each other.
        """
        (only,) = modules
        out: Tensor = only(images)
        return out

    def trunk(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """What both streams share: all layers after the stem."""
        raise NotImplementedError

    def apply_block(self, block: nn.Module, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """A block of the trunk. In training a fixed one, on the CPU, sees few images at a time.

        Nothing of it is kept for gradients, and maps that stay in the processor's cache take a third of the time.
        """
        if block.training or not self.training or x.device.type != "cpu":
            out: Tensor = block(x)
            return out
        return torch.cat([block(part) for part in torch.split(x, _FIXED_IMAGES)])

    def stages(self) -> Mapping[str, Sequence[nn.Module]]:
        """Blocks of the trunk in the order they run, by stage; empty where they are not cut into stages."""
        return {}

    def stage_dims(self) -> Mapping[str, int]:
        """Channels that leave each stage."""
        return {}

    def fixed_modules(self) -> list[nn.Module]:
        """The stem and whatever else is not trained; empty where everything is."""
        return []

    def convert(self, tensors: Mapping[str, Tensor]) -> Converted:
        """What of a file's tensors has another name or shape in this network; the rest is taken as it is."""
        return Converted({})

    def stem_modules(self) -> list[nn.Module]:
        """The stem's own modules; a second stream keeps deep copies of them."""
        return [self.get_submodule(name) for name in self.stem_names()]

    def stem(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """The first, modality-specific layers."""
        return self.apply_stem(self.stem_modules(), images)


class Pyramid(Backbone):
    """A convolutional network of a stem and four stages, at strides 4, 8, 16 and 32."""

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """Settings of a pyramid."""

        width: Factor = BackboneConfig.width
        """Factor on every channel count (rounded to multiples of 8); 1 is the published network."""
        last_stride: Stride = BackboneConfig.last_stride
        """Stride of the last stage. 2 is the published network; person re-identification takes 1 (AGW)."""
        end: str | None = unset(None)
        """Last stage that is built, such as layer3; all are when not given."""
        fixed: str | None = unset(None)
        """Last stage that keeps its first weights and statistics, with the stem and every stage before it; ``stem``
        for the stem alone. Everything is trained when not given."""

        def __post_init__(self) -> None:
            """Refuse stages that the network does not have."""
            _require_stage("end", self.end, STAGES)
            _require_stage("fixed", self.fixed, (STEM, *self.built()))

        def built(self) -> tuple[str, ...]:
            """Names of the stages up to ``end``."""
            return STAGES if self.end is None else STAGES[: STAGES.index(self.end) + 1]

    config: Config

    @abstractmethod
    def stem_names(self) -> tuple[str, ...]:
        """Names (for ``get_submodule``) of the stem's modules with weights, in the order they run."""

    @abstractmethod
    def stages(self) -> Mapping[str, Sequence[nn.Module]]:
        """Blocks of the trunk in the order they run: ``layer1`` to the last stage built.

        A two-stream network that puts non-local blocks between them walks this mapping itself.
        """

    @abstractmethod
    def stage_dims(self) -> Mapping[str, int]:
        """Channels that leave each stage."""

    def trunk(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        """The shared layers: every block of every stage."""
        for blocks in self.stages().values():
            for block in blocks:
                x = self.apply_block(block, x)
        return x

    def map_module(self) -> nn.Module:
        """The last block."""
        return list(self.stages().values())[-1][-1]

    def _fix(self) -> None:
        """Stop the training of what ``Config.fixed`` names: the last line of a constructor."""
        for module in self.fixed_modules():
            module.requires_grad_(False)

    def fixed_modules(self) -> list[nn.Module]:
        """Stem and blocks that ``Config.fixed`` names; their parameters are not trained."""
        if self.config.fixed is None:
            return []
        stages = self.stages()
        fixed = () if self.config.fixed == STEM else STAGES[: STAGES.index(self.config.fixed) + 1]
        return [*self.stem_modules(), *(block for name in fixed for block in stages[name])]

    def train(self, mode: bool = True) -> "Pyramid":
        """Switch to training; batch norms of fixed layers stay with their stored statistics."""
        super().train(mode)
        for module in self.fixed_modules():
            module.eval()
        return self


def _require_stage(setting: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"{setting} is {', '.join(known)}, got {value!r}{nearest(value, list(known))}")
