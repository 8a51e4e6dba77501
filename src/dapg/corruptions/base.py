"""Contract of a corruption: draw parameters, then apply them to a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from dapg.core.device import send
from dapg.core.rng import SampleGenerator

Parameters = dict[str, Tensor]
"""What ``draw`` returns: tensors whose first axis is the sample, with every random choice already made."""

CHOICES = frozenset({"severity", "photograph", "corner"})
"""Parameters that decide which operations are run. They stay on the host, so that nobody waits for a GPU to tell."""


class Corruption(ABC):
    """One damage that happens to images, at severities 1 (slight) to 5 (severe).

    ``draw`` makes every random choice and ``apply`` none, so that one draw can be replayed on another device, on
    another image or later in a chain. Severities are in pixels: they are meant for images of about 256 x 128,
    whatever size a network sees afterwards.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """noise, blur, weather, digital or extra."""
    precision: ClassVar[torch.dtype] = torch.float32
    """What uint8 images are computed in; float64 where the reference's last bit decides over whole grey levels."""
    margin: ClassVar[float] = 1e-3
    """Added to 0 ... 255 before truncating: see ``to_bytes``."""
    cpu_batch: ClassVar[int] = 1
    """Images worked on at once on the CPU: one stays in the cache; more where the operations are many and small."""
    cpu_pixels: ClassVar[int] = 2**31
    """Fewer images at once than ``cpu_batch`` where they have more pixels together than this, so that what is made of
    them on the way still fits into the cache."""

    @abstractmethod
    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """Parameters for images of ``shape`` = (B, C, H, W); severities 1 to 5, one a sample, on the host.

        Fields are made on the generator's device, everything else on the host; ``move`` brings both to the images.
        C is 3, or 1 for infrared images in three equal channels: noise is then equal on all of them.
        """

    @abstractmethod
    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        """The corrupted float images; the result may leave [0, 1]. Does not change its input."""

    def apply(self, images: Shaped[Tensor, "B 3 H W"], parameters: Parameters) -> Shaped[Tensor, "B 3 H W"]:
        """The corrupted images: uint8 (truncated, as in the reference) or float in [0, 1], the same out."""
        images = images.contiguous()
        if images.dtype == torch.uint8:
            return to_bytes(self.transform(images.to(self.precision).div_(255), parameters), self.margin)
        corrupted = self.transform(images.to(torch.float32), parameters).clamp(0, 1)
        return corrupted.to(images.dtype)


def to_bytes(images: Float[Tensor, "*B H W"], margin: float = 1e-3) -> UInt8[Tensor, "*B H W"]:
    """[0, 1] to 0 ... 255, clipped and truncated.

    In float32, 100 / 255 * 255 may become 99.99999: by default a thousandth of a level is added, so that a grey level
    that was not touched keeps its number. Where the reference loses such levels itself, ``margin`` is negative.
    """
    return images.mul(255).add_(margin).clamp_(0, 255).to(torch.uint8)


def pick(
    table: Sequence[float | int], severity: Int[Tensor, "B"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B"]:
    """The entry of a severity table of five for each sample, on the host."""
    return torch.tensor(table, dtype=dtype)[severity - 1]


def per_sample(values: Shaped[Tensor, "B"]) -> Shaped[Tensor, "B 1 1 1"]:
    """One value a sample, ready to meet (B, C, H, W)."""
    return values[:, None, None, None]


def by_severity(severity: Int[Tensor, "B"], device: torch.device) -> Iterator[tuple[int, Int[Tensor, "b"] | slice]]:
    """The severities that occur, each with the rows it occurs in on ``device``: a slice where it is all of them."""
    levels = severity.tolist()
    for level in sorted(set(levels)):
        if levels.count(level) == len(levels):
            yield level, slice(None)
        else:
            yield level, send((severity == level).nonzero()[:, 0], device)


def move(parameters: Parameters, device: torch.device) -> Parameters:
    """The same draw for images on another device."""
    return {name: value if name in CHOICES else send(value, device) for name, value in parameters.items()}


def take(parameters: Parameters, rows: slice) -> Parameters:
    """The draw of some samples."""
    return {name: value[rows] for name, value in parameters.items()}
