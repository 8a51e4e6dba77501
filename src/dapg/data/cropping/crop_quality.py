"""Shared: is a crop worth keeping? Size, shape, sharpness, and likeness to crops kept before."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from dapg.core.ranges import Count, Factor, Pixels, Range, Weight
from dapg.data.cropping._opencv import opencv

_SHARPNESS_SIZE = (64, 128)
"""(width, height) at which sharpness is measured, so that near and far people compare."""


@dataclass(frozen=True)
class FilterConfig:
    """What a crop must be like."""

    min_height: Pixels = 48
    """Pixels."""
    max_height: Count = 2000
    """Pixels."""
    min_aspect: Factor = 1.4
    """Height over width."""
    max_aspect: Factor = 4.5
    """Height over width."""
    min_sharpness: Weight = 50.0
    """Variance of the Laplacian of the grey crop at 128 x 64, grey levels squared."""
    edge: Annotated[int, Range(-1, 4096)] = 2
    """Boxes so near to the frame's edge (pixels) are cut-off people and left out; -1 keeps them."""
    duplicate_bits: Annotated[int, Range(-1, 64)] = 5
    """A crop whose perceptual hash differs in so few of 64 bits from a kept one is left out; -1 keeps all."""
    duplicate_seconds: Weight = 60.0
    """How far back crops of the same video are compared."""


def reason_to_drop(box: tuple[int, int, int, int], frame: tuple[int, int], config: FilterConfig) -> str:
    """Why a box is not worth a crop, or "".

    Args:
        box: left, top, right, bottom in pixels.
        frame: height and width of the whole frame.
        config: the limits.
    """
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    rows, columns = frame
    if min(left, top, columns - right, rows - bottom) <= config.edge:
        return "at the edge"
    if width < 1 or not config.min_height <= height <= config.max_height:
        return "size"
    return "" if config.min_aspect <= height / width <= config.max_aspect else "shape"


def sharpness(crop: UInt8[np.ndarray, "h w 3"]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) at a fixed size, in grey levels squared."""
    cv2 = opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    shrinks = grey.shape[0] > _SHARPNESS_SIZE[1]
    small = cv2.resize(grey, _SHARPNESS_SIZE, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return float(cv2.Laplacian(small, cv2.CV_64F).var())


def perceptual_hash(crop: UInt8[np.ndarray, "h w 3"]) -> int:
    """64 bits that change little when the image does: signs of its lowest frequencies around their median.

    The cosine transform of the grey image at 32 x 32, its 8 x 8 lowest frequencies (Zauner, Implementation and
    benchmarking of perceptual image hash functions, 2010).
    """
    cv2 = opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])  # the first is the mean brightness, far from the others
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def without_duplicates(hashes: list[int], seconds: list[float], config: FilterConfig) -> list[bool]:
    """For crops of one video in order of time: True where none kept within ``duplicate_seconds`` is nearly the same."""
    earlier: NDArray[np.uint64] = np.zeros(len(hashes), dtype=np.uint64)
    times: NDArray[np.float64] = np.zeros(len(hashes))
    number = oldest = 0
    answers = []
    for code, time in zip(hashes, seconds, strict=True):
        while oldest < number and times[oldest] < time - config.duplicate_seconds:
            oldest += 1
        different = (earlier[oldest:number] ^ np.uint64(code)).view(np.uint8).reshape(-1, 8)
        differing = np.unpackbits(different, axis=1).sum(axis=1)
        fresh = config.duplicate_bits < 0 or not bool((differing <= config.duplicate_bits).any())
        answers.append(fresh)
        if fresh:
            earlier[number], times[number] = code, time
            number += 1
    return answers
