"""Blur: defocus, frosted glass, motion and zoom of ImageNet-C.

Constants and borders: bethgelab/imagecorruptions, which works at any size; hendrycks/robustness differs in motion
blur (ImageMagick's) and in how zoomed layers are trimmed.
"""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.rng import SampleGenerator
from dapg.corruptions._filters import correlate, correlate_axis, gaussian, shifted_sum, sum_of_zooms
from dapg.corruptions.base import Corruption, Parameters, by_severity, pick, to_bytes


class DefocusBlur(Corruption):
    """The image through a lens out of focus: correlation with a disk whose edge is slightly smoothed."""

    name = "defocus_blur"
    family = "blur"
    # The reference's float32 disk sums to slightly less than 1: an even area loses one level when truncated.
    margin = -1e-3
    RADIUS_SMOOTHING = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            result[rows] = correlate(images[rows], disk(*self.RADIUS_SMOOTHING[level - 1]), "mirror")
        return result


@functools.lru_cache(maxsize=16)
def disk(radius: int, smoothing: float) -> tuple[tuple[float, ...], ...]:
    """Indicator of x² + y² <= r² that sums to 1, smoothed by a Gaussian of 3 x 3 (r <= 8) or 5 x 5 taps."""
    reach = 8 if radius <= 8 else radius
    taps = 3 if radius <= 8 else 5
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).to(torch.float64)
    inside /= inside.sum()
    offset = torch.arange(taps, dtype=torch.float64) - taps // 2
    weights = (-0.5 * (offset / smoothing) ** 2).exp()
    kernel = tuple((weights / weights.sum()).tolist())
    smooth = correlate_axis(correlate_axis(inside.float(), kernel, -2, "mirror"), kernel, -1, "mirror")
    return tuple(tuple(row) for row in smooth.tolist())


