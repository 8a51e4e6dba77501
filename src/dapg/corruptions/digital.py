"""Digital damage: contrast, elastic transform, pixelate and JPEG compression of ImageNet-C.

Constants: bethgelab/imagecorruptions; hendrycks/robustness has another, much stronger elastic transform.
"""

import functools
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dapg.core.device import constant, send
from dapg.core.rng import SampleGenerator
from dapg.corruptions._filters import gaussian, pad_axis
from dapg.corruptions.base import Corruption, Parameters, by_severity, per_sample, pick, to_bytes


class Contrast(Corruption):
    """Pull every channel towards its mean over the image."""

    name = "contrast"
    family = "digital"
    FACTOR = (0.4, 0.3, 0.2, 0.1, 0.05)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"factor": pick(self.FACTOR, severity, torch.float64)}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        mean = images.mean(dim=(2, 3), keepdim=True)
        return (images - mean).mul_(per_sample(parameters["factor"]).to(images.dtype)).add_(mean)

    def apply(self, images: Shaped[Tensor, "B 3 H W"], parameters: Parameters) -> Shaped[Tensor, "B 3 H W"]:
        """uint8 in float64 by a table of the 256 levels.

        Pixels are summed one after the other like NumPy over two axes: where the mean is exactly half a level, the
        last bit of the sum decides whether whole levels survive truncation.
        """
        if images.dtype != torch.uint8:
            return super().apply(images, parameters)
        planes = images.flatten(2)
        total = planes.to(torch.float64).div_(255).cumsum(dim=2)[..., -1]
        mean = (total / planes.shape[2])[..., None]
        level = torch.arange(256, device=images.device, dtype=torch.float64) / 255
        table = to_bytes((level - mean) * parameters["factor"][:, None, None] + mean, 0.0)
        start = torch.arange(table[..., 0].numel(), device=images.device, dtype=torch.int32) * 256
        index = planes.to(torch.int32).add_(start.reshape(len(images), -1, 1))
        return table.flatten().index_select(0, index.flatten()).reshape(images.shape)


class ElasticTransform(Corruption):
    """A smooth random displacement of all pixels, the milder variant of imagecorruptions.

    Uniform fields of ±0.005 H, smoothed with σ = 1 % of each side (cut at 3 σ) and scaled by α, say where each pixel
    is read, bilinear, with the image mirrored at its edges.
    """

    name = "elastic_transform"
    family = "digital"
    ALPHA = (12.5, 16.25, 21.25, 25.0, 30.0)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``field`` (B, 2, H, W): columns, then rows, uniform in [0, 1)."""
        return {"alpha": pick(self.ALPHA, severity), "field": generator.uniform_field(2, *shape[-2:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        strength = per_sample(parameters["alpha"])
        noise = (parameters["field"] * 2).sub_(1).mul_(strength * (0.005 * height))
        moved = gaussian(noise, (0.01 * height, 0.01 * width), "reflect", 3.0)
        row = torch.arange(height, device=images.device, dtype=torch.float32)[:, None]
        column = torch.arange(width, device=images.device, dtype=torch.float32)
        grid = torch.empty(len(images), height, width, 2, device=images.device)
        torch.add(moved[:, 0], column, out=grid[..., 0])
        torch.add(moved[:, 1], row, out=grid[..., 1])
        grid.mul_(constant((2 / width, 2 / height), grid.device))
        grid.add_(constant((1 / width - 1, 1 / height - 1), grid.device))
        return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


class Pixelate(Corruption):
    """Shrink with a box filter, enlarge by repeating pixels."""

    name = "pixelate"
    family = "digital"
    cpu_batch = 8
    SHARE = (0.6, 0.5, 0.4, 0.3, 0.25)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        return self._pixelate(images, parameters["severity"], whole_levels=False)

    def apply(self, images: Shaped[Tensor, "B 3 H W"], parameters: Parameters) -> Shaped[Tensor, "B 3 H W"]:
        """uint8 is rounded after each axis, not truncated: the reference shrinks in Pillow, on whole grey levels."""
        if images.dtype != torch.uint8:
            return super().apply(images, parameters)
        if images.device.type == "cpu":
            levels = parameters["severity"].tolist()
            return _through_pillow(images, [partial(_pixelate_in_pillow, self.SHARE[n - 1]) for n in levels])
        return self._pixelate(images.to(torch.float32), parameters["severity"], whole_levels=True).to(torch.uint8)

    def _pixelate(
        self, images: Float[Tensor, "B 3 H W"], severity: Int[Tensor, "B"], whole_levels: bool
    ) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        result = torch.empty_like(images)
        for level, rows in by_severity(severity, images.device):
            share = self.SHARE[level - 1]
            small = _shrink_columns(images[rows], int(width * share))
            if whole_levels:
                small = small.add_(0.5 + 1e-4).floor_()
            small = _shrink_rows(small, int(height * share))
            if whole_levels:
                small = small.add_(0.5 + 1e-4).floor_()
            result[rows] = functional.interpolate(small, size=(height, width), mode="nearest-exact")
        return result


def _pixelate_in_pillow(share: float, image: Image.Image) -> Image.Image:
    """Small in height: rows are repeated where they are written."""
    size = int(image.width * share), int(image.height * share)
    return image.resize(size, Image.Resampling.BOX).resize((image.width, size[1]), Image.Resampling.NEAREST)


@functools.lru_cache(maxsize=64)
def _box_windows(length: int, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pillow's box filter: first pixel and number of pixels of each cell, those whose centres fall into it."""
    scale = length / size
    starts, counts = [], []
    for cell in range(size):
        centre = (cell + 0.5) * scale
        inside = [
            pixel
            for pixel in range(max(0, int(centre - scale)), min(length, int(centre + scale) + 1))
            if -0.5 < (pixel - centre + 0.5) / scale <= 0.5
        ]
        starts.append(inside[0])
        counts.append(len(inside))
    return tuple(starts), tuple(counts)


