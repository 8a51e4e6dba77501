"""Shared: padding, separable and full correlation, shifted sums and zooms of batches, with the reference's borders."""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

Border = Literal["nearest", "reflect", "mirror"]
"""What lies outside: the edge pixel again (a a | a b c), the picture mirrored with its edge pixel (b a | a b c, SciPy's
``reflect``), or without it (c b | a b c, OpenCV's default)."""

_BLOCK = 64


@functools.lru_cache(maxsize=256)
def _border_index(length: int, before: int, after: int, border: Border, device: torch.device) -> Int[Tensor, "N"]:
    position = torch.arange(-before, length + after, device=device)
    if border == "nearest" or length == 1:
        return position.clamp(0, length - 1)
    period = 2 * length if border == "reflect" else 2 * length - 2
    folded = position % period
    mirrored = period - 1 - folded if border == "reflect" else period - folded
    return torch.where(folded < length, folded, mirrored)


def pad_axis(images: Shaped[Tensor, "*B H W"], axis: int, before: int, after: int, border: Border) -> Tensor:
    """Extend one of the last two axes (-2 rows, -1 columns) by any number of pixels."""
    if before == 0 and after == 0:
        return images
    index = _border_index(images.shape[axis], before, after, border, images.device)
    return images.index_select(images.ndim + axis, index)


def pad(images: Shaped[Tensor, "*B H W"], rows: int, columns: int, border: Border) -> Shaped[Tensor, "*B h w"]:
    """Extend by ``rows`` pixels above and below and ``columns`` left and right."""
    return pad_axis(pad_axis(images, -2, rows, rows, border), -1, columns, columns, border)


def gaussian_kernel(sigma: float, truncate: float = 4.0) -> Float[Tensor, "taps"]:
    """Sampled Gaussian that sums to 1, cut at ``truncate`` deviations (rounded), as in SciPy; float64."""
    radius = int(truncate * sigma + 0.5)
    weights = (-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2).exp()
    return weights / weights.sum()


@functools.lru_cache(maxsize=256)
def _band(kernel: tuple[float, ...], size: int, device: torch.device) -> Float[Tensor, "{size} K"]:
    """The matrix that correlates ``size + taps - 1`` pixels with a kernel to ``size`` pixels."""
    matrix = torch.zeros(size, size + len(kernel) - 1)
    taps = torch.tensor(kernel)
    for row in range(size):
        matrix[row, row : row + len(kernel)] = taps
    return matrix.to(device)


def correlate_axis(
    images: Float[Tensor, "*B H W"], kernel: Sequence[float], axis: int, border: Border
) -> Float[Tensor, "*B H W"]:
    """Correlate with a centred kernel of odd length along rows (-2) or columns (-1).

    Blocks of 64 pixels are multiplied with a band matrix: fast on both devices, and never more work than about
    twice the kernel needs.
    """
    radius, length = len(kernel) // 2, images.shape[axis]
    padded = pad_axis(images, axis, radius, radius, border)
    result = torch.empty_like(images)
    for start in range(0, length, _BLOCK):
        size = min(_BLOCK, length - start)
        matrix = _band(tuple(kernel), size, images.device)
        part = padded.narrow(axis, start, size + 2 * radius)
        block = matrix @ part if axis == -2 else part @ matrix.T
        result.narrow(axis, start, size).copy_(block)
    return result


def gaussian(
    images: Float[Tensor, "*B H W"],
    sigma: float | tuple[float, float],
    border: Border = "nearest",
    truncate: float = 4.0,
) -> Float[Tensor, "*B H W"]:
    """Gaussian blur with one deviation, or one for rows and one for columns, in pixels."""
    down, across = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    blurred = correlate_axis(images, gaussian_kernel(down, truncate).tolist(), -2, border)
    return correlate_axis(blurred, gaussian_kernel(across, truncate).tolist(), -1, border)