class GlassBlur(Corruption):
    """Behind frosted glass: blur, displace pixels locally one after the other, blur again.

    The reference means to swap a pixel with a displaced one, but its arrays are views: it copies. It walks from the
    bottom right to the top left, so a copied pixel may be a copy already. Published numbers contain exactly that; here
    the chain of copies of each pixel is followed by pointer doubling instead of walking.
    """

    name = "glass_blur"
    family = "blur"
    margin = 0.0
    SIGMA_REACH_ROUNDS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``displacement`` (B, rounds, 2, H, W) int8 holds columns, then rows, uniform in [-reach, reach)."""
        height, width = shape[-2:]
        displacement = torch.zeros(len(severity), 3, 2, height, width, dtype=torch.int8, device=generator.device)
        for level, rows in by_severity(severity, generator.device):
            _, reach, rounds = self.SIGMA_REACH_ROUNDS[level - 1]
            streams = generator.rows(severity == level)
            bits = streams.fork("glass").field(rounds, height, width)
            # Each number's two halves are columns and rows; 0 ... 65535 becomes -reach ... reach - 1.
            halves = bits.view(torch.int16).to(torch.float32).add_(32768).mul_(2 * reach / 65536)
            moves = halves.to(torch.int8).sub_(reach).reshape(len(bits), rounds, height, width, 2)
            displacement[rows, :rounds] = moves.permute(0, 1, 4, 2, 3)
        return {"severity": severity, "displacement": displacement}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            sigma, reach, rounds = self.SIGMA_REACH_ROUNDS[level - 1]
            blurred = to_bytes(gaussian(images[rows], sigma), self.margin)
            source = _glass_sources(parameters["displacement"][rows, :rounds], reach)
            planes = blurred.flatten(2)
            if images.device.type == "cpu" and len(planes) == 1:
                shuffled = torch.stack([plane.index_select(0, source[0]) for plane in planes[0]])[None]
            else:
                shuffled = planes.gather(2, source[:, None].expand(-1, 3, -1).long())
            shuffled = shuffled.reshape(blurred.shape).to(torch.float32).mul_(1 / 255)
            result[rows] = gaussian(shuffled, sigma)
        return result


def _glass_sources(displacement: Int[Tensor, "B R 2 H W"], reach: int) -> Int[Tensor, "B N"]:
    """For every pixel the index (row * W + column) of the pixel whose value it has after all rounds of copying."""
    count, rounds, _, height, width = displacement.shape
    # All images share one numbering, so that following pointers is a plain look-up.
    number = torch.int32 if count * height * width < 2**31 else torch.int64
    index = torch.arange(count * height * width, device=displacement.device, dtype=number)
    walked = (slice(None), slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    total: Tensor | None = None
    for turn in range(rounds):
        step = torch.zeros(count, height, width, device=displacement.device, dtype=number)
        step[walked] = displacement[:, turn, 1][walked]
        step[walked] *= width
        step[walked] += displacement[:, turn, 0][walked]
        source = step.flatten().add_(index)
        # A pixel with a higher index was walked before: what is copied from it is what it copied itself. One that is
        # never walked is its own source, so the chain may end there just as well.
        pointer = torch.maximum(source, index)
        for _ in range((height * width).bit_length()):  # after so many doublings the longest chain is followed
            farther = pointer.index_select(0, pointer)
            if pointer.device.type == "cpu" and torch.equal(farther, pointer):  # on a GPU the answer would cost more
                break
            pointer = farther
        copied = source.index_select(0, pointer)
        total = copied if total is None else total.index_select(0, copied)
    assert total is not None
    start = torch.arange(count, device=displacement.device, dtype=number)[:, None] * (height * width)
    return total.reshape(count, -1) - start


class MotionBlur(Corruption):
    """The camera moves: a one-sided Gaussian trail at an angle of -45° to 45°."""

    name = "motion_blur"
    family = "blur"
    RADIUS_SIGMA = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        angle = generator.uniform(low=-45.0, high=45.0)
        radius = pick([r for r, _ in self.RADIUS_SIGMA], severity)
        sigma = pick([s for _, s in self.RADIUS_SIGMA], severity)
        return motion_trail(angle, radius, sigma, shape[-2], shape[-1])

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        return shifted_sum(images, parameters["offsets"], parameters["weights"])


def motion_trail(
    angle: Float[Tensor, "B"], radius: Float[Tensor, "B"], sigma: Float[Tensor, "B"], height: int, width: int
) -> dict[str, Tensor]:
    """``angle`` in degrees, ``offsets`` (B, 41, 2) in rows and columns and ``weights`` (B, 41) of a trail.

    2 r + 1 steps of one pixel with weights exp(-k² / (2 σ²)), normalised. Steps that leave an image of (height, width)
    are dropped without normalising again, as in the reference: small images become darker.
    """
    steps = torch.arange(41, device=angle.device, dtype=torch.float64)
    weights = (-0.5 * (steps / sigma[:, None].double()) ** 2).exp() * (steps <= 2 * radius[:, None])
    weights = weights / weights.sum(dim=1, keepdim=True)
    radians = angle[:, None].double() * (math.pi / 180)
    down = (steps * radians.sin() - 0.5).ceil().long()
    right = (steps * radians.cos() - 0.5).ceil().long()
    outside = (down.abs() >= height) | (right.abs() >= width)
    weights = weights * (outside.cumsum(dim=1) == 0)
    offsets = torch.stack([down, right], dim=2)
    return {"angle": angle, "offsets": offsets, "weights": weights.to(torch.float32)}


class ZoomBlur(Corruption):
    """The camera zooms: the mean of the image and its centre enlarged by growing factors.

    The factors begin at 1, so the sharp image counts twice.
    """

    name = "zoom_blur"
    family = "blur"
    # 12 factors at severity 1: the reference's floating-point range includes its end.
    FACTORS = (
        tuple(1.0 + 0.01 * k for k in range(12)),
        tuple(1.0 + 0.01 * k for k in range(16)),
        tuple(1 + 0.02 * k for k in range(11)),
        tuple(1 + 0.02 * k for k in range(13)),
        tuple(1 + 0.03 * k for k in range(11)),
    )

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            factors = self.FACTORS[level - 1]
            chosen = images[rows]
            result[rows] = sum_of_zooms(chosen, factors[1:]).add_(chosen, alpha=2).div_(len(factors) + 1)
        return result
