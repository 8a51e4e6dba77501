"""Numbers that describe a corrupted image; NumPy only, as it is imported by two environments.

Also the made-up images that both sides corrupt.
"""

import functools

import numpy as np

NAMES = ("mean", "deviation", "psnr", "spectrum slope", "channel correlation", "angle", "displacement", "roughness")


def pictures(height: int = 256, width: int = 128) -> np.ndarray:
    """Five (H, W, 3) uint8 images: even, dark, bright, colourful and finely textured; a figure on each."""
    y, x = np.mgrid[:height, :width]
    y, x = y / height, x / width
    made = []
    for number in range(5):
        rng = np.random.default_rng(number)
        base = np.array([0.45, 0.12, 0.8, 0.5, 0.4])[number]
        picture = np.stack([base + a * (y - 0.5) + b * (x - 0.5) for a, b in rng.uniform(-0.2, 0.2, (3, 2))], axis=-1)
        body = (abs(x - 0.5) < 0.16) & (y > 0.25) & (y < 0.62)
        legs = (abs(abs(x - 0.5) - 0.08) < 0.06) & (y >= 0.62) & (y < 0.95)
        head = ((x - 0.5) * width) ** 2 + ((y - 0.17) * height) ** 2 < (0.07 * height) ** 2
        strength = 1.0 if number == 3 else 0.6
        for part in (body, legs, head):
            picture[part] = base + strength * (rng.uniform(0, 1, 3) - base)
        picture[body] += 0.1 * np.sin(60 * y[body])[:, None]
        fine = {4: 0.1}.get(number, 0.015)
        picture += rng.normal(0, fine, picture.shape)
        made.append((picture.clip(0, 1) * 255).astype(np.uint8))
    return np.stack(made)


def ramp(height: int = 256, width: int = 128) -> np.ndarray:
    """An image whose red is the column and whose green is the row, so that displacements can be read from it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * (255 // (width - 1)), y * 255 // (height - 1), np.full_like(x, 128)], axis=-1).astype(np.uint8)


def sources(name: str) -> list[np.ndarray]:
    """What is corrupted: the images, and ramp or spot where displacements or angles are to be read."""
    extra = {"glass_blur": [ramp()], "elastic_transform": [ramp()], "motion_blur": [point()]}
    return [*pictures(), *extra.get(name, [])]


def point(height: int = 256, width: int = 128) -> np.ndarray:
    """A white spot on black: where a motion blur takes it shows the angle."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 - 1 : height // 2 + 2, width // 2 - 1 : width // 2 + 2] = 255
    return picture


@functools.lru_cache(maxsize=4)
def _rings(height: int, width: int) -> np.ndarray:
    """Which of 15 rings of spatial frequency each entry of a shifted spectrum is in; 0 and 16 are left out."""
    fy, fx = np.mgrid[:height, :width]
    radius = np.hypot((fy - height // 2) / height, (fx - width // 2) / width)
    return np.digitize(radius.ravel(), np.linspace(0.02, 0.5, 16))


def describe(clean: np.ndarray, damaged: np.ndarray, name: str) -> np.ndarray:
    """One number for each of NAMES; NaN where it has no meaning."""
    image = damaged.astype(np.float64)
    error = ((image - clean) ** 2).mean()
    grey = image.mean(axis=2)
    spectrum = abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    height, width = grey.shape
    ring = _rings(height, width)
    power = np.bincount(ring, spectrum.ravel(), 17)[1:16] / np.bincount(ring, minlength=17)[1:16]
    slope = np.polyfit(np.log(np.linspace(0.036, 0.484, 15)), np.log(power + 1e-9), 1)[0]
    flat = (image - clean).reshape(-1, 3)
    spread = flat.std(axis=0)
    correlation = np.corrcoef(flat.T)[np.triu_indices(3, 1)].mean() if spread.min() > 1e-9 else np.nan
    angle = displacement = np.nan
    if name == "motion_blur" and clean.max() == 255 and clean.mean() < 1:
        weight = grey / max(grey.sum(), 1e-9)
        rows, columns = np.mgrid[:height, :width]
        down = (weight * rows).sum() - height // 2
        right = (weight * columns).sum() - width // 2
        angle = np.degrees(np.arctan2(down, right))
    if name == "snow":
        gy, gx = np.gradient(grey - clean.mean(axis=2))
        angle = np.degrees(0.5 * np.arctan2(2 * (gx * gy).sum(), (gx * gx).sum() - (gy * gy).sum())) % 180
    if name in ("glass_blur", "elastic_transform"):
        displacement = np.abs(flat[:, :2]).mean()
    roughness = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    psnr = 10 * np.log10(255**2 / max(error, 1e-9))
    return np.array([image.mean(), image.std(), psnr, slope, correlation, angle, displacement, roughness])
