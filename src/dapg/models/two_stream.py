"""What a second modality adds to a backbone: a stem of its own, non-local blocks between the shared stages, pooling."""

import copy
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.errors import UsageError
from dapg.core.ranges import CountOrZero, Factor, Layers, Range
from dapg.core.scales import Scale, Scaled, Self
from dapg.core.settings import unset
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.non_local import NonLocal
from dapg.models.blocks.pooling import Stripes, average_pool, gem_pool


@dataclass(frozen=True)
class TwoStreamConfig(Scaled):
    """Network beyond the backbone. Defaults are AGW's without its code's slips (docs/explanation/finetuners.md)."""

    pooling: Literal["gem", "average"] = "gem"
    """From feature map to vector: generalised mean (which drops negative values, as transformers have) or average."""
    stripes: Layers | None = unset(None)
    """Also the means of so many horizontal stripes, reduced to 64 channels each; none when not given."""
    power: Factor = 3.0
    """First power of GeM (AGW: 3)."""
    learn_power: bool = True
    """Train the power of GeM, as the AGW paper says; its code keeps it fixed."""
    non_local: tuple[CountOrZero, CountOrZero, CountOrZero, CountOrZero] = (0, 2, 3, 0)
    """Non-local blocks in each stage, after its last so many blocks (AGW: 0, 2, 3, 0); at most one after each block."""
    non_local_channels: Annotated[int, Range(0, 65_536)] = 0
    """Inner channels of non-local blocks; 0: half, as in their paper. AGW's code has 1 (``ratio // ratio``)."""

    def at(self, scale: Scale) -> Self:
        """The scale's stripes: a small network's map has too few channels to tell many persons apart."""
        return replace(self, stripes=scale.stripes)


class TwoStream(nn.Module):
    """Runs a backbone on images of two modalities: two stems, one trunk.

    The backbone's own stem is the visible one; the infrared stem starts as a copy of it. A stem that is fixed
    (``Backbone.Config.fixed``) serves both modalities, as its copy would never differ from it. Where the stem ends is
    the backbone's ``stem_names``: convolution and batch norm before the pooling of ResNets (AGW's split), the first
    convolution of MobileNetV2. Non-local blocks follow the last blocks of a stage, before the resolution falls.

    The backbone is an argument of ``forward``, not a part: it belongs to the method, which exports it.
    """

    def __init__(self, backbone: Backbone, config: TwoStreamConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        one_stem = bool(backbone.fixed_modules())
        self.infrared_stem = nn.ModuleList([] if one_stem else copy.deepcopy(backbone.stem_modules()))
        self.non_local = nn.ModuleDict()
        if any(config.non_local) and not backbone.stages():
            raise UsageError(
                f"{type(backbone).__name__} has no stages that non-local blocks could follow: "
                "--method.network.non_local '[0,0,0,0]' leaves them out"
            )
        dims = backbone.stage_dims()
        for (stage, blocks), wanted in zip(backbone.stages().items(), config.non_local, strict=False):
            count = min(wanted, len(blocks))
            layers = [NonLocal(dims[stage], config.non_local_channels, generator) for _ in range(count)]
            if layers:
                self.non_local[stage] = nn.ModuleList(layers)
        self.feature_dim = backbone.feature_dim
        if config.pooling == "gem" and config.learn_power:
            self.power = nn.Parameter(torch.tensor(config.power))
        if config.stripes is not None:
            self.stripes = Stripes(backbone.feature_dim, config.stripes, generator)
            self.feature_dim += self.stripes.feature_dim

    def forward(
        self,
        backbone: Backbone,
        visible: Float[Tensor, "V 3 H W"] | None = None,
        infrared: Float[Tensor, "I 3 H W"] | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """Feature map of the visible images, then of the infrared ones; either may be left out.

        Raises:
            UsageError: neither is given.
        """
        images = self.stems(backbone, visible, infrared)
        return self._trunk(backbone, images) if self.non_local else backbone.trunk(images)

    def stems(
        self,
        backbone: Backbone,
        visible: Float[Tensor, "V 3 H W"] | None,
        infrared: Float[Tensor, "I 3 H W"] | None,
    ) -> Float[Tensor, "B c h w"]:
        """What leaves the two stems, which is where both go on together; as ``forward`` otherwise."""
        maps = []
        if visible is not None:
            maps.append(backbone.stem(visible))
        if infrared is not None:
            stem = list(self.infrared_stem) or backbone.stem_modules()
            maps.append(backbone.apply_stem(stem, infrared))
        if not maps:
            raise UsageError("a two-stream network needs visible or infrared images")
        return torch.cat(maps) if len(maps) > 1 else maps[0]

    def _trunk(self, backbone: Backbone, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        for stage, blocks in backbone.stages().items():
            extra = list(self.non_local[stage]) if stage in self.non_local else []  # type: ignore[call-overload]
            first = len(blocks) - len(extra)
            for place, block in enumerate(blocks):
                x = backbone.apply_block(block, x)
                if place >= first:
                    x = extra[place - first](x)
        return x

    def pool(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D"]:
        """One vector an image, in single precision."""
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            if self.config.pooling == "average":
                whole = average_pool(wide)
            else:
                whole = gem_pool(wide, self.power if self.config.learn_power else self.config.power)
            return whole if self.config.stripes is None else torch.cat([whole, self.stripes(wide)], dim=1)
