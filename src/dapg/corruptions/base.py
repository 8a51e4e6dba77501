"""Contract of a corruption: draw parameters, then apply them to a batch."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.rng import SampleGenerator

Parameters = dict[str, Any]
"""What ``draw`` returns: tensors whose first axis is the sample, with every random choice already made."""


class Corruption(ABC):
    """One damage that happens to pictures, at severities 1 (slight) to 5 (severe).

    ``draw`` makes every random choice and ``apply`` none, so that one draw can be replayed on another device, on
    another picture or later in a chain.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """noise, blur, weather, digital or extra."""

    @abstractmethod
    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """Parameters for pictures of ``shape`` = (B, 3, H, W); severities 1 to 5, one a sample."""

    @abstractmethod
    def apply(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        """The corrupted pictures, in [0, 1] like ``images``."""
