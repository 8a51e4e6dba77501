"""Settings of pictures that have a size, which follows the scale of an experiment."""

from dataclasses import dataclass, replace

from dapg.core.ranges import Pixels
from dapg.core.scales import Scale, Scaled, Self


@dataclass(frozen=True)
class ViewSize(Scaled):
    """Size of what the network sees."""

    height: Pixels = 256
    """Rows the network sees."""
    width: Pixels = 128
    """Columns the network sees."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def at(self, scale: Scale) -> Self:
        """The size of the scale's networks."""
        return self.resized(scale.size or self.size)

    def resized(self, size: tuple[int, int]) -> Self:
        """The same at another (height, width)."""
        return replace(self, height=size[0], width=size[1])
