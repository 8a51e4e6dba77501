"""Slow NumPy versions of the random corruptions, one (H, W, 3) uint8 image at a time, written from the description.

Each takes the image, the severity and the random choices, and returns float 0 ... 255 before truncation. None of
them shares code or constants with the library.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage, stats


def gaussian_noise(x: np.ndarray, severity: int, noise: np.ndarray) -> np.ndarray:
    sigma = {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}[severity]
    return 255 * (x / 255 + sigma * noise)


def speckle_noise(x: np.ndarray, severity: int, noise: np.ndarray) -> np.ndarray:
    sigma = {1: 0.15, 2: 0.2, 3: 0.35, 4: 0.45, 5: 0.6}[severity]
    return 255 * (x / 255 + sigma * noise * x / 255)


def shot_noise(x: np.ndarray, severity: int, uniform: np.ndarray) -> np.ndarray:
    photons = {1: 60, 2: 25, 3: 12, 4: 5, 5: 3}[severity]
    # ppf is the smallest count whose distribution function reaches u; u itself almost never equals one of its values.
    return 255 * stats.poisson.ppf(uniform, np.maximum(x / 255 * photons, 1e-12)) / photons


def impulse_noise(x: np.ndarray, severity: int, uniform: np.ndarray) -> np.ndarray:
    amount = {1: 0.03, 2: 0.06, 3: 0.09, 4: 0.17, 5: 0.27}[severity]
    out = x.astype(float)
    out[uniform < amount] = 255
    out[uniform < amount / 2] = 0
    return out


def glass_blur(x: np.ndarray, severity: int, displacement: np.ndarray) -> np.ndarray:
    sigma, reach, rounds = {1: (0.7, 1, 2), 2: (0.9, 2, 1), 3: (1, 2, 3), 4: (1.1, 3, 2), 5: (1.5, 4, 2)}[severity]
    blurred = ndimage.gaussian_filter(x / 255, (sigma, sigma, 0), mode="nearest")
    pixels = np.floor(blurred * 255 + 1e-3)
    height, width = x.shape[:2]
    for turn in range(rounds):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = displacement[turn, :, h, w]
                assert -reach <= dx < reach
                assert -reach <= dy < reach
                pixels[h, w] = pixels[h + dy, w + dx]
    return 255 * ndimage.gaussian_filter(pixels / 255, (sigma, sigma, 0), mode="nearest")


def moved(layer: np.ndarray, down: int, right: int) -> np.ndarray:
    """layer read ``down`` rows and ``right`` columns away, edges repeated."""
    rows = np.clip(np.arange(layer.shape[0]) + down, 0, layer.shape[0] - 1)
    columns = np.clip(np.arange(layer.shape[1]) + right, 0, layer.shape[1] - 1)
    return layer[rows][:, columns]


def trail(layer: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    out = np.zeros_like(layer, dtype=float)
    for k in steps:
        dy = -math.ceil(k * math.sin(math.radians(angle)) - 0.5)
        dx = -math.ceil(k * math.cos(math.radians(angle)) - 0.5)
        if abs(dy) >= layer.shape[0] or abs(dx) >= layer.shape[1]:
            break
        out += weights[k] * moved(layer, -dy, -dx)
    return out


def motion_blur(x: np.ndarray, severity: int, angle: float) -> np.ndarray:
    radius, sigma = {1: (10, 3), 2: (15, 5), 3: (15, 8), 4: (15, 12), 5: (20, 15)}[severity]
    return trail(x.astype(float), radius, sigma, angle)


def zoomed(layer: np.ndarray, factor: float) -> np.ndarray:
    height, width = layer.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    return ndimage.zoom(layer[top : top + rows, left : left + columns], factor, order=1)


def luma(x: np.ndarray) -> np.ndarray:
    return 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]


def snow(x: np.ndarray, severity: int, noise: np.ndarray, angle: float) -> np.ndarray:
    mean, sd, zoom, threshold, radius, sigma, blend = {
        1: (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        2: (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        3: (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        4: (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        5: (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    }[severity]
    x = x / 255
    height, width = x.shape[:2]
    layer = zoomed(mean + sd * noise, zoom)
    layer[layer < threshold] = 0
    layer = np.round(trail(np.clip(layer, 0, 1), radius, sigma, angle) * 255) / 255
    layer = layer[:height, :width]
    x = blend * x + (1 - blend) * np.maximum(x, 1.5 * luma(x)[..., None] + 0.5)
    return 255 * (x + layer[..., None] + np.rot90(layer, 2)[..., None])


def frost(x: np.ndarray, severity: int, photograph: np.ndarray, top: int, left: int) -> np.ndarray:
    """``photograph``: the enlarged image."""
    a, b = {1: (1, 0.4), 2: (0.8, 0.6), 3: (0.7, 0.7), 4: (0.65, 0.7), 5: (0.6, 0.75)}[severity]
    return a * x + b * photograph[top : top + x.shape[0], left : left + x.shape[1]]


def plasma(uniform: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square point by point on a torus; ``uniform`` in [0, 1) at the point it is used for."""
    side = len(uniform)
    values = np.zeros((side, side))
    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2
        for y in range(half, side, step):
            for x in range(half, side, step):
                corners = sum(values[(y + a) % side, (x + b) % side] for a in (-half, half) for b in (-half, half))
                values[y, x] = corners / 4 + wobble * wobble * (2 * uniform[y, x] - 1)
        for y in range(0, side, half):
            for x in range(0, side, half):
                if (y // half + x // half) % 2 == 1:
                    cross = sum(
                        values[(y + a) % side, (x + b) % side]
                        for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
                    )
                    values[y, x] = cross / 4 + wobble * wobble * (2 * uniform[y, x] - 1)
        step, wobble = half, wobble / decay
    values -= values.min()
    return values / values.max()


def fog(x: np.ndarray, severity: int, uniform: np.ndarray) -> np.ndarray:
    strength, decay = {1: (1.5, 2), 2: (2, 2), 3: (2.5, 1.7), 4: (2.5, 1.5), 5: (3, 1.4)}[severity]
    x = x / 255
    clouds = plasma(uniform, decay)[: x.shape[0], : x.shape[1], None]
    return 255 * (x + strength * clouds) * x.max() / (x.max() + strength)


def elastic_transform(x: np.ndarray, severity: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``columns`` and ``rows`` in [0, 1)."""
    height, width = x.shape[:2]
    alpha = 250 * {1: 0.05, 2: 0.065, 3: 0.085, 4: 0.1, 5: 0.12}[severity]
    most = 0.005 * height

    def smooth(unit: np.ndarray) -> np.ndarray:
        field = most * (2 * unit - 1)
        return alpha * ndimage.gaussian_filter(field, (0.01 * height, 0.01 * width), mode="reflect", truncate=3)

    y, z = np.mgrid[:height, :width].astype(float)
    places = [y + smooth(rows), z + smooth(columns)]
    return np.stack(
        [ndimage.map_coordinates(x[..., c].astype(float), places, order=1, mode="reflect") for c in range(3)], axis=-1
    )


def spatter(
    x: np.ndarray,
    severity: int,
    noise: np.ndarray,
    canny: Callable[[np.ndarray], np.ndarray],
    distance: Callable[[np.ndarray], np.ndarray],
    box: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Canny's edges, the chamfer distance and the 8-bit box mean are handed in, from OpenCV."""
    mean, sd, blur, threshold, strength, mud = {
        1: (0.65, 0.3, 4, 0.69, 0.6, 0),
        2: (0.65, 0.3, 3, 0.68, 0.6, 0),
        3: (0.65, 0.3, 2, 0.68, 0.5, 0),
        4: (0.65, 0.3, 1, 0.65, 1.5, 1),
        5: (0.67, 0.4, 1, 0.65, 1.5, 1),
    }[severity]
    x = x / 255
    liquid = ndimage.gaussian_filter(mean + sd * noise, blur, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        mask = ndimage.gaussian_filter((liquid > threshold).astype(float), strength, mode="nearest")
        mask[mask < 0.8] = 0
        return 255 * (x * (1 - mask[..., None]) + mask[..., None] * np.array([63, 42, 20]) / 255)
    layer = (liquid * 255).astype(np.uint8)
    far = np.minimum(distance(255 - canny(layer)), 20)
    far = ndimage.uniform_filter(far, 3, mode="mirror").astype(np.uint8)
    histogram = np.bincount(far.ravel(), minlength=256)
    first = np.flatnonzero(histogram)[0]
    scale = 255 / (far.size - histogram[first])
    far = np.round((np.cumsum(histogram) - histogram[first]) * scale)[far]
    far = np.clip(ndimage.correlate(far, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror"), 0, 255)
    shine = layer * box(far.astype(np.uint8)).astype(float)
    shine = strength * shine / shine.max()
    return 255 * (x + shine[..., None] * np.array([175, 238, 238]) / 255)


def rain(
    x: np.ndarray,
    severity: int,
    drops: Sequence[tuple[int, int]],
    line: Callable[[np.ndarray, tuple[int, int], tuple[int, int]], object],
    box: Callable[[np.ndarray, int], np.ndarray],
    hls: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Drops fall 10 pixels to the right. Lines, 8-bit box mean and the way through HLS are handed in, from OpenCV."""
    length = {1: 10, 2: 30, 3: 30, 4: 60, 5: 60}[severity]
    wet = x.copy()
    for left, top in drops:
        line(wet, (left, top), (left + 10, top + length))
    return hls(box(wet, 2 + severity)) - 255.0 * (0.05 + 0.05 * severity)
