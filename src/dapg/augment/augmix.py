"""AugMix (Hendrycks et al. 2020): three chains of one to three simple operations, mixed with the clean image.

Source: google-research/augmix. The nine operations avoid ImageNet-C's corruptions; each works on uint8 images and
rounds as Pillow does, so that a chain is what the published code makes of it.
"""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from dapg.augment.noise_chain import mix
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""In the order of the published list."""

_CHAINS, _LONGEST = 3, 3
"""Chains that are mixed, and the most operations in one."""
_AFFINE = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def augmix(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    severity: float = 3.0,
    truncate: bool = False,
) -> Float[Tensor, "B 3 H W"]:
    """Mixed images in [0, 1].

    Args:
        images: images in [0, 1].
        generator: one stream a sample.
        severity: levels are uniform in [0.1, severity], at most 10; 3 for CIFAR and CIL, 1 in AugMix's ImageNet script.
        truncate: end on whole grey levels, cut off, as CIL does before normalising.

    Raises:
        UsageError: severity outside [0.1, 10].
    """
    if not 0.1 <= severity <= 10:
        raise UsageError("augmix: severity is 0.1 ... 10")
    count = len(images)
    depths = generator.integers(_LONGEST + 1, _CHAINS, low=1)
    operations = generator.integers(len(OPERATIONS), _CHAINS, _LONGEST)
    levels = generator.uniform(_CHAINS, _LONGEST, low=0.1, high=severity)
    signs = torch.where(generator.bernoulli(0.5, _CHAINS, _LONGEST), -1, 1)
    weights = generator.exponential(_CHAINS)  # Dirichlet(1, ..., 1) when divided by their sum
    weights = send(weights / weights.sum(dim=1, keepdim=True), images.device)
    share = send(generator.uniform(), images.device)

    start = images.mul(255).round().clamp(0, 255).to(torch.uint8)
    changed = start.repeat_interleave(_CHAINS, dim=0)  # (B chains, 3, H, W): all chains side by side
    for step in range(_LONGEST):
        draws = (operations[:, :, step], levels[:, :, step], signs[:, :, step])
        changed = _one_step(changed, (depths > step).flatten(), *(draw.flatten() for draw in draws))
    chains = (changed.to(images.dtype) / 255).reshape(count, _CHAINS, *images.shape[1:])
    mixed = mix(images, chains, weights, share)
    return mixed.mul(255).clamp(0, 255).floor() / 255 if truncate else mixed


def _one_step(
    images: UInt8[Tensor, "B 3 H W"],
    active: Tensor,
    operation: Int[Tensor, "B"],
    level: Float[Tensor, "B"],
    sign: Int[Tensor, "B"],
) -> UInt8[Tensor, "B 3 H W"]:
    """One operation for every active sample, those of a kind together. Draws are on the host."""
    kinds = [OPERATIONS[i] if use else "" for i, use in zip(operation.tolist(), active.tolist(), strict=True)]
    groups: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        groups.setdefault("affine" if kind in _AFFINE else kind, []).append(number)
    height, width = images.shape[-2:]
    levels, signs = level.tolist(), sign.tolist()
    parts = []
    for name, members in groups.items():
        rows = torch.tensor(members)
        part = images.index_select(0, send(rows, images.device))
        if name == "affine":
            matrices = [_affine_values(kinds[i], levels[i], signs[i], height, width) for i in members]
            part = warp(part, send(torch.tensor(matrices, dtype=torch.float64), images.device))
        elif name:
            part = operate(part, name, level[rows], sign[rows])
        parts.append(part)
    # Whole rows are copied one after the other, which is many times faster than writing them to their places.
    places = torch.tensor([number for members in groups.values() for number in members]).argsort()
    return torch.cat(parts).index_select(0, send(places, images.device))


def operate(
    images: UInt8[Tensor, "B 3 H W"], name: str, level: Float[Tensor, "B"], sign: Int[Tensor, "B"]
) -> UInt8[Tensor, "B 3 H W"]:
    """One operation by name; ``level`` up to 10, ``sign`` ±1 where an operation has a direction, both on the host."""
    if name == "autocontrast":
        return autocontrast(images)
    if name == "equalize":
        return equalize(images)
    strength = send(level, images.device)
    if name == "posterize":
        return posterize(images, 4 - (strength * 4 / 10).long())
    if name == "solarize":
        return solarize(images, 256 - (strength * 256 / 10).long())
    height, width = images.shape[-2:]
    pairs = zip(level.tolist(), sign.tolist(), strict=True)
    matrices = [_affine_values(name, value, direction, height, width) for value, direction in pairs]
    return warp(images, send(torch.tensor(matrices, dtype=torch.float64), images.device))


def autocontrast(images: UInt8[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """Stretch every channel to 0 ... 255; flat channels stay."""
    low = images.amin(dim=(2, 3), keepdim=True).to(torch.float64)
    high = images.amax(dim=(2, 3), keepdim=True).to(torch.float64)
    # Not 255 / x, which torch computes as 255 times the reciprocal: one bit off, one grey level off.
    scale = torch.full_like(high, 255) / (high - low).clamp(min=1)
    stretched = (images * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: UInt8[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """Equalise the histogram of every channel with Pillow's integer table."""
    flat = images.flatten(2).long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    last = 255 - (histogram > 0).flip(2).int().argmax(dim=2, keepdim=True)
    step = (flat.shape[2] - histogram.gather(2, last)) // 255
    before = histogram.cumsum(dim=2) - histogram
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(0, 255)
    identity = torch.arange(256, device=images.device).expand_as(table)
    table = torch.where(step > 0, table, identity)
    return table.gather(2, flat).to(torch.uint8).reshape(images.shape)


