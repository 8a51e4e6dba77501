"""Which packed images belong to step t, so that a disk reads tar by tar and batches stay mixed."""

import bisect
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from


class ShardSampler:
    """Whole batches of every epoch's order: tars in random order, a few at a time, random order within those few.

    The images that do not fill a batch sit this epoch out, so that no image is twice in one batch, where it would be
    its own negative.

    Reading stays close together on the disk while batches stay mixed. Like every sampler of ours ``batch`` is a pure
    function of seed and step, and ``LocalBatches`` splits a batch over processes.
    """

    def __init__(self, shard_numbers: Sequence[int], batch_size: int, seed: int, window: int = 4) -> None:
        """Group records by tar.

        Args:
            shard_numbers: tar of each record.
            batch_size: records per step, over all processes.
            seed: of all orders.
            window: tars that are mixed at a time.

        Raises:
            UsageError: fewer records than a batch holds.
        """
        if len(shard_numbers) < batch_size:
            raise UsageError(f"{len(shard_numbers)} images are too few for a batch of {batch_size}")
        self.batch_size, self.seed, self.window = batch_size, seed, window
        numbers = np.asarray(shard_numbers)
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        self._groups: list[NDArray[np.int64]] = np.split(order, cuts)
        self.count = len(numbers)
        self._windows: dict[tuple[int, int], list[int]] = {}
        self._epochs: dict[int, tuple[list[list[int]], list[int]]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Not rounded: schedules count the images that sit an epoch out."""
        return self.count / self.batch_size

    def batch(self, step: int) -> list[int]:
        """Numbers of the records of step ``step``."""
        epoch, number = divmod(step, self.count // self.batch_size)
        first = number * self.batch_size
        return [self._at(epoch, place) for place in range(first, first + self.batch_size)]

    def _at(self, epoch: int, place: int) -> int:
        windows, ends = self._epoch(epoch)
        number = bisect.bisect_right(ends, place)
        start = ends[number - 1] if number else 0
        return self._window(epoch, number, windows[number])[place - start]

    def _epoch(self, epoch: int) -> tuple[list[list[int]], list[int]]:
        """The epoch's windows (lists of tars) and where each ends."""
        if epoch not in self._epochs:
            order = torch.randperm(len(self._groups), generator=generator_from("shards", self.seed, epoch)).tolist()
            windows = [order[start : start + self.window] for start in range(0, len(order), self.window)]
            sizes = (sum(len(self._groups[group]) for group in window) for window in windows)
            self._epochs = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs[epoch] = windows, list(itertools.accumulate(sizes))
        return self._epochs[epoch]

    def _window(self, epoch: int, number: int, groups: list[int]) -> list[int]:
        key = epoch, number
        if key not in self._windows:
            records = np.concatenate([self._groups[group] for group in groups])
            order = torch.randperm(len(records), generator=generator_from("window", self.seed, epoch, number))
            if len(self._windows) > 1:  # a batch spans two windows at most, save tiny ones
                self._windows.clear()
            self._windows[key] = records[order.numpy()].tolist()
        return self._windows[key]
