"""Shared: the array type that signatures of this folder name, and one seeded generator."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dapg.core.seeds import derive_seed

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
else:
    Array = np.ndarray


def random_from(*parts: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) that depends on names and numbers only, the same on every machine."""
    return np.random.default_rng(derive_seed("synth", *parts))
