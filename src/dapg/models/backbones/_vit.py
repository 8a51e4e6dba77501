"""Shared by the vision transformers (Dosovitskiy et al. 2021) as re-identification starts from them.

Tensors have the names of timm, TransReID-SSL and DINOv2. ``Config.variant`` says whose network it is: they differ in
the stem, in tokens beside the class token, and in factors on the branches.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.ranges import Factor, PixelsOrZero
from dapg.core.settings import unset
from dapg.core.train_config import BackboneConfig
from dapg.models.backbones.base import Backbone, Converted
from dapg.models.blocks.initialise import initialise
from dapg.models.blocks.transformer import Block, LayerNorm

Variant = Literal["", "ics", "pass", "dinov2", "dinov2-registers"]
_EXTRA = {"pass": 3, "dinov2-registers": 4}
"""Tokens beside the class token: PASS's parts, DINOv2's registers."""
_REFERENCE = (256, 128)
"""Size of image for whose patches position embeddings are stored; those of other sizes are interpolated."""


class InstanceBatchNorm(nn.Module):
    """IBN-Net's norm (Pan et al. 2018): instance norm for half of the channels, batch norm for the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.IN = nn.InstanceNorm2d(self.first, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.first)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Both halves."""
        return torch.cat([self.IN(x[:, : self.first]), self.BN(x[:, self.first :])], dim=1)


