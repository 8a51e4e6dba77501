"""Where and how fast work is done: nothing here changes a result."""

from dataclasses import dataclass

import torch

from dapg.core.batch import Batch

Cache = dict[tuple[object, ...], list[Batch]]
"""Corrupted test images in memory, by what they depend on; one of 128 x 64 takes 25 kB."""


@dataclass(frozen=True)
class Runtime:
    """What functions that encode images need to know about the machine."""

    device: torch.device = torch.device("cpu")
    """Where networks are built."""
    batch_size: int = 64
    """Images encoded at once."""
    workers: int = 0
    """Loader processes, which also corrupt; 0 reads in this process."""
    progress: bool = False
    """Draw progress bars on a terminal."""
    cache: Cache | None = None
    """At first an empty dictionary; the next model of the same input size finds its corrupted test images there."""
