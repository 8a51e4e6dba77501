"""Randomness as an argument: one independent stream per sample of a batch.

``SampleGenerator`` draws for a batch such that sample *i* of step *t* gets the same numbers whatever the batch size,
process count or device. What decides what is done (crop boxes, types, severities) is drawn on the host, which so never
waits for a GPU to answer; noise of the size of an image is drawn where the images are.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.device import send
from dapg.core.seeds import derive_seed

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as signed: the increment of SplitMix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_GOLDEN_32 = -1640531527  # 0x9E3779B9
_MIX_32_1 = 2146121005  # 0x7FEB352D, with the next the "lowbias32" multipliers of Wellons (public domain)
_MIX_32_2 = -2073254261  # 0x846CA68B
_HOST = torch.device("cpu")
_FIELD_CHUNK = 1 << 17
"""Elements of a random field made at a time on the CPU, so that the intermediate steps stay in the cache."""


def generator_from(*parts: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by ``derive_seed(*parts)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def _signed(value: int) -> int:
    """A whole number modulo 2^64 as a signed 64-bit one."""
    return (value + 2**63) % 2**64 - 2**63


def _shift_right(values: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical (unsigned) right shift; torch's own is arithmetic."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) on int64, whose products wrap modulo 2^64 on CPU and GPU."""
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def _hash_32(
    counters: Int[Tensor, "N"],
    first: Int[Tensor, "b 1"],
    second: Int[Tensor, "b 1"],
    output: Int[Tensor, "b N"],
    shifted: Int[Tensor, "b N"],
) -> None:
    """Two rounds of multiply and xor-shift on int32, half a key before each, into ``output``; ``shifted`` scratch."""
    torch.bitwise_xor(counters, first, out=output)
    torch.bitwise_right_shift(output, 16, out=shifted).bitwise_and_(0xFFFF)
    output.bitwise_xor_(shifted).mul_(_MIX_32_1)
    torch.bitwise_right_shift(output, 15, out=shifted).bitwise_and_(0x1FFFF)
    output.bitwise_xor_(shifted).add_(second).mul_(_MIX_32_2)
    torch.bitwise_right_shift(output, 16, out=shifted).bitwise_and_(0xFFFF)
    output.bitwise_xor_(shifted)