def posterize(images: UInt8[Tensor, "B 3 H W"], bits: Int[Tensor, "B"]) -> UInt8[Tensor, "B 3 H W"]:
    """Keep the highest ``bits`` bits of every value."""
    mask = 256 - 2 ** (8 - bits.clamp(0, 8))
    return images & mask.to(torch.uint8)[:, None, None, None]


def solarize(images: UInt8[Tensor, "B 3 H W"], threshold: Int[Tensor, "B"]) -> UInt8[Tensor, "B 3 H W"]:
    """Turn values at or above the threshold into their negative."""
    return torch.where(images < threshold[:, None, None, None], images, 255 - images)


def _affine_values(name: str, level: float, sign: int, height: int, width: int) -> tuple[float, ...]:
    """(a, b, c, d, e, f): output (x, y) reads input (a x + b y + c, d x + e y + f)."""
    if name == "rotate":
        angle = -math.radians(sign * int(level * 30 / 10))
        cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
        across, down = width / 2, height / 2
        offset = (across - cos * across - sin * down, down + sin * across - cos * down)
        return cos, sin, offset[0], -sin, cos, offset[1]
    if name == "shear_x":
        return 1.0, sign * level * 0.3 / 10, 0.0, 0.0, 1.0, 0.0
    if name == "shear_y":
        return 1.0, 0.0, 0.0, sign * level * 0.3 / 10, 1.0, 0.0
    if name == "translate_x":
        return 1.0, 0.0, float(sign * int(level * (width / 3) / 10)), 0.0, 1.0, 0.0
    return 1.0, 0.0, 0.0, 0.0, 1.0, float(sign * int(level * (height / 3) / 10))


def warp(images: UInt8[Tensor, "B 3 H W"], matrices: Float[Tensor, "B 6"]) -> UInt8[Tensor, "B 3 H W"]:
    """Affine warp, bilinear, black where the input is left; truncated to whole levels like Pillow."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device, dtype=torch.float64)[:, None] + 0.5
    x = torch.arange(width, device=images.device, dtype=torch.float64) + 0.5
    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    # Whole images see one addition in float64 and comparisons in float32, which keeps the edges 0 and 1 exact.
    grid = torch.empty(len(images), height, width, 2, dtype=torch.float32, device=images.device)
    grid[..., 0] = (a * x + c) * (2 / width) + (b * y * (2 / width) - 1)
    grid[..., 1] = (d * x + f) * (2 / height) + (e * y * (2 / height) - 1)
    inside = ((grid >= -1) & (grid < 1)).all(dim=-1)
    values = functional.grid_sample(images.to(torch.float32), grid, padding_mode="border", align_corners=False)
    # A two-hundredth of a level against float32's 99.998 for a value that was hit exactly.
    return (values + 5e-3).clamp_(0, 255).mul_(inside[:, None]).to(torch.uint8)
