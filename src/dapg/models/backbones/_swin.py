"""Shared by the Swin transformers (Liu et al. 2021) under SOLIDER's names, with its semantic weight as a setting.

SOLIDER (Chen et al. 2023) trains one network for all balances of looks and meaning; the balance goes in beside the
image, as a scale and a shift after each stage. Here it is fixed by ``Config.semantic_weight``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.ranges import Factor, Share
from dapg.core.settings import unset
from dapg.core.train_config import BackboneConfig
from dapg.models.backbones.base import Backbone, Converted
from dapg.models.blocks.initialise import initialise
from dapg.models.blocks.transformer import LayerNorm

WINDOW = 7


class WindowAttention(nn.Module):
    """Attention within a window, with a learnt bias for each offset between two places."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def draw(self, generator: torch.Generator) -> None:
        """Normal of deviation 0.02, as published."""
        nn.init.normal_(self.relative_position_bias_table, std=0.02, generator=generator)

    def forward(self, x: Float[Tensor, "B W N C"], mask: Float[Tensor, "W 1 N N"] | None) -> Float[Tensor, "B W N C"]:
        """One step; ``mask`` is added where neighbours in a window are none in the image."""
        query, key, value = torch.unflatten(self.qkv(x), 3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        likeness = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5  # (B, W, heads, N, N)
        bias = self.relative_position_bias_table[_offsets(x.device)].permute(2, 0, 1)
        likeness = likeness + (bias if mask is None else bias + mask)
        seen = likeness.softmax(dim=-1).to(value.dtype) @ value
        out: Tensor = self.proj(seen.transpose(2, 3).flatten(3))
        return out


def _offsets(device: torch.device) -> Int[Tensor, "N N"]:
    """Row of the bias table for each pair of places: offset of rows, then of columns, both from 1 - WINDOW up."""
    places = torch.arange(WINDOW * WINDOW, device=device)
    rows, columns = places // WINDOW, places % WINDOW
    down = rows[:, None] - rows[None] + WINDOW - 1
    right = columns[:, None] - columns[None] + WINDOW - 1
    return down * (2 * WINDOW - 1) + right


class ShiftedWindows(nn.Module):
    """Cuts a map into windows, moved by half a window in every other block, and puts it together again."""

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.w_msa, self.shift = WindowAttention(channels, heads), shift

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """Attention in all windows; the map is filled up with zeros below and to the right."""
        height, width = x.shape[1:3]
        x = functional.pad(x, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        rows, columns = x.shape[1] // WINDOW, x.shape[2] // WINDOW
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = _split(x, 1, rows, columns)
        mask = self._mask(rows, columns, x.device) if self.shift else None
        seen = self.w_msa(windows.flatten(3, 4).flatten(1, 2), mask)
        x = (
            seen.unflatten(2, (WINDOW, WINDOW))
            .unflatten(1, (rows, columns))
            .transpose(2, 3)
            .flatten(3, 4)
            .flatten(1, 2)
        )
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]

    def _mask(self, rows: int, columns: int, device: torch.device) -> Float[Tensor, "W 1 N N"]:
        """-100 between places that came into one window from opposite borders."""
        border = [torch.zeros(count * WINDOW, dtype=torch.long, device=device) for count in (rows, columns)]
        for strip in border:
            strip[-WINDOW : -self.shift], strip[-self.shift :] = 1, 2
        region = border[0][:, None] * 3 + border[1][None]
        places = _split(region, 0, rows, columns).flatten(2, 3).flatten(0, 1)  # (W, N)
        apart: Tensor = places[:, None, :, None] != places[:, None, None, :]
        return -100.0 * apart.float()


def _split(x: Tensor, axis: int, rows: int, columns: int) -> Tensor:
    """Axes (h, w) from ``axis`` on as (rows, columns, WINDOW, WINDOW)."""
    cut = torch.unflatten(torch.unflatten(x, axis + 1, (columns, WINDOW)), axis, (rows, WINDOW))
    return cut.transpose(axis + 1, axis + 2)


class SwinBlock(nn.Module):
    """Windows and MLP, each after its norm, added to what came in."""

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(channels), LayerNorm(channels)
        self.attn = ShiftedWindows(channels, heads, shift)
        wide = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU())
        self.ffn = nn.ModuleDict({"layers": nn.Sequential(wide, nn.Linear(4 * channels, channels))})

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """One block."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn["layers"](self.norm2(x))
        return out


class Merge(nn.Module):
    """Four neighbours become one place of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Float[Tensor, "B h w c"]) -> Float[Tensor, "B h2 w2 C"]:
        """Channel by channel, its four places side by side, as ``nn.Unfold`` has them."""
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        quads = torch.unflatten(torch.unflatten(x, 2, (-1, 2)), 1, (-1, 2)).permute(0, 1, 3, 5, 2, 4)
        out: Tensor = self.reduction(self.norm(quads.flatten(3)))
        return out