def box_mean(images: Float[Tensor, "*B H W"], size: int, border: Border = "mirror") -> Float[Tensor, "*B H W"]:
    """Mean of ``size`` x ``size`` pixels; an even window reaches one pixel farther up and left, as in OpenCV."""
    before, after = size // 2, size - 1 - size // 2
    padded = pad_axis(pad_axis(images, -2, before, after, border), -1, before, after, border)
    flat = padded.reshape(-1, 1, *padded.shape[-2:])
    return functional.avg_pool2d(flat, size, stride=1).reshape(images.shape)


@functools.lru_cache(maxsize=64)
def _spectrum(
    kernel: tuple[tuple[float, ...], ...], height: int, width: int, device: torch.device
) -> Shaped[Tensor, "h w"]:
    """Spectrum of a correlation kernel on a grid of (height, width)."""
    taps = torch.tensor(kernel, dtype=torch.float64)
    spectrum: Tensor = torch.fft.rfft2(taps, s=(height, width)).conj()
    return spectrum.to(torch.complex64).to(device)


def _smooth_size(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5: quick for an FFT."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def correlate(
    images: Float[Tensor, "B C H W"], kernel: tuple[tuple[float, ...], ...], border: Border = "mirror"
) -> Float[Tensor, "B C H W"]:
    """Correlate with a full two-dimensional kernel (odd sides) by FFT."""
    height, width = images.shape[-2:]
    rows, columns = len(kernel) // 2, len(kernel[0]) // 2
    padded = pad(images, rows, columns, border)
    size = (_smooth_size(height + 2 * rows), _smooth_size(width + 2 * columns))
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= _spectrum(kernel, *size, images.device)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., :height, :width]


def shifted_sum(
    images: Float[Tensor, "B C H W"], offsets: Int[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B C H W"]:
    """Sum over k of weight k times the picture read ``offsets[k]`` = (rows, columns) away; edges are repeated."""
    if images.device.type == "cpu":
        return _shifted_sum_by_sample(images, offsets, weights)
    return _shifted_sum_at_once(images, offsets, weights)


def _shifted_sum_by_sample(
    images: Float[Tensor, "B C H W"], offsets: Int[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B C H W"]:
    """Each sample's shifts as views of its padded picture: everything stays in the cache."""
    height, width = images.shape[-2:]
    result = torch.zeros_like(images)
    for image, total, moves, shares in zip(images, result, offsets.tolist(), weights.tolist(), strict=True):
        used = [(down, right, share) for (down, right), share in zip(moves, shares, strict=True) if share != 0]
        up, left = -min(m[0] for m in used), -min(m[1] for m in used)
        below, beyond = max(m[0] for m in used), max(m[1] for m in used)
        padded = pad_axis(image, -2, max(up, 0), max(below, 0), "nearest")
        padded = pad_axis(padded, -1, max(left, 0), max(beyond, 0), "nearest")
        for down, right, share in used:
            top, start = down + max(up, 0), right + max(left, 0)
            total.add_(padded[:, top : top + height, start : start + width], alpha=share)
    return result


def _shifted_sum_at_once(
    images: Float[Tensor, "B C H W"], offsets: Int[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B C H W"]:
    """One gather for the whole batch per k: few, large operations for a GPU."""
    count, channels, height, width = images.shape
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    result = torch.zeros_like(images)
    for k in range(offsets.shape[1]):
        rows = (row + offsets[:, k, 0, None]).clamp(0, height - 1)[:, None, :, None]
        columns = (column + offsets[:, k, 1, None]).clamp(0, width - 1)[:, None, None, :]
        result.addcmul_(images[sample, channel, rows, columns], weights[:, k, None, None, None])
    return result


def centre_zoom(images: Float[Tensor, "B C H W"], factor: float) -> Float[Tensor, "B C h w"]:
    """Enlarge the centre ceil(H / f) x ceil(W / f) by ``factor``, bilinear, corner pixels on corner pixels.

    The result has round(ceil(H / f) f) rows, which rounding can make larger or smaller than H.
    """
    height, width = images.shape[-2:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    centre = images[..., top : top + rows, left : left + columns]
    size = (round(rows * factor), round(columns * factor))
    return functional.interpolate(centre, size=size, mode="bilinear", align_corners=True)
