"""Noise of the sensor: Gaussian, shot (Poisson) and impulse noise of ImageNet-C.

Constants: Hendrycks and Dietterich 2019, hendrycks/robustness and bethgelab/imagecorruptions (equal in both).
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.device import send
from dapg.core.rng import SampleGenerator
from dapg.corruptions.base import Corruption, Parameters, by_severity, per_sample, pick


class GaussianNoise(Corruption):
    """x + N(0, σ²) for every element."""

    name = "gaussian_noise"
    family = "noise"
    DEVIATION = (0.08, 0.12, 0.18, 0.26, 0.38)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"deviation": pick(self.DEVIATION, severity), "noise": generator.normal_field(*shape[1:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        return torch.addcmul(images, parameters["noise"], per_sample(parameters["deviation"]))


class ShotNoise(Corruption):
    """Poisson(x λ) / λ: light counted in few photons.

    The count is the inverse distribution function at a uniform number, read from a table over the 256 grey levels;
    what lies between two levels is added back, so that float images keep their mean.
    """

    name = "shot_noise"
    family = "noise"
    PHOTONS = (60, 25, 12, 5, 3)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"severity": severity, "uniform": generator.uniform_field(*shape[1:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            photons = self.PHOTONS[level - 1]
            clean = images[rows]
            grey = clean.mul(255).round_().clamp_(0, 255)
            counts = _poisson_counts(grey.to(torch.int32), parameters["uniform"][rows].expand_as(clean), photons)
            result[rows] = counts.mul_(1 / photons).add_(clean).sub_(grey.mul_(1 / 255))
        return result


_GUIDE = 2048
"""Cells of [0, 1) in the guide table: where counts begin to be searched."""


@functools.lru_cache(maxsize=32)
def _poisson_tables(photons: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Guide (256 * cells) -> first candidate, distribution function (256 * counts) and number of counts."""
    largest = int(photons + 12 * photons**0.5 + 16)
    mean = torch.arange(256, dtype=torch.float64)[:, None] * photons / 255
    count = torch.arange(largest, dtype=torch.float64)
    logs = torch.xlogy(count, mean) - mean - torch.lgamma(count + 1)
    cumulative = logs.exp().cumsum(dim=1)
    cumulative[:, -1] = 1.0
    edges = torch.arange(_GUIDE, dtype=torch.float64) / _GUIDE
    guide = torch.searchsorted(cumulative, edges.expand(256, -1).contiguous(), right=True)
    return (
        send(guide.to(torch.uint8).flatten(), device),
        send(cumulative.to(torch.float32).flatten(), device),
        largest,
    )


def _poisson_counts(
    grey: Int[Tensor, "B C H W"], uniform: Float[Tensor, "B C H W"], photons: int
) -> Float[Tensor, "B C H W"]:
    """The smallest count whose distribution function exceeds ``uniform``, for a mean of grey / 255 photons."""
    guide, cumulative, largest = _poisson_tables(photons, grey.device)
    levels = grey.flatten()
    numbers = uniform.flatten()
    cell = numbers.mul(_GUIDE).to(torch.int32).add_(levels, alpha=_GUIDE)
    counts = guide.index_select(0, cell).to(torch.int32)
    base = levels * largest
    if grey.device.type != "cpu":
        return _searched(counts, base, numbers, cumulative, largest).to(torch.float32).reshape(grey.shape)
    behind = numbers >= cumulative.index_select(0, base + counts)
    counts += behind
    # One step settles most numbers; in the tails a cell of the guide spans several counts.
    open_ = behind.nonzero()[:, 0]
    open_ = open_[numbers[open_] >= cumulative[base[open_] + counts[open_]]]
    if len(open_) > 0:
        rows = cumulative.reshape(256, largest)[levels[open_]]
        counts[open_] = (rows <= numbers[open_, None]).sum(dim=1, dtype=torch.int32).clamp_(max=largest - 1)
    return counts.to(torch.float32).reshape(grey.shape)


def _searched(
    first: Int[Tensor, "N"],
    base: Int[Tensor, "N"],
    numbers: Float[Tensor, "N"],
    cumulative: Float[Tensor, "T"],
    largest: int,
) -> Int[Tensor, "N"]:
    """The counts by bisection between the guide's and the largest: always as many steps, whatever the numbers are."""
    low, high = first, torch.full_like(first, largest - 1)
    for _ in range(largest.bit_length()):
        middle = (low + high) // 2
        beyond = numbers >= cumulative.index_select(0, base + middle)
        low, high = torch.where(beyond, middle + 1, low).minimum(high), torch.where(beyond, high, middle)
    return low


class ImpulseNoise(Corruption):
    """A share of all elements becomes 0 or 1, half of it each, channels independently (salt and pepper)."""

    name = "impulse_noise"
    family = "noise"
    AMOUNT = (0.03, 0.06, 0.09, 0.17, 0.27)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"amount": pick(self.AMOUNT, severity), "uniform": generator.uniform_field(*shape[1:])}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        amount, uniform = per_sample(parameters["amount"]), parameters["uniform"]
        # Comparisons as clipped ramps: branches on random numbers would take several times as long.
        untouched = (uniform - amount).mul_(_STEEP).add_(1).clamp_(0, 1)
        salt = (uniform - amount / 2).mul_(_STEEP).add_(1).clamp_(0, 1)
        return torch.lerp(salt.expand_as(images), images, untouched)


_STEEP = 1e9
"""More than 2^24: one step of a uniform number goes through the whole ramp from 0 to 1."""
