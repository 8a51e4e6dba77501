"""Extra corruptions, kept for tests: ImageNet-C's speckle noise, Gaussian blur, spatter, saturate, and CIL's rain.

Constants: bethgelab/imagecorruptions for the first four; MinghuiChen43/CIL-ReID with albumentations 0.5.2 for rain.
"""

import functools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from dapg.core.colour import hsv_to_rgb, rgb_to_hsv, through_hls
from dapg.core.device import constant
from dapg.core.rng import SampleGenerator
from dapg.corruptions._filters import box_mean, gaussian, pad
from dapg.corruptions.base import Corruption, Parameters, by_severity, per_sample, pick


class SpeckleNoise(Corruption):
    """x + x N(0, σ²) for every element: noise that grows with the light."""

    name = "speckle_noise"
    family = "extra"
    DEVIATION = (0.15, 0.2, 0.35, 0.45, 0.6)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"deviation": pick(self.DEVIATION, severity), "noise": generator.normal_field(*shape[1:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        return images * (parameters["noise"] * per_sample(parameters["deviation"])).add_(1)


class GaussianBlur(Corruption):
    """Gaussian blur of every channel."""

    name = "gaussian_blur"
    family = "extra"
    margin = 0.0
    SIGMA = (1.0, 2.0, 3.0, 4.0, 6.0)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            result[rows] = gaussian(images[rows], self.SIGMA[level - 1])
        return result


class Saturate(Corruption):
    """Saturation of HSV times a plus b, clipped; pixels without colour count as red, as in the reference."""

    name = "saturate"
    family = "extra"
    precision = torch.float64
    margin = 0.0
    FACTOR_RISE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {
            "factor": pick([f for f, _ in self.FACTOR_RISE], severity, torch.float64),
            "rise": pick([r for _, r in self.FACTOR_RISE], severity, torch.float64),
        }

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        hue, saturation, value = rgb_to_hsv(images).unbind(dim=1)
        factor = parameters["factor"].to(images.dtype)[:, None, None]
        rise = parameters["rise"].to(images.dtype)[:, None, None]
        return hsv_to_rgb(torch.stack([hue, (saturation * factor + rise).clamp_(0, 1), value], dim=1))


class Spatter(Corruption):
    """Drops of water (severities 1 to 3) or splashes of mud (4 and 5) on the lens."""

    name = "spatter"
    family = "extra"
    cpu_batch = 8
    # mean, deviation, blur, threshold, strength of water or blur of mud, mud
    TABLE = (
        (0.65, 0.3, 4.0, 0.69, 0.6, False),
        (0.65, 0.3, 3.0, 0.68, 0.6, False),
        (0.65, 0.3, 2.0, 0.68, 0.5, False),
        (0.65, 0.3, 1.0, 0.65, 1.5, True),
        (0.67, 0.4, 1.0, 0.65, 1.5, True),
    )
    WATER = (175, 238, 238)
    MUD = (63, 42, 20)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity, "noise": generator.normal_field(*shape[-2:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            mean, deviation, blur, threshold, strength, mud = self.TABLE[level - 1]
            liquid = gaussian(parameters["noise"][rows] * deviation + mean, blur)
            colour = constant(self.MUD if mud else self.WATER, images.device)[:, None, None] / 255
            if mud:
                mask = gaussian((liquid > threshold).to(torch.float32), strength)[:, None]
                mask = functional.threshold(mask, math.nextafter(0.8, 0), 0.0)
                result[rows] = images[rows] * (1 - mask) + mask * colour
            else:
                mask = _water_mask(functional.threshold(liquid, math.nextafter(threshold, 0), 0.0))[:, None]
                result[rows] = images[rows] + mask * strength * colour
        return result


def _water_mask(liquid: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """How strongly each drop shines, largest 1: thickness times an embossed distance to the drops' edges."""
    layer = liquid.mul(255).to(torch.int32) & 255  # as uint8 wraps; several times as fast as a remainder
    distance = distance_to_edges(canny(layer, 50, 150)).clamp(max=20)
    smooth = box_mean(distance, 3).to(torch.int64)
    equal = equalise(smooth).to(torch.float32)
    # Right and below minus left and above: light from one side.
    outside = pad(equal, 1, 1, "mirror")
    height, width = equal.shape[-2:]
    embossed = torch.zeros_like(equal)
    for row, weights in enumerate(((-2, -1, 0), (-1, 1, 1), (0, 1, 2))):
        for column, weight in enumerate(weights):
            embossed.add_(outside[:, row : row + height, column : column + width], alpha=weight)
    embossed = box_mean(embossed.clamp_(0, 255), 3).round_()
    shine = layer * embossed
    return shine / shine.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def canny(layer: Int[Tensor, "B H W"], low: int, high: int) -> Bool[Tensor, "B H W"]:
    """Canny's edges of 0 ... 255 images as in OpenCV: 3 x 3 Sobel, ``|x| + |y|``, two thresholds with hysteresis."""
    height, width = layer.shape[-2:]
    outside = pad(layer, 1, 1, "nearest")

    def at(row: int, column: int) -> Tensor:
        return outside[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    across = at(-1, 1) + 2 * at(0, 1) + at(1, 1) - at(-1, -1) - 2 * at(0, -1) - at(1, -1)
    down = at(1, -1) + 2 * at(1, 0) + at(1, 1) - at(-1, -1) - 2 * at(-1, 0) - at(-1, 1)
    strength = across.abs() + down.abs()
    around = functional.pad(strength, (1, 1, 1, 1))

    def near(row: int, column: int) -> Tensor:
        return around[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    # Direction in four sectors; tan 22.5° in 15 binary digits, as in OpenCV.
    tangent = across.abs() * 13573  # at most 4 * 255 * 13573: 32 bits are enough
    climb = down.abs() << 15
    flat = climb < tangent
    steep = climb > tangent + (across.abs() << 16)
    falling = (across < 0) != (down < 0)
    ridge_flat = (strength > near(0, -1)) & (strength >= near(0, 1))
    ridge_steep = (strength > near(-1, 0)) & (strength >= near(1, 0))
    diagonal = torch.where(
        falling,
        (strength > near(-1, 1)) & (strength > near(1, -1)),
        (strength > near(-1, -1)) & (strength > near(1, 1)),
    )
    ridge = torch.where(flat, ridge_flat, torch.where(steep, ridge_steep, diagonal))
    possible = ridge & (strength > low)
    edges = possible & (strength > high)
    if layer.device.type != "cpu":
        return _connected(edges, possible)
    while True:
        grown = edges
        for _ in range(_GROWN_BETWEEN_LOOKS):
            grown = _with_neighbours(grown) & possible
        if torch.equal(grown, edges):
            return edges
        edges = grown


_GROWN_BETWEEN_LOOKS = 4
"""Steps of growth before it is asked whether anything changed, which costs about as much as a step."""


def _with_neighbours(pixels: Bool[Tensor, "B H W"]) -> Bool[Tensor, "B H W"]:
    """The pixels and the eight around each: a fifth of the time of a maximum over 3 x 3."""
    tall = pixels.clone()
    tall[:, 1:] |= pixels[:, :-1]
    tall[:, :-1] |= pixels[:, 1:]
    wide = tall.clone()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide


def _connected(seeds: Bool[Tensor, "B H W"], possible: Bool[Tensor, "B H W"]) -> Bool[Tensor, "B H W"]:
    """The possible pixels that a seed is connected to; a number of operations that does not depend on the image.

    Every pixel points to one of a higher number in its own component; in each round the pointed-at take over the
    highest of their pixels' neighbours, and pointers are doubled, so that a component soon points to one pixel.
    """
    count, height, width = possible.shape
    rounds = (height * width).bit_length()
    nobody = torch.full((), -1, dtype=torch.int64, device=possible.device)
    pointer = torch.arange(count * height * width, device=possible.device).reshape(possible.shape)
    for _ in range(rounds):
        around = functional.pad(torch.where(possible, pointer, nobody), (1, 1, 1, 1), value=-1)
        highest = around.unfold(1, 3, 1).unfold(2, 3, 1).amax(dim=(-2, -1))
        highest = torch.where(possible, torch.maximum(highest, pointer), pointer)
        flat = pointer.flatten().scatter_reduce(0, pointer.flatten(), highest.flatten(), "amax")
        for _ in range(2):
            flat = flat.index_select(0, flat)
        pointer = flat.reshape(possible.shape)
    seeded = torch.zeros(pointer.numel(), dtype=torch.bool, device=possible.device)
    seeded = seeded.to(torch.uint8).scatter_reduce(0, pointer.flatten(), seeds.flatten().to(torch.uint8), "amax")
    return seeded.index_select(0, pointer.flatten()).reshape(possible.shape).bool() & possible


def distance_to_edges(edges: Bool[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """Chamfer distance to the nearest edge pixel with OpenCV's 5 x 5 mask, up to 20; 1e4 where none is as near.

    Of all edge pixels of a row the nearest along the row is nearest, so that a look-up for each of 41 rows is enough.
    """
    width = edges.shape[2]
    places = torch.arange(width, dtype=torch.int32, device=edges.device)
    before = torch.where(edges, places, -_FARTHEST - 1).cummax(dim=2).values
    after = torch.where(edges, places, width + _FARTHEST + 1).flip(2).cummin(dim=2).values.flip(2)
    beside = torch.minimum(places - before, after - places).clamp_(max=_FARTHEST + 1)
    distance = torch.full(edges.shape, 1e4, device=edges.device)
    for away, lengths in enumerate(constant(_chamfer(), edges.device)):
        if away >= edges.shape[1]:
            break
        if away % 4 == 1 and edges.device.type == "cpu" and float(distance.max()) <= away:
            break  # nothing is nearer so many rows away
        near = lengths.index_select(0, beside.flatten()).reshape(edges.shape)
        above, below = slice(0, edges.shape[1] - away), slice(away, None)
        for to, source in ((below, above), (above, below)):
            torch.minimum(distance[:, to], near[:, source], out=distance[:, to])
    return distance


_FARTHEST = 20


@functools.cache
def _chamfer() -> tuple[tuple[float, ...], ...]:
    """Length of the shortest way to a pixel so many rows (0 ... 20) and columns (0 ... 21) away; 1e4 beyond 20.

    Steps cost 1, 1.4 aslant and 2.1969 for a knight's move, as in OpenCV.
    """
    straight, aslant, knight = 1.0, 1.4, 2.1969

    def length(row: int, column: int) -> float:
        long, short = max(row, column), min(row, column)
        if 2 * short <= long:
            way = (long - 2 * short) * straight + short * knight
        else:
            way = (long - short) * knight + (2 * short - long) * aslant
        return way if way <= _FARTHEST else 1e4

    return tuple(tuple(length(row, column) for column in range(_FARTHEST + 2)) for row in range(_FARTHEST + 1))


def equalise(images: Int[Tensor, "B H W"]) -> Int[Tensor, "B H W"]:
    """Histogram equalisation of 0 ... 255 images as in OpenCV; an image of one grey level stays."""
    flat = images.flatten(1).long()
    histogram = torch.zeros(len(images), 256, device=images.device, dtype=torch.int64)
    histogram.scatter_add_(1, flat, torch.ones_like(flat))
    first = (histogram > 0).int().argmax(dim=1, keepdim=True)
    lowest = histogram.gather(1, first)
    scale = 255.0 / (flat.shape[1] - lowest).clamp(min=1).to(torch.float32)
    table = ((histogram.cumsum(dim=1) - lowest) * scale).round().clamp(0, 255).long()
    same = lowest == flat.shape[1]
    return torch.where(same, flat, table.gather(1, flat)).reshape(images.shape)


class Rain(Corruption):
    """Slanted grey streaks, a box blur, and a darker image.

    Drizzle at severity 1, heavy rain at 2 and 3, a torrent at 4 and 5. The reference draws a slant for each image,
    which decides where drops may begin, but every drop then falls 10 pixels to the right, as the slant never reaches
    the drawing (albumentations up to June 2022, issue 1175): published numbers contain exactly that. It also
    multiplies lightness by 1 in 8-bit HLS, which moves strong colours by a few levels: uint8 images go that way too,
    float ones are spared it.
    """

    name = "rain"
    family = "extra"
    cpu_batch = 8
    cpu_pixels = 100_000
    # area of the image per drop, length of a drop, side of the blur, darkening
    TABLE = ((770, 10, 3, 0.10), (600, 30, 4, 0.15), (600, 30, 5, 0.20), (500, 60, 6, 0.25), (500, 60, 7, 0.30))
    SLANT = 10
    """Columns to the right that a drop falls, and the bound of the slants drawn."""
    COLOUR = 200 / 255

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``drops`` (B, N, 2): columns and rows where drops begin; unused places are -1000.

        With a slant below 0 columns are uniform in [slant, W], else in [0, W - slant].
        """
        height, width = shape[-2:]
        slant = generator.uniform(low=-float(self.SLANT), high=float(self.SLANT)).trunc().long()[:, None]
        most = max(height * width // 500, 1)
        place = generator.uniform(most, 2)
        length = pick([row[1] for row in self.TABLE], severity).long()
        count = height * width // pick([row[0] for row in self.TABLE], severity).long()
        columns = (place[..., 0] * (width - slant + 1)).long() + slant.clamp(max=0)
        rows = (place[..., 1] * ((height - length).clamp(min=0) + 1)[:, None]).long()
        used = torch.arange(most) < count[:, None]
        return {
            "severity": severity,
            "drops": torch.where(used[..., None], torch.stack([columns, rows], dim=-1), -1000),
        }

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for rows, wet, darkening, _ in self._wet(images, parameters, 1.0):
            result[rows] = wet - darkening
        return result

    def apply(self, images: Shaped[Tensor, "B 3 H W"], parameters: Parameters) -> Shaped[Tensor, "B 3 H W"]:
        """uint8 is rounded after the blur and in HLS, and truncated after darkening, as in the reference."""
        if images.dtype != torch.uint8:
            return super().apply(images, parameters)
        result = torch.empty_like(images)
        for rows, wet, darkening, side in self._wet(images.to(torch.float32), parameters, 255.0):
            # OpenCV rounds halves up, and 7/16 too where it divides by 16.
            whole = through_hls(wet.add_(0.5625 if side == 4 else 0.5).floor_())
            result[rows] = whole.sub_(255 * darkening).add_(1e-3).clamp_(0, 255).to(torch.uint8)
        return result

    def _wet(
        self, images: Float[Tensor, "B 3 H W"], parameters: Parameters, white: float
    ) -> Iterator[tuple[Int[Tensor, "b"] | slice, Float[Tensor, "b 3 H W"], float, int]]:
        """Rows of one severity, their images with blurred streaks, how much darker they become, side of the blur."""
        height, width = images.shape[-2:]
        for level, rows in by_severity(parameters["severity"], images.device):
            _, length, side, darkening = self.TABLE[level - 1]
            streaks = rain_streaks(parameters["drops"][rows], self.SLANT, length, height, width)
            wet = images[rows].masked_fill(streaks[:, None], self.COLOUR * white)
            yield rows, box_mean(wet, side), darkening, side


def rain_streaks(
    drops: Int[Tensor, "B N 2"], slant: int, length: int, height: int, width: int
) -> Bool[Tensor, "B {height} {width}"]:
    """Pixels on the lines from each (x, y) to (x + slant, y + length), as OpenCV draws them; 0 < slant <= length.

    Ends outside the image are cut back to its border first, the lower one in its row and then both in their columns,
    which bends a line slightly; then Bresenham's line is followed from its left end.
    """
    left, top = drops.unbind(dim=-1)
    too_low = (top + length - (height - 1)).clamp(min=0)
    right, bottom = left + slant - too_low * slant // length, top + length - too_low
    visible = (top >= 0) & (left < width) & (right >= 0)
    outside = (-left).clamp(min=0)
    top, left = top + outside * (bottom - top) // (right - left).clamp(min=1), left + outside
    outside = (right - (width - 1)).clamp(min=0)
    bottom, right = bottom - outside * (bottom - top) // (right - left).clamp(min=1), right - outside

    step = torch.arange(length + 1, device=drops.device)
    tall, wide = (bottom - top)[..., None], (right - left)[..., None]
    # Half a pixel rounds down.
    columns = left[..., None] - (tall - 2 * step * wide) // (2 * tall).clamp(min=1)
    drawn = visible[..., None] & (step <= tall) & (columns >= 0) & (columns < width)
    index = torch.where(drawn, (top[..., None] + step) * width + columns, height * width).flatten(1)
    canvas = torch.zeros(len(drops), height * width + 1, dtype=torch.bool, device=drops.device)
    canvas.scatter_(1, index, True)
    return canvas[:, :-1].reshape(-1, height, width)
