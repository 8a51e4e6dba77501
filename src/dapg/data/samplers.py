"""Shared by all loaders: which images belong to step t. Order is a pure function of seed and step.

A sampler answers ``batch(step)`` with the image numbers of the whole batch, over all processes. So resuming at
step t is a number, not a replay, and two processes see exactly the images that one process would see.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from


@runtime_checkable
class Sampler(Protocol):
    """Global batches by step."""

    batch_size: int
    """Images per optimiser step, over all processes and accumulated parts."""

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps of one pass, which schedules in epochs count by."""
        ...

    def batch(self, step: int) -> list[int]:
        """Numbers of the images of step ``step`` (counted from 0), ``batch_size`` of them."""
        ...


class InfiniteSampler:
    """Every epoch a new random order of all images, cut into whole batches.

    The images that do not fill a batch sit this epoch out (others in the next), so that no image is twice in one
    batch, where it would be its own negative.

    Raises:
        UsageError: fewer images than a batch holds; an image would meet itself as a negative.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < batch_size:
            raise UsageError(
                f"{count} images are too few for a batch of {batch_size}; lower --train.batch_size or give more"
            )
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._orders: dict[int, list[int]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Not rounded: schedules count the images that sit an epoch out."""
        return self.count / self.batch_size

    def batch(self, step: int) -> list[int]:
        """The step's cut of its epoch's order."""
        epoch, place = divmod(step, self.count // self.batch_size)
        first = place * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = torch.randperm(self.count, generator=generator_from("epoch", self.seed, epoch))
            self._orders = {epoch: order.tolist()}
        return self._orders[epoch]


class LocalBatches:
    """The part of each global batch that one process handles, one list per accumulated part, from ``start_step`` on.

    Part a of step t holds positions a·B/A ... of the batch, split over the processes in rank order.
    """

    def __init__(
        self,
        sampler: Sampler,
        start_step: int,
        end_step: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
    ) -> None:
        if sampler.batch_size % (world_size * accumulation):
            raise UsageError(
                f"a batch of {sampler.batch_size} cannot be split evenly over {world_size} processes "
                f"x {accumulation} accumulated parts; change --train.batch_size"
            )
        self.sampler, self.start_step, self.end_step = sampler, start_step, end_step
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation

    @property
    def local_size(self) -> int:
        """Images per process and part."""
        return self.sampler.batch_size // (self.world_size * self.accumulation)

    def first_position(self, part: int) -> int:
        """Position within the step's batch at which this process's slice of a part begins."""
        return part * (self.sampler.batch_size // self.accumulation) + self.rank * self.local_size

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of image numbers, ``accumulation`` of them per step."""
        for step in range(self.start_step, self.end_step):
            batch = self.sampler.batch(step)
            for part in range(self.accumulation):
                first = self.first_position(part)
                yield batch[first : first + self.local_size]

    def __len__(self) -> int:
        """Number of lists."""
        return (self.end_step - self.start_step) * self.accumulation
