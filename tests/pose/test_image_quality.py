"""Measures of generated images in the benchmark of pose generators, by hand."""

import runpy
from pathlib import Path

import pytest
import torch

from dapg.core.rng import generator_from

MEASURES = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "pose_image_quality.py"))
gradient_energy, grey, masked_mean, ssim_map = (
    MEASURES[name] for name in ("gradient_energy", "grey", "masked_mean", "ssim_map")
)


def test_ssim_by_hand() -> None:
    picture = torch.rand(2, 1, 24, 16, generator=generator_from("ssim"))
    torch.testing.assert_close(ssim_map(picture, picture), torch.ones_like(picture), atol=1e-5, rtol=0)
    # constant images: no variance, only the first factor is left
    low, high = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    torch.testing.assert_close(ssim_map(low, high), torch.full((1, 1, 16, 16), expected), atol=1e-5, rtol=0)
    assert float(ssim_map(picture, 1 - picture).mean()) < 0


def test_ssim_against_a_slow_loop() -> None:
    first, second = torch.rand(2, 1, 1, 15, 15, generator=generator_from("loop"), dtype=torch.float64)
    weights = torch.tensor(
        [[2.718281828459045 ** (-(x * x + y * y) / 4.5) for x in range(-5, 6)] for y in range(-5, 6)]
    )
    weights = (weights / weights.sum()).double()
    a, b = first[0, 0, 2:13, 2:13], second[0, 0, 2:13, 2:13]  # the window around pixel (7, 7)
    ma, mb = (weights * a).sum(), (weights * b).sum()
    va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
    c = (weights * (a - ma) * (b - mb)).sum()
    expected = (2 * ma * mb + 1e-4) * (2 * c + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert float(ssim_map(first, second)[0, 0, 7, 7]) == pytest.approx(float(expected), abs=1e-6)


def test_energy_inside_the_mask_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 3)
    image[:, :, :, 1] = 0.5
    image[:, :, :, 2] = 1.0
    everywhere = torch.ones(1, 1, 2, 3)
    assert float(gradient_energy(image, everywhere)) == pytest.approx(0.25)  # 0.5 squared across, 0 down
    left = everywhere.clone()
    left[..., 2] = 0
    image[:, :, :, 2] = 0.0  # outside: does not matter
    assert float(gradient_energy(image, left)) == pytest.approx(0.25)
    assert float(masked_mean(grey(image), left)) == pytest.approx(0.25)