class PatchEmbedding(nn.Module):
    """Patches to tokens on their grid; behind three convolutions at stride 2 in TransReID-SSL's ICS."""

    def __init__(self, channels: int, patch: int, stride: int, convolutions: bool) -> None:
        super().__init__()
        inputs = 3
        if convolutions:
            inputs, patch, stride = 64, patch // 2, stride // 2
            layers: list[nn.Module] = []
            for number, norm in enumerate((InstanceBatchNorm(64), InstanceBatchNorm(64), nn.BatchNorm2d(64))):
                size, step = (7, 2) if number == 0 else (3, 1)
                layers.append(nn.Conv2d(64 if number else 3, 64, size, step, padding=size // 2, bias=False))
                layers += [norm, nn.ReLU(inplace=True)]
            self.conv = nn.Sequential(*layers)
        self.proj = nn.Conv2d(inputs, channels, patch, stride)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """One vector for each patch."""
        grid: Tensor = self.proj(self.conv(images) if hasattr(self, "conv") else images)
        return grid


class TokenMap(nn.Module):
    """Tokens as a map whose mean over places is the feature that ``tokens`` names."""

    def __init__(self, tokens: str, skipped: int) -> None:
        super().__init__()
        self.tokens, self.skipped = tokens, skipped

    def forward(self, x: Float[Tensor, "B N C"], height: int, width: int) -> Float[Tensor, "B C h w"]:
        """The patches; moved together, so that their mean is the class token; or that token added to each."""
        patches = x[:, self.skipped :].transpose(1, 2)
        if self.tokens == "class":
            patches = patches + (x[:, 0, :, None] - patches.mean(dim=2, keepdim=True))
        elif self.tokens == "both":
            patches = patches + x[:, 0, :, None]
        return torch.unflatten(patches, 2, (height, width))


class ViT(Backbone):
    """A vision transformer; a subclass names its heads of 64 channels each. Its stem is the embedding of patches."""

    heads: ClassVar[int]
    depth: ClassVar[int] = 12

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """Settings of a vision transformer."""

        width: Factor = BackboneConfig.width
        """Factor on the number of heads, and so on the channels; 1 is the published network."""
        variant: Variant = unset("")
        """Whose files it reads: timm's and TransReID's (empty), ``ics`` (TransReID-SSL's convolutions before the
        patches), ``pass`` (three part tokens), ``dinov2`` (patches of 14), ``dinov2-registers``."""
        stride: PixelsOrZero = unset(BackboneConfig.stride)
        """Pixels from patch to patch; 0: as many as a patch has. 12 overlaps patches of 16 (TransReID)."""
        tokens: Literal["patches", "class", "both"] = unset("patches")
        """What the mean of the map is: that of the patches, the class token, or their sum."""

    config: Config

    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(config, generator)
        heads = max(1, round(self.heads * config.width))
        self.feature_dim = channels = 64 * heads
        of_dinov2 = config.variant.startswith("dinov2")
        patch = 14 if of_dinov2 else 16
        stride = config.stride or patch
        self.positions = tuple((side - patch) // stride + 1 for side in _REFERENCE)
        extra = _EXTRA.get(config.variant, 0)
        with torch.device("meta"):
            self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.positions[0] * self.positions[1], channels))
            if extra:
                self.extra_tokens = nn.Parameter(torch.empty(1, extra, channels))
            self.patch_embed = PatchEmbedding(channels, patch, stride, config.variant == "ics")
            self.blocks = nn.ModuleList(Block(channels, heads, of_dinov2) for _ in range(self.depth))
            self.norm = LayerNorm(channels, eps=1e-6)
            self.map = TokenMap(config.tokens, 1 + extra)
        initialise(self, generator)

    def draw(self, generator: torch.Generator) -> None:
        """Tokens and positions: normal of deviation 0.02, as published."""
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02, generator=generator)

    def stem_names(self) -> tuple[str, ...]:
        """The embedding of patches."""
        return ("patch_embed",)

    def trunk(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Positions, class token and further ones, blocks, norm; then the map."""
        batch, _, height, width = x.shape
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        rest = [self.extra_tokens.expand(batch, -1, -1)] if hasattr(self, "extra_tokens") else []
        places = resized_positions(self.pos_embed[:, 1:], self.positions, (height, width))
        tokens = torch.cat([first, *rest, x.flatten(2).transpose(1, 2) + places], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        grid: Tensor = self.map(self.norm(tokens), height, width)
        return grid

    def map_module(self) -> nn.Module:
        """What puts the tokens onto their grid."""
        return self.map

    def convert(self, tensors: Mapping[str, Tensor]) -> Converted:
        """PASS's and DINOv2's further tokens, and positions of another grid, resized as images are."""
        renamed = dict[str, Tensor]()
        used, words = set[str](), ""
        positions = tensors.get("pos_embed")
        if "part_token1" in tensors and positions is not None:  # PASS stores the places of its tokens apart
            parts = [tensors[f"part_token{part}"] + tensors[f"part{part}_pos"] for part in (1, 2, 3)]
            renamed["extra_tokens"] = torch.cat(parts, dim=1)
            positions = torch.cat([tensors["cls_pos"], positions], dim=1)
            used = {"cls_pos", *(name.format(part) for part in (1, 2, 3) for name in ("part_token{}", "part{}_pos"))}
        elif "register_tokens" in tensors:
            renamed["extra_tokens"], used = tensors["register_tokens"], {"register_tokens"}
        if positions is not None and positions.ndim == 3 and positions.shape[1] > 1:
            there = grid_of(positions.shape[1] - 1)
            if positions.shape[1:] != self.pos_embed.shape[1:] and positions.shape[2] == self.feature_dim:
                first, places = positions[:, :1], positions[:, 1:]
                positions = torch.cat([first, resized_positions(places.float(), there, self.positions)], dim=1)
                words = f"positions resized from {there[0]} x {there[1]} to {self.positions[0]} x {self.positions[1]}"
            renamed["pos_embed"] = positions
        return Converted(renamed, frozenset(used), words)


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns of so many patches: a square, or else the upright grid nearest to two to one.

    Example:
        >>> grid_of(196), grid_of(128), grid_of(210)
        ((14, 14), (16, 8), (21, 10))
    """
    side = round(count**0.5)
    if side * side == count:
        return side, side
    widths = [width for width in range(1, side + 1) if count % width == 0]
    width = min(widths, key=lambda width: abs(math.log(count / (2 * width * width))))
    return count // width, width


def resized_positions(
    positions: Float[Tensor, "1 N C"], there: tuple[int, ...], here: tuple[int, ...]
) -> Float[Tensor, "1 M C"]:
    """Position embeddings of a grid for another grid, bicubic; the same where both are equal."""
    if tuple(there) == tuple(here):
        return positions
    grid = torch.unflatten(positions.transpose(1, 2), 2, tuple(there))
    return (
        functional.interpolate(grid, size=tuple(here), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    )
