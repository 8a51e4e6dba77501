"""Haar analysis against PyWavelets and by hand; the inverse is exact."""

import numpy as np
import pytest
import pywt
import torch

from dapg.core.errors import UsageError
from dapg.models.blocks.wavelet import BANDS, haar_analysis, haar_synthesis


def some_map(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_block_by_hand() -> None:
    block = torch.tensor([[1.0, 2.0], [3.0, 10.0]]).view(1, 1, 2, 2)
    bands = dict(zip(BANDS, haar_analysis(block).flatten().tolist(), strict=True))
    assert bands == {"average": 8.0, "horizontal": -5.0, "vertical": -4.0, "diagonal": 3.0}


@pytest.mark.parametrize("size", [(8, 4), (18, 9), (5, 7), (2, 1), (1, 1)])
def test_pywavelets_agrees_and_the_inverse_is_exact(size: tuple[int, int]) -> None:
    x = some_map(*size)
    bands = haar_analysis(x)
    average, details = pywt.dwt2(x.numpy(), "haar", mode="symmetric")
    np.testing.assert_allclose(bands.numpy(), np.stack([average, *details], axis=1), atol=1e-12)
    torch.testing.assert_close(haar_synthesis(bands, size), x, atol=1e-12, rtol=0)
    back = pywt.idwt2((average, details), "haar")[..., : size[0], : size[1]]
    np.testing.assert_allclose(haar_synthesis(bands, size).numpy(), back, atol=1e-12)


def test_energy_stays_and_changed_bands_change_the_map() -> None:
    x = some_map(8, 4)
    bands = haar_analysis(x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    for number in range(4):
        changed = bands.clone()
        changed[:, number] = 0
        assert (haar_synthesis(changed, (8, 4)) - x).abs().max() > 0.1


def test_a_wrong_size_is_named() -> None:
    with pytest.raises(UsageError, match="sub-bands"):
        haar_synthesis(haar_analysis(some_map(8, 4)), (8, 6))