@functools.lru_cache(maxsize=64)
def _column_blocks(length: int, size: int, device: torch.device) -> list[tuple[slice, slice, Float[Tensor, "k n"]]]:
    """The box filter along rows as blocks (output, input, matrix) of 32 output columns."""
    starts, counts = _box_windows(length, size)
    blocks = []
    for begin in range(0, size, 32):
        cells = range(begin, min(begin + 32, size))
        first, last = starts[begin], starts[cells[-1]] + counts[cells[-1]]
        matrix = torch.zeros(last - first, len(cells))
        for cell in cells:
            matrix[starts[cell] - first : starts[cell] - first + counts[cell], cell - begin] = 1 / counts[cell]
        blocks.append((slice(begin, begin + len(cells)), slice(first, last), send(matrix, device)))
    return blocks


@functools.lru_cache(maxsize=64)
def _row_taps(length: int, size: int, device: torch.device) -> list[tuple[Int[Tensor, "N"], Float[Tensor, "N 1"]]]:
    """For each tap of the window the input rows and their weights."""
    start, count = (torch.tensor(values) for values in _box_windows(length, size))
    taps = []
    for tap in range(int(count.max())):
        weight = ((tap < count) / count).to(torch.float32)[:, None]
        taps.append((send((start + tap).clamp(max=length - 1), device), send(weight, device)))
    return taps


