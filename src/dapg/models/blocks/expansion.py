"""DEEN's two blocks: several features from one image, and attention of a stage to the one before it.

Source of the structure: ZYK100/LLCM, DEEN/model.py (Zhang and Wang, CVPR 2023).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.models.blocks.non_local import pointwise


class DiverseExpansion(nn.Module):
    """A map and two further ones made from it, each by three dilated convolutions, ReLU and a 1x1 convolution."""

    BRANCHES = 2

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        with torch.device("meta"):
            self.dilated = nn.ModuleList(
                nn.ModuleList(nn.Conv2d(channels, inner, 3, padding=d, dilation=d, bias=False) for d in (1, 2, 3))
                for _ in range(self.BRANCHES)
            )
            self.widen = nn.ModuleList(nn.Conv2d(inner, channels, 1) for _ in range(self.BRANCHES))
        self.to_empty(device="cpu")
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "N C h w"]:
        """The maps themselves, then those of each branch: three times as many."""
        maps = [x]
        for dilated, widen in zip(self.dilated, self.widen, strict=True):
            assert isinstance(dilated, nn.ModuleList)
            narrow = torch.stack([layer(x) for layer in dilated]).mean(dim=0)
            maps.append(widen(functional.relu(narrow)))
        return torch.cat(maps)


class StageAttention(nn.Module):
    """What a stage puts out, enriched by what went in: by attention over channels, then over places.

    Products are divided by the number of what is summed over, without a softmax. Both begin as the identity.
    """

    def __init__(self, high: int, low: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = max(1, low // 2)
        self.channels = _Attention(high, low, low, generator)
        self.places = _Attention(high, low, inner, generator)

    def forward(self, x: Float[Tensor, "B C h w"], below: Float[Tensor, "B c h2 w2"]) -> Float[Tensor, "B C h w"]:
        """``below`` has the resolution of ``x`` or a finer one, of which every second place is taken."""
        step = -(-below.shape[2] // x.shape[2])
        coarse = below[:, :, ::step, ::step]
        query, key, value = self.channels.parts(x, coarse, below)
        seen = query @ key.transpose(1, 2) / query.shape[1] @ value  # (B, low, places below)
        x = x + self.channels.out(torch.unflatten(seen, 2, below.shape[2:])[:, :, ::step, ::step])

        query, key, value = self.places.parts(x, below, below)
        seen = value @ (query.transpose(1, 2) @ key / key.shape[2]).transpose(1, 2)  # (B, inner, places)
        out: Tensor = x + self.places.out(torch.unflatten(seen, 2, x.shape[2:]))
        return out


class _Attention(nn.Module):
    """The four 1x1 convolutions of an attention and the batch norm behind them, which starts at 0."""

    def __init__(self, high: int, low: int, inner: int, generator: torch.Generator) -> None:
        super().__init__()
        self.theta = pointwise(high, inner, generator)
        self.phi, self.g = (pointwise(low, inner, generator) for _ in range(2))
        self.project = pointwise(inner, high, generator)
        self.norm = nn.BatchNorm2d(high)
        nn.init.zeros_(self.norm.weight)

    def parts(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, inner, places)."""
        return self.theta(x).flatten(2), self.phi(keys).flatten(2), self.g(values).flatten(2)

    def out(self, seen: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h w"]:
        """Back to the channels of the stage."""
        added: Tensor = self.norm(self.project(seen))
        return added
