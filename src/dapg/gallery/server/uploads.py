"""Images of strangers are decoded in processes of their own, which may crash, hang or swell without harm."""

import concurrent.futures
import contextlib
import multiprocessing
import queue
import resource
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dapg.core.errors import BusyError, DataError
from dapg.core.images import encode, from_numpy, looks_infrared, open_rgb, to_pil, upright_size
from dapg.core.rng import SampleGenerator
from dapg.corruptions.library import corrupt

MAX_PIXELS = 50_000_000
_MEMORY = 3 * 2**30
_SECONDS = 30.0
_WORKERS = 4
_TALLEST = 512
_DAMAGED = (128, 256)
"""Columns and rows at which an image is damaged: severities are meant for this size."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Prepared:
    """An image that can be trusted."""

    data: bytes
    """PNG of the box, upright, at most 512 pixels high, damaged if that was asked for."""
    infrared: bool
    """Whether it looks like an infrared one."""


@dataclass(frozen=True)
class Damage:
    """What is done to a query image, to see how its ranks move."""

    name: str
    severity: int
    """1 (slight) to 5."""


class Decoder:
    """Worker processes, each for one image at a time, started when needed and again after each that died or hung.

    Shared by threads. An image that hangs its worker holds up nobody else's as long as there are others.
    """

    def __init__(self, seconds: float = _SECONDS, memory: int = _MEMORY, workers: int = _WORKERS) -> None:
        self._seconds, self._memory = seconds, memory
        self._free: queue.LifoQueue[concurrent.futures.ProcessPoolExecutor | None] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(None)  # not started; the last that was used is on top

    def prepare(self, data: bytes, box: Box | None = None, damage: Damage | None = None) -> Prepared:
        """Decode, cut out the box, damage, and encode as PNG.

        Raises:
            DataError: not an image in an allowed format, damaged, too large, too small to be damaged, or the worker
                died of it.
            BusyError: all workers are held up by other images.
        """
        try:
            worker = self._free.get(timeout=self._seconds)
        except queue.Empty:
            raise BusyError("the server is busy with other images; try again in a minute") from None
        try:
            worker = worker or self._start()
            return worker.submit(_prepare, data, box, damage).result(timeout=self._seconds)
        except BrokenProcessPool:
            _end(worker)
            worker = None
            raise DataError("the image could not be decoded: the decoder died of it") from None
        except concurrent.futures.TimeoutError:
            _end(worker)
            worker = None
            raise DataError(f"the image could not be decoded within {self._seconds:.0f} seconds") from None
        finally:
            self._free.put(worker)

    def _start(self) -> concurrent.futures.ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        worker = concurrent.futures.ProcessPoolExecutor(1, context, _limit, (self._memory,))
        worker.submit(int).result()  # its imports take seconds, which are not the image's
        return worker

    def close(self) -> None:
        """End the workers."""
        with contextlib.suppress(queue.Empty):
            while True:
                _end(self._free.get_nowait())


def _end(worker: concurrent.futures.ProcessPoolExecutor | None) -> None:
    if worker is not None:
        for process in list(getattr(worker, "_processes", {}).values()):
            process.kill()
        worker.shutdown(wait=False, cancel_futures=True)


def _limit(memory: int) -> None:
    """In the worker: no more memory than this beyond what torch maps, and no core dump of a stranger's image."""
    torch.set_num_threads(1)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prepare(data: bytes, box: Box | None, damage: Damage | None) -> Prepared:
    height, width = upright_size(data, None, "query")
    if height * width > MAX_PIXELS:
        raise DataError(f"the image has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are taken")
    picture = open_rgb(data, "query")
    if box is not None:
        left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
        if left >= right or top >= bottom:
            raise DataError(f"box {box} has no area inside an image of {width} x {height}")
        picture = picture.crop((left, top, right, bottom))
    scale = min(1.0, _TALLEST / picture.height, _TALLEST / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(_DAMAGED if damage else size, Image.Resampling.BILINEAR)
    image = from_numpy(np.asarray(picture))
    infrared = looks_infrared(image)
    if damage:
        streams = SampleGenerator(torch.tensor([0]))
        image = corrupt(image[None], damage.name, damage.severity, streams, equal_channels=infrared)[0]
    return Prepared(encode(to_pil(image), "PNG", compress_level=1), infrared)