def _shrink_columns(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C H {size}"]:
    """Box-filtered shrinking to ``size`` columns by small matrix products."""
    result = images.new_empty(*images.shape[:-1], size)
    lines, output = images.contiguous().view(-1, images.shape[-1]), result.view(-1, size)
    for target, source, matrix in _column_blocks(images.shape[-1], size, images.device):
        torch.mm(lines[:, source], matrix, out=output[:, target])
    return result


def _shrink_rows(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C {size} W"]:
    """Box-filtered shrinking to ``size`` rows, a weighted sum of two to five of them each."""
    (first, weight), *others = _row_taps(images.shape[-2], size, images.device)
    total = images.index_select(2, first).mul_(weight)
    for index, share in others:
        total.addcmul_(images.index_select(2, index), share)
    return total


class JpegCompression(Corruption):
    """A round trip through JPEG at low quality with 4:2:0 chroma.

    On the CPU Pillow's codec serves, as in the reference. On a GPU the transform, the standard's tables and the chroma
    sampling run in torch; entropy coding loses nothing and is left out.
    """

    name = "jpeg_compression"
    family = "digital"
    cpu_batch = 8
    QUALITY = (25, 18, 15, 10, 7)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        if images.device.type == "cpu":
            return self._through_codec(images.mul(255).round_().clamp_(0, 255).to(torch.uint8), parameters) / 255
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            result[rows] = jpeg_by_dct(images[rows], self.QUALITY[level - 1])
        return result

    def apply(self, images: Shaped[Tensor, "B 3 H W"], parameters: Parameters) -> Shaped[Tensor, "B 3 H W"]:
        """uint8 goes straight through the codec; a decoder rounds, so nothing is truncated."""
        if images.dtype != torch.uint8:
            return super().apply(images, parameters)
        if images.device.type == "cpu":
            return self._through_codec(images, parameters)
        return to_bytes(self.transform(images.to(torch.float32) / 255, parameters).mul_(255).round_().div_(255))

    def _through_codec(self, images: UInt8[Tensor, "B 3 H W"], parameters: Parameters) -> UInt8[Tensor, "B 3 H W"]:
        levels = parameters["severity"].tolist()
        return _through_pillow(images, [partial(_codec_round_trip, self.QUALITY[n - 1]) for n in levels])


def _codec_round_trip(quality: int, image: Image.Image) -> Image.Image:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return Image.open(encoded)


def _through_pillow(
    images: UInt8[Tensor, "B 3 H W"], changes: Sequence[Callable[[Image.Image], Image.Image]]
) -> UInt8[Tensor, "B 3 H W"]:
    """Each image after its change, which may leave fewer rows: the nearest are repeated, as Pillow does.

    Several threads help, as Pillow lets go of the interpreter lock.
    """
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    size = (images.shape[3], images.shape[2])

    def one(planes: NDArray[np.uint8], change: Callable[[Image.Image], Image.Image], output: NDArray[np.uint8]) -> None:
        # Merging three bands that share our memory takes an eighth of the time of NumPy's transposed copy.
        bands = [Image.frombuffer("L", size, plane, "raw", "L", 0, 1) for plane in planes]
        changed = change(Image.merge("RGB", bands))
        changed.load()
        nearest = _nearest_rows(size[1], changed.height) if changed.height < size[1] else None
        for band, plane in zip("RGB", output, strict=True):
            rows = np.frombuffer(changed.tobytes("raw", band), np.uint8).reshape(-1, size[0])
            if nearest is None:
                plane[...] = rows
            else:
                np.take(rows, nearest, axis=0, out=plane, mode="clip")  # unlike "raise" without a copy of the output

    work = (images.contiguous().numpy(), changes, result.numpy())
    workers = min(torch.get_num_threads(), len(images))
    if workers <= 1:
        for planes, change, output in zip(*work, strict=True):
            one(planes, change, output)
        return result
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(one, *work):
            pass
    return result


@functools.lru_cache(maxsize=64)
def _nearest_rows(height: int, rows: int) -> NDArray[np.intp]:
    """For each of ``height`` rows the one of fewer that Pillow takes, whose own sums decide where two are as near."""
    numbers = Image.fromarray(np.arange(rows, dtype=np.int32)[:, None])
    return np.asarray(numbers.resize((1, height), Image.Resampling.NEAREST))[:, 0].astype(np.intp)


_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
"""Example tables K.1 and K.2 of ITU-T T.81, scaled by quality as libjpeg does."""


@functools.lru_cache(maxsize=32)
def _quantisation(quality: int, chroma: bool, device: torch.device) -> Float[Tensor, "8 8"]:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(_CHROMA_TABLE if chroma else _LUMA_TABLE)
    return send(((table * scale + 50) // 100).clamp(1, 255).to(torch.float32), device)


@functools.lru_cache(maxsize=8)
def _dct_matrix(device: torch.device) -> Float[Tensor, "8 8"]:
    """Orthonormal DCT-II of eight samples."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * k[None, :] + 1) * k[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return send(matrix.to(torch.float32), device)


def _quantise_blocks(plane: Float[Tensor, "B H W"], table: Float[Tensor, "8 8"]) -> Float[Tensor, "B H W"]:
    """What is left of a plane (-128 ... 127, sides multiples of 8) after DCT, rounding to the table, and back."""
    count, height, width = plane.shape
    matrix = _dct_matrix(plane.device)
    blocks = plane.reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3)
    coefficients = (matrix @ blocks @ matrix.T / table).round() * table
    return (matrix.T @ coefficients @ matrix).transpose(2, 3).reshape(count, height, width).round().clamp(-128, 127)


def jpeg_by_dct(images: Float[Tensor, "B 3 H W"], quality: int) -> Float[Tensor, "B 3 H W"]:
    """JPEG's loss in torch: YCbCr, chroma halved by box means and enlarged by triangles, quantised 8 x 8 DCT."""
    height, width = images.shape[-2:]
    bytes_ = images.mul(255).round().clamp(0, 255)
    bytes_ = pad_axis(pad_axis(bytes_, -2, 0, -height % 16, "nearest"), -1, 0, -width % 16, "nearest")
    red, green, blue = bytes_.unbind(dim=1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    chroma = torch.stack(
        [
            (-0.168735892 * red - 0.331264108 * green + 0.5 * blue + 128).round(),
            (0.5 * red - 0.418687589 * green - 0.081312411 * blue + 128).round(),
        ],
        dim=1,
    )
    halved = functional.avg_pool2d(chroma, 2).round()
    luma = _quantise_blocks(luma - 128, _quantisation(quality, False, images.device)) + 128
    small = _quantise_blocks(halved.flatten(0, 1) - 128, _quantisation(quality, True, images.device))
    small = small.reshape(halved.shape)[..., : (height + 1) // 2, : (width + 1) // 2]
    # libjpeg's "fancy" upsampling weighs 3 : 1, which is bilinear with aligned pixel centres.
    large = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    luma = luma[:, :height, :width]
    blue_difference, red_difference = large[..., :height, :width].unbind(dim=1)
    restored = torch.stack(
        [
            luma + 1.402 * red_difference,
            luma - 0.344136286 * blue_difference - 0.714136286 * red_difference,
            luma + 1.772 * blue_difference,
        ],
        dim=1,
    )
    return restored.round().clamp(0, 255) / 255
