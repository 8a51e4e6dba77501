"""Shared: padding, separable and full correlation, shifted sums and zooms of batches, with the reference's borders."""

import functools
import math
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from dapg.core.device import send

Border = Literal["nearest", "reflect", "mirror"]
"""What lies outside: the edge pixel again (a a | a b c), the image mirrored with its edge pixel (b a | a b c, SciPy's
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
    height, width = images.shape[-2:]
    if border != "reflect" and images.ndim == 4 and images.is_floating_point() and rows < height and columns < width:
        # torch's own padding is several times faster; it lacks "reflect" and refuses padding beyond the image.
        mode = "replicate" if border == "nearest" else "reflect"
        return functional.pad(images, (columns, columns, rows, rows), mode=mode)
    return pad_axis(pad_axis(images, -2, rows, rows, border), -1, columns, columns, border)


@functools.lru_cache(maxsize=256)
def gaussian_kernel(sigma: float, truncate: float = 4.0) -> tuple[float, ...]:
    """Sampled Gaussian that sums to 1, cut at ``truncate`` deviations (rounded), as in SciPy."""
    radius = int(truncate * sigma + 0.5)
    weights = (-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2).exp()
    return tuple((weights / weights.sum()).tolist())


@functools.lru_cache(maxsize=256)
def _band_blocks(
    kernel: tuple[float, ...], length: int, border: Border, device: torch.device
) -> list[tuple[slice, slice, Float[Tensor, "n k"]]]:
    """A correlation along an axis as blocks (output, input, matrix); what lies outside is folded into the matrices."""
    radius = len(kernel) // 2
    source = _border_index(length, radius, radius, border, torch.device("cpu")).unfold(0, len(kernel), 1)
    whole = torch.zeros(length, length, dtype=torch.float64)
    whole.scatter_add_(1, source, torch.tensor(kernel, dtype=torch.float64).expand(length, -1))
    blocks = []
    block = _BLOCK // 2 if radius <= 8 else _BLOCK
    for start in range(0, length, block):
        rows = slice(start, min(start + block, length))
        used = whole[rows].abs().sum(dim=0).nonzero()[:, 0]
        columns = slice(int(used.min()), int(used.max()) + 1)
        blocks.append((rows, columns, send(whole[rows, columns].to(torch.float32), device)))
    return blocks


def correlate_axis(
    images: Float[Tensor, "*B H W"], kernel: tuple[float, ...], axis: int, border: Border
) -> Float[Tensor, "*B H W"]:
    """Correlate with a centred kernel of odd length along rows (-2) or columns (-1).

    Blocks of 32 or 64 pixels are multiplied with a band matrix: fast on both devices, and never more work than about
    twice what the kernel needs.
    """
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    planes = images.contiguous().view(-1, *images.shape[-2:])
    output = result.view(planes.shape)
    lines, output_lines = planes.view(-1, images.shape[-1]), result.view(-1, images.shape[-1])
    for target, source, matrix in _band_blocks(kernel, images.shape[axis], border, images.device):
        if axis == -2:
            torch.bmm(matrix.expand(len(planes), -1, -1), planes[:, source], out=output[:, target])
        else:
            torch.mm(lines[:, source], matrix.T, out=output_lines[:, target])
    return result


def gaussian(
    images: Float[Tensor, "*B H W"],
    sigma: float | tuple[float, float],
    border: Border = "nearest",
    truncate: float = 4.0,
) -> Float[Tensor, "*B H W"]:
    """Gaussian blur with one deviation, or one for rows and one for columns, in pixels."""
    down, across = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    blurred = correlate_axis(images, gaussian_kernel(down, truncate), -2, border)
    return correlate_axis(blurred, gaussian_kernel(across, truncate), -1, border)


def box_mean(images: Float[Tensor, "*B H W"], size: int, border: Border = "mirror") -> Float[Tensor, "*B H W"]:
    """Mean of ``size`` x ``size`` pixels; an even window reaches one pixel farther up and left, as in OpenCV."""
    ones = (1.0,) * size if size % 2 == 1 else (*(1.0,) * size, 0.0)
    # Summed first and divided once: the mean of equal whole numbers is that number, to the last bit.
    total = correlate_axis(correlate_axis(images, ones, -2, border), ones, -1, border)
    return total.div_(size * size)


@functools.lru_cache(maxsize=64)
def _spectrum(
    kernel: tuple[tuple[float, ...], ...], height: int, width: int, device: torch.device
) -> Shaped[Tensor, "h w"]:
    """Spectrum of a correlation kernel on a grid of (height, width)."""
    taps = torch.tensor(kernel, dtype=torch.float64)
    spectrum: Tensor = torch.fft.rfft2(taps, s=(height, width)).conj()
    return send(spectrum.to(torch.complex64), device)


def correlate(
    images: Float[Tensor, "B C H W"], kernel: tuple[tuple[float, ...], ...], border: Border = "mirror"
) -> Float[Tensor, "B C H W"]:
    """Correlate with a full two-dimensional kernel (odd sides) by FFT."""
    height, width = images.shape[-2:]
    rows, columns = len(kernel) // 2, len(kernel[0]) // 2
    padded = pad(images, rows, columns, border)
    # Multiples of 40 suit an FFT: 256 + 16 ... 20 rows become 280, 128 + 16 ... 20 columns 160.
    size = (-(height + 2 * rows) // 40 * -40, -(width + 2 * columns) // 40 * -40)
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= _spectrum(kernel, *size, images.device)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., :height, :width]


def shifted_sum(
    images: Float[Tensor, "B C H W"], offsets: Int[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B C H W"]:
    """Sum over k of weight k times the image read ``offsets[k]`` = (rows, columns) away; edges are repeated."""
    if images.device.type == "cpu":
        return _shifted_sum_by_sample(images, offsets, weights)
    return _shifted_sum_at_once(images, offsets, weights)


def _shifted_sum_by_sample(
    images: Float[Tensor, "B C H W"], offsets: Int[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B C H W"]:
    """Each sample's shifts as views of its padded image: everything stays in the cache."""
    height, width = images.shape[-2:]
    result = torch.zeros_like(images)
    for image, total, moves, shares in zip(images, result, offsets.tolist(), weights.tolist(), strict=True):
        used = [(down, right, share) for (down, right), share in zip(moves, shares, strict=True) if share > 1e-7]
        up, left = -min(m[0] for m in used), -min(m[1] for m in used)
        below, beyond = max(m[0] for m in used), max(m[1] for m in used)
        edges = (max(left, 0), max(beyond, 0), max(up, 0), max(below, 0))
        padded = functional.pad(image[None], edges, mode="replicate")[0]
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

    The result has round(ceil(H / f) f) rows: H or more.
    """
    height, width = images.shape[-2:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    centre = images[..., top : top + rows, left : left + columns]
    size = (round(rows * factor), round(columns * factor))
    return functional.interpolate(centre, size=size, mode="bilinear", align_corners=True)


@functools.lru_cache(maxsize=64)
def _zoom_steps(
    factors: tuple[float, ...], height: int, width: int, device: torch.device
) -> list[tuple[Tensor, Tensor, int, list[tuple[slice, slice, Tensor]]]]:
    """For each factor: two input rows of every output row, the second's share, rows filled, and column blocks."""
    steps = []
    for factor in factors:
        down = _zoom_matrix(height, factor)
        first = (down > 0).int().argmax(dim=1)
        second = (first + 1).clamp(max=height - 1)
        rows = torch.arange(height)
        share = torch.where(second > first, down[rows, second], torch.zeros_like(down[rows, first]))
        across = _zoom_matrix(width, factor)
        blocks = []
        for start in range(0, width, _BLOCK // 2):
            columns = slice(start, min(start + _BLOCK // 2, width))
            used = across[columns].sum(dim=0).nonzero()[:, 0]
            if len(used) == 0:
                continue
            source = slice(int(used.min()), int(used.max()) + 1)
            matrix = across[columns, source].T.to(torch.float32).contiguous()
            blocks.append((columns, source, send(matrix, device)))
        steps.append(
            (
                send(torch.stack([first, second]), device),
                send(share.to(torch.float32)[:, None], device),
                int((down.sum(dim=1) > 0).sum()),
                blocks,
            )
        )
    return steps


def _zoom_matrix(length: int, factor: float) -> Float[Tensor, "{length} {length}"]:
    """One axis of ``centre_zoom`` cut to ``length``, or filled up with zeros, as a matrix; float64."""
    inner = math.ceil(length / factor)
    start, outer = (length - inner) // 2, round(inner * factor)
    position = torch.arange(min(outer, length), dtype=torch.float64) * ((inner - 1) / max(outer - 1, 1))
    below = position.floor().long().clamp(max=inner - 1)
    share = position - below
    matrix = torch.zeros(length, length, dtype=torch.float64)
    rows = torch.arange(len(position))
    matrix[rows, start + below] += 1 - share
    matrix[rows, start + (below + 1).clamp(max=inner - 1)] += share
    return matrix


def sum_of_zooms(images: Float[Tensor, "B C H W"], factors: tuple[float, ...]) -> Float[Tensor, "B C H W"]:
    """The sum of ``centre_zoom`` by every factor, each cut to H x W or added to the top left part if smaller.

    Rows are mixed in pairs, columns by small matrix products: several times faster than as many interpolations.
    """
    height, width = images.shape[-2:]
    total = torch.zeros_like(images)
    flat = total.view(-1, width)
    for index, share, filled, blocks in _zoom_steps(factors, height, width, images.device):
        mixed = images.index_select(2, index[0]).lerp_(images.index_select(2, index[1]), share)
        mixed[..., filled:, :] = 0
        lines = mixed.view(-1, width)
        for columns, source, matrix in blocks:
            flat[:, columns].addmm_(lines[:, source], matrix)
    return total