class SampleGenerator:
    """B independent random streams, one a sample; each draw is batched and has B rows.

    Row *i* of any draw depends only on seed *i* and on how many draws were made before: batch composition, batch
    size, order and device do not matter. ``fork`` gives a part of the program a stream of its own, so that an extra
    draw there leaves all other draws as they were. Draws are on the host, only fields (``field``, ``uniform_field``,
    ``normal_field``) on ``device``; ``core/device.py: send`` takes a draw there.

    Example:
        >>> generator = SampleGenerator(torch.tensor([3, 4]))
        >>> bool((SampleGenerator(torch.tensor([4])).uniform(2) == generator.uniform(2)[1:]).all())
        True
    """

    def __init__(self, seeds: Int[Tensor, "B"], device: torch.device = _HOST) -> None:
        """``seeds`` are on the host; ``device`` is where fields are made."""
        self.seeds = seeds.to(torch.int64)
        self.device = device
        self._draws = 0

    @classmethod
    def for_step(
        cls, seed: int, step: int, indices: Int[Tensor, "B"], device: torch.device = _HOST
    ) -> "SampleGenerator":
        """Streams of the samples with global ``indices`` (on the host) of optimiser step ``step``."""
        base = derive_seed("step", seed, step)
        return cls(_mix(indices.to(torch.int64) * _GOLDEN + base), device)

    def __len__(self) -> int:
        """B, the number of streams."""
        return len(self.seeds)

    def fork(self, *names: str) -> "SampleGenerator":
        """New streams that depend on these seeds and ``name`` only, not on draws made so far; each name's in turn."""
        seeds = [_mix(self.seeds + derive_seed("fork", name)) for name in names]
        return SampleGenerator(seeds[0] if len(seeds) == 1 else torch.cat(seeds), self.device)

    def rows(self, rows: Int[Tensor, "b"] | Bool[Tensor, "B"] | slice) -> "SampleGenerator":
        """The streams of some samples, with as many draws behind them."""
        chosen = SampleGenerator(self.seeds[rows], self.device)
        chosen._draws = self._draws
        return chosen

    def bits(self, *size: int) -> Int[Tensor, "B ..."]:
        """Uniform int64 of shape ``(B, *size)``, all 64 bits random."""
        count = math.prod(size)
        self._draws += 1
        keys = _mix(self.seeds + _signed(self._draws * _GOLDEN))
        counters = torch.arange(1, count + 1, dtype=torch.int64) * _GOLDEN
        return _mix(keys[:, None] + counters).reshape(len(self), *size)

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "B ..."]:
        """Uniform float32 in [low, high) of shape ``(B, *size)``."""
        unit = _shift_right(self.bits(*size), 40).to(torch.float32) * 2.0**-24
        values = low + (high - low) * unit
        if low < high and (low, high) != (0.0, 1.0):  # the sum is rounded, at times up to ``high`` itself
            values = values.clamp_(max=float(np.nextafter(np.float32(high), np.float32(low))))
        return values

    def normal(self, *size: int) -> Float[Tensor, "B ..."]:
        """Standard normal float32 of shape ``(B, *size)``, by Box and Muller."""
        bits = self.bits(*size)
        radius = (_shift_right(bits, 32).to(torch.float64) + 0.5) * 2.0**-32  # in (0, 1): the logarithm is finite
        angle = (bits & 0xFFFFFFFF).to(torch.float64) * 2.0**-32
        return ((-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()).to(torch.float32)

    def field(self, *size: int) -> Int[Tensor, "B ..."]:
        """Uniform int32 of shape ``(B, *size)``, all 32 bits random: for noise of the size of an image.

        A counter is hashed with 64 bits of key in 32-bit arithmetic, many times faster than ``bits``. The same
        numbers on every device.
        """
        output = torch.empty(len(self), math.prod(size), device=self.device, dtype=torch.int32)
        for rows, bits in self._field_chunks(math.prod(size)):
            output[rows] = bits
        return output.reshape(len(self), *size)

    def uniform_field(self, *size: int) -> Float[Tensor, "B ..."]:
        """Uniform float32 in [0, 1) of shape ``(B, *size)``, in steps of 2^-24; ``uniform`` made fast for images."""
        output = torch.empty(len(self), math.prod(size), device=self.device)
        for rows, bits in self._field_chunks(math.prod(size)):
            torch.mul(bits.bitwise_and_(0xFFFFFF), 2.0**-24, out=output[rows])
        return output.reshape(len(self), *size)

    def normal_field(self, *size: int) -> Float[Tensor, "B ..."]:
        """Standard normal float32 of shape ``(B, *size)``, as ``normal``, but fast for images; no value above 5.9."""
        count = math.prod(size)
        half = (count + 1) // 2
        output = torch.empty(len(self), 2 * half, device=self.device)
        for rows, bits in self._field_chunks(2 * half):
            unit = bits.bitwise_and_(0xFFFFFF).to(torch.float32)
            radius = unit[:, :half].add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
            angle = unit[:, half:].mul_(2 * math.pi * 2.0**-24)
            torch.cos(angle, out=output[rows, :half]).mul_(radius)
            torch.sin(angle, out=output[rows, half:]).mul_(radius)
        return output[:, :count].reshape(len(self), *size)

    def _field_chunks(self, count: int) -> Iterator[tuple[slice, Int[Tensor, "b {count}"]]]:
        """Random int32 rows, on the CPU few at a time (one buffer that stays in the cache), all of them on a GPU."""
        self._draws += 1
        keys = _mix(self.seeds + _signed(self._draws * _GOLDEN))
        halves = send(torch.stack([keys, _shift_right(keys, 32)]).to(torch.int32), self.device)
        first, second = halves[:, :, None]
        counters = torch.arange(1, count + 1, device=self.device, dtype=torch.int32) * _GOLDEN_32
        step = max(1, _FIELD_CHUNK // max(count, 1)) if self.device.type == "cpu" else max(len(self), 1)
        buffer = torch.empty(min(step, len(self)), count, device=self.device, dtype=torch.int32)
        shifted = torch.empty_like(buffer)
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            bits = buffer[: rows.stop - start]
            _hash_32(counters, first[rows], second[rows], bits, shifted[: rows.stop - start])
            yield rows, bits

    def integers(self, high: int, *size: int, low: int = 0) -> Int[Tensor, "B ..."]:
        """Uniform int64 in [low, high) of shape ``(B, *size)``; spans up to 2^31."""
        return low + (_shift_right(self.bits(*size), 32) * (high - low) >> 32)

    def bernoulli(self, probability: float, *size: int) -> Bool[Tensor, "B ..."]:
        """True with the given probability; shape ``(B, *size)``."""
        return self.uniform(*size) < probability

    def permutation(self, n: int) -> Int[Tensor, "B {n}"]:
        """One random order of 0 ... n-1 a sample; the first k columns are k draws without replacement."""
        return self.bits(n).argsort(dim=1, stable=True)

    def exponential(self, *size: int) -> Float[Tensor, "B ..."]:
        """Exponential draws of rate 1; normalised over an axis they are Dirichlet(1, ..., 1)."""
        return -torch.log1p(-self.uniform(*size))
