"""Parts of vision transformers under the names of their published files: attention, MLP, norms in single precision."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm(nn.LayerNorm):
    """Computed in float32 at least, whatever precision the layers around it have."""

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """The same, in float32 or what it was if that is wider."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            return functional.layer_norm(wide, self.normalized_shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Every token sees every other (Vaswani et al. 2017)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """One step of attention."""
        query, key, value = torch.unflatten(self.qkv(x), 2, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # (B, heads, N, c)
        seen = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Four times as wide inside, GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Both layers."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """A factor for each channel of a residual branch, small at first (Touvron et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))

    def draw(self, generator: torch.Generator) -> None:
        """As DINOv2 begins."""
        nn.init.constant_(self.gamma, 1e-5)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Scaled."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each after its norm, added to what came in (Dosovitskiy et al. 2021)."""

    def __init__(self, channels: int, heads: int, layer_scale: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(channels, eps=1e-6), LayerNorm(channels, eps=1e-6)
        self.attn, self.mlp = Attention(channels, heads), MLP(channels)
        self.ls1 = LayerScale(channels) if layer_scale else nn.Identity()
        self.ls2 = LayerScale(channels) if layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """One block."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out