class Stage(nn.Module):
    """Blocks at one resolution, then the merging into the next."""

    def __init__(self, channels: int, heads: int, depth: int, merges: bool) -> None:
        super().__init__()
        shifts = [WINDOW // 2 * (number % 2) for number in range(depth)]
        self.blocks = nn.Sequential(*(SwinBlock(channels, heads, shift) for shift in shifts))
        self.downsample = Merge(channels) if merges else nn.Identity()

    def forward(self, x: Float[Tensor, "B h w c"]) -> Float[Tensor, "B h2 w2 C"]:
        """All of it."""
        out: Tensor = self.downsample(self.blocks(x))
        return out


class SwinPatches(nn.Module):
    """Patches of 4 x 4 pixels to places of the first map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, channels, 4, 4)
        self.norm = LayerNorm(channels)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normed channels of each place."""
        height, width = images.shape[2:]
        places: Tensor = self.projection(functional.pad(images, (0, -width % 4, 0, -height % 4)))
        normed: Tensor = self.norm(places.movedim(1, -1))
        return normed.movedim(-1, 1)


class MapNorm(LayerNorm):
    """The last norm, whose output is the map."""

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B C h w"]:
        """Channels in front again."""
        return super().forward(x).movedim(-1, 1).contiguous()


class Swin(Backbone):
    """Four stages at strides 4 to 32; a subclass names channels and depths. Its stem is the embedding of patches."""

    channels: ClassVar[int]
    depths: ClassVar[tuple[int, int, int, int]]

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """Settings of a Swin transformer."""

        width: Factor = BackboneConfig.width
        """Factor on the number of heads, and so on the channels; 1 is the published network."""
        semantic_weight: Share = unset(BackboneConfig.semantic_weight)
        """Share of meaning against looks in SOLIDER's features; 0.2 is what its authors take to tell people apart."""

    config: Config

    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the layers and draw their weights."""
        super().__init__(config, generator)
        heads = max(1, round(self.channels // 32 * config.width))
        channels = 32 * heads
        with torch.device("meta"):
            self.patch_embed = SwinPatches(channels)
            self.layers = nn.ModuleList(
                Stage(channels << number, heads << number, depth, merges=number < 3)
                for number, depth in enumerate(self.depths)
            )
            self.norm3 = MapNorm(channels << 3)
            self.semantic_embed_w = nn.ModuleList(nn.Linear(2, channels << number) for number in (1, 2, 3))
            self.semantic_embed_b = nn.ModuleList(nn.Linear(2, channels << number) for number in (1, 2, 3))
        self.feature_dim = channels << 3
        initialise(self, generator)

    def stem_names(self) -> tuple[str, ...]:
        """The embedding of patches with its norm."""
        return ("patch_embed",)

    def trunk(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C2 h2 w2"]:
        """Four stages, the balance after each of the first three, the norm."""
        weight = self.config.semantic_weight
        balance = x.new_tensor([weight, 1 - weight])
        x = x.movedim(1, -1)
        for number, stage in enumerate(self.layers):
            x = stage(x)
            if number < len(self.semantic_embed_w):
                scale, shift = (half[number](balance) for half in (self.semantic_embed_w, self.semantic_embed_b))
                x = x * functional.softplus(scale) + shift
        grid: Tensor = self.norm3(x)
        return grid

    def map_module(self) -> nn.Module:
        """The last norm."""
        return self.norm3

    def convert(self, tensors: Mapping[str, Tensor]) -> Converted:
        """SOLIDER calls the layers stages; bias tables of other windows are resized as images are."""
        renamed, words = dict[str, Tensor](), ""
        wanted = (2 * WINDOW - 1) ** 2
        for name in (name for name in tensors if name.startswith("stages.")):
            tensor = tensors[name]
            if name.endswith("relative_position_bias_table") and len(tensor) != wanted:
                side = round(len(tensor) ** 0.5)
                grid = torch.unflatten(tensor.float().T, 1, (side, side))[None]
                size = (2 * WINDOW - 1, 2 * WINDOW - 1)
                tensor = functional.interpolate(grid, size, mode="bicubic").flatten(2)[0].T.contiguous()
                words = f"offsets resized from {side} x {side} to {size[0]} x {size[1]}"
            renamed[f"layers.{name.removeprefix('stages.')}"] = tensor
        return Converted(renamed, frozenset(name for name in tensors if name.startswith("stages.")), words)
