import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dapg.core.errors import UsageError
from dapg.losses.js import js_divergence, log_feature_distribution, log_similarity_distribution
from dapg.losses.regression import regression


def random_features(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_against_equation_5_written_as_loops() -> None:
    p = random_features(4, 3, 6).mul(3).softmax(dim=2)
    total = 0.0
    for b in range(4):
        for i in range(3):
            for n in range(6):
                mean = (p[b, 0, n] + p[b, 1, n] + p[b, 2, n]) / 3
                total += float(p[b, i, n]) * math.log(float(p[b, i, n] / mean)) / 3
    assert js_divergence(p.log()).item() == pytest.approx(total / 4, rel=1e-9)


def test_by_hand() -> None:
    """p = (1, 0), q = (1/2, 1/2): M = (3/4, 1/4), half of ln(4/3), plus half of (ln(2/3) + ln 2) / 2."""
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    expected = 0.5 * math.log(4 / 3) + 0.25 * (math.log(2 / 3) + math.log(2))
    assert js_divergence(p.log()).item() == pytest.approx(expected, rel=1e-6)


def test_equal_is_zero_and_disjoint_is_log_3() -> None:
    same = random_features(2, 1, 5).softmax(dim=2).expand(2, 3, 5)
    assert js_divergence(same.log()).item() == pytest.approx(0, abs=1e-12)
    assert js_divergence(torch.eye(3)[None].log()).item() == pytest.approx(math.log(3), rel=1e-6)


def test_zero_probabilities_have_finite_gradients() -> None:
    logits = torch.eye(3)[None].clone().requires_grad_()
    masked = logits.masked_fill(torch.tensor([False, False, True]), float("-inf"))  # one outcome nobody can take
    js_divergence(masked.log_softmax(dim=2)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


def test_gradient_equals_finite_differences() -> None:
    features, keys = random_features(2, 3, 4).requires_grad_(), random_features(5, 4, seed=1)
    valid = torch.tensor([True, True, False, True, True])

    def loss(x: Tensor) -> Tensor:
        return js_divergence(log_similarity_distribution(x, keys, 0.3, valid))

    assert torch.autograd.gradcheck(loss, (features,))


def test_keys_that_do_not_count_have_no_influence() -> None:
    features, keys = random_features(2, 3, 4), random_features(5, 4, seed=1)
    valid = torch.tensor([True, False, True, True, False])
    garbage = torch.where(valid[:, None], keys, torch.full_like(keys, 1e5))
    few = log_similarity_distribution(features, keys[valid], 0.1)
    masked = log_similarity_distribution(features, garbage, 0.1, valid)
    torch.testing.assert_close(masked[:, :, valid], few)
    torch.testing.assert_close(js_divergence(masked), js_divergence(few))
    each = valid.expand(2, 5)
    torch.testing.assert_close(log_similarity_distribution(features, garbage, 0.1, each), masked)


def test_no_key_at_all_is_agreement() -> None:
    features = random_features(2, 3, 4).requires_grad_()
    nothing = torch.zeros(5, dtype=torch.bool)
    loss = js_divergence(log_similarity_distribution(features, random_features(5, 4, seed=1), 0.1, nothing))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_distributions_sum_to_one_and_sharpen() -> None:
    features, keys = random_features(2, 3, 4), random_features(5, 4, seed=1)
    for flat, sharp in (
        (log_similarity_distribution(features, keys, 1.0), log_similarity_distribution(features, keys, 0.1)),
        (log_feature_distribution(features, 1.0), log_feature_distribution(features, 0.1)),
    ):
        torch.testing.assert_close(flat.exp().sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
        assert (sharp.amax(dim=2) > flat.amax(dim=2)).all()


def test_regression_is_the_squared_distance_of_unit_rows() -> None:
    a, b = random_features(4, 6), random_features(4, 6, seed=1)
    expected = (a - b).square().sum(dim=1).mean()
    torch.testing.assert_close(regression(3 * a, 0.5 * b), expected)
    assert regression(a, a).item() == pytest.approx(0, abs=1e-9)
    assert regression(a, -a).item() == pytest.approx(4, rel=1e-9)


def test_regression_holds_its_target_fixed() -> None:
    a, b = random_features(4, 6).requires_grad_(), random_features(4, 6, seed=1).requires_grad_()
    regression(a, b).backward()
    assert a.grad is not None
    assert b.grad is None


def test_a_temperature_of_nothing_is_refused() -> None:
    features = random_features(1, 2, 4)
    with pytest.raises(UsageError, match="temperature"):
        log_similarity_distribution(features, features[0], 0.0)
    with pytest.raises(UsageError, match="temperature"):
        log_feature_distribution(features, -1.0)
