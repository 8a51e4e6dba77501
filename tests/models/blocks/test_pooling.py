import torch

from dapg.models.blocks.pooling import Stripes, average_pool, gem_pool


def test_gem_equals_the_values_of_the_published_code() -> None:
    """Fixture computed from the published AGW formula: positions 0 ... 0.5 and 0.6 ... 1.1 in steps of 0.1."""
    features = torch.arange(12, dtype=torch.float32).div(10).reshape(1, 2, 2, 3)
    torch.testing.assert_close(gem_pool(features), torch.tensor([[0.33471648, 0.8830148]]), atol=1e-7, rtol=0)


def test_average_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert average_pool(features).item() == 3.0


def test_power_one_is_the_average_and_a_large_power_the_maximum() -> None:
    features = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(gem_pool(features, power=1.0), features.mean(dim=(2, 3)), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        gem_pool(features, power=2000.0, epsilon=0.0), features.amax(dim=(2, 3)), atol=0.01, rtol=0
    )


def test_half_precision_does_not_overflow_and_zeros_have_a_finite_gradient() -> None:
    features = torch.full((1, 1, 2, 2), 60.0, dtype=torch.float16)  # 60^3 is above float16's largest number
    torch.testing.assert_close(gem_pool(features), torch.tensor([[60.0]]))
    zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    gem_pool(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_stripes_by_hand() -> None:
    """Twelve rows are six stripes of two; channel c of the reduced map is (c + 1) times the only input channel."""
    stripes = Stripes(1, 6, torch.Generator().manual_seed(0))
    with torch.no_grad():
        stripes.reduce.weight.copy_(torch.arange(1.0, 65.0).view(64, 1, 1, 1))
    rows = torch.arange(12.0).view(1, 1, 12, 1).expand(1, 1, 12, 3)
    vector = stripes(rows)
    means = torch.tensor([0.5, 2.5, 4.5, 6.5, 8.5, 10.5])
    torch.testing.assert_close(vector[0, :12], torch.cat([means, 2 * means]))
    assert vector.shape == (1, stripes.feature_dim) == (1, 384)
