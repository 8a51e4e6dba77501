"""Losses of pose generation against numbers worked out by hand."""

import pytest
import torch

from dapg.core.errors import UsageError
from dapg.losses.adversarial import feature_loss, fools_loss, reconstruction_loss, tells_apart_loss


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_adversarial_terms_by_hand() -> None:
    assert float(fools_loss(scores(1.0, 0.0, 3.0, -1.0))) == pytest.approx((0 + 1 + 4 + 4) / 4)
    # generated: (0.25 + 4) / 2; real: (0 + 0.25) / 2; no factor 1/2 (naiq/PN_GAN)
    assert float(tells_apart_loss(scores(1.0, 0.5), scores(0.5, 2.0))) == pytest.approx(4.25 / 2 + 0.25 / 2)
    assert float(tells_apart_loss(scores(1.0), scores(0.0))) == 0.0


def test_reconstruction_by_hand() -> None:
    target = torch.zeros(1, 2, 1, 2)
    generated = torch.tensor([[[[1.0, -3.0]], [[1.0, 5.0]]]])  # columns: differences 1 and 1, then 3 and 5
    assert float(reconstruction_loss(generated, target)) == pytest.approx(10 / 4)
    person = torch.tensor([[[[0.0, 1.0]]]])
    # weights 1, 1 and 3, 3: (1 + 1 + 9 + 15) / 8
    assert float(reconstruction_loss(generated, target, person, 3.0)) == pytest.approx(26 / 8)
    assert float(reconstruction_loss(generated, target, person, 1.0)) == pytest.approx(10 / 4)
    with pytest.raises(UsageError, match="above 0"):
        reconstruction_loss(generated, target, person, 0.0)


def test_features_by_hand_and_their_scale() -> None:
    target = {"a": torch.full((1, 1, 1, 2), 2.0), "b": torch.tensor([[[[0.0, 8.0]]]])}
    generated = {"a": torch.full((1, 1, 1, 2), 3.0), "b": torch.tensor([[[[2.0, 6.0]]]])}
    # a: 1 / 2; b: 2 / 4
    assert float(feature_loss(generated, target)) == pytest.approx((0.5 + 0.5) / 2)
    larger = {name: 10 * value for name, value in target.items()}
    assert float(feature_loss({n: 10 * v for n, v in generated.items()}, larger)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="differ"):
        feature_loss(generated, {"a": target["a"]})


def test_gradients_go_to_the_generated_side_only() -> None:
    made, wanted = torch.rand(1, 1, 2, 2, requires_grad=True), torch.rand(1, 1, 2, 2, requires_grad=True)
    feature_loss({"a": made}, {"a": wanted}).backward()
    assert made.grad is not None
    assert wanted.grad is None
