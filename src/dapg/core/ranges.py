"""Which numbers a setting may hold, said in its type: ``steps: Annotated[int, Range(1, 100)] = 10``."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included; NaN is outside."""

    low: int | float
    high: int | float

    def __contains__(self, number: int | float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        return f"from {low} to {high}"


Count = Annotated[int, Range(1, 10**9)]
CountOrZero = Annotated[int, Range(0, 10**9)]
"""Where zero has a meaning of its own, such as none, or all."""
Pixels = Annotated[int, Range(1, 4096)]
PixelsOrZero = Annotated[int, Range(0, 4096)]
Channels = Annotated[int, Range(1, 65_536)]
"""Width of a layer or length of a feature."""
Layers = Annotated[int, Range(1, 128)]
"""Of layers, blocks or heads."""
Stride = Annotated[int, Range(1, 2)]
GreyBits = Annotated[int, Range(8, 16)]
Percentage = Annotated[float, Range(0, 100)]
Severity = Annotated[int, Range(1, 5)]
JpegQuality = Annotated[int, Range(1, 100)]
Processes = Annotated[int, Range(0, 256)]
Threads = Annotated[int, Range(1, 256)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Share = Annotated[float, Range(0, 1)]
"""A probability, or a part of a whole."""
Weight = Annotated[float, Range(0, 1e6)]
"""Of a term in a sum, or any other number that is not negative."""
Positive = Annotated[float, Range(1e-6, 1e6)]
Factor = Annotated[float, Range(0.01, 100)]
"""A ratio of sides, a width, or another number of about one."""
Decay = Annotated[float, Range(0, 0.999_999)]
"""Share of the old value that a running mean keeps; with all of it, it would never move."""
Offset = Annotated[float, Range(-255, 255)]
Port = Annotated[int, Range(0, 65_535)]
