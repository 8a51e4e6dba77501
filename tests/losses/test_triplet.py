"""Triplet losses against AGW's own formulas, its published fixture, and slow loops."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from dapg.losses.identity import accuracy, identity_loss
from dapg.losses.triplet import (
    batch_hard_triplet,
    pairwise_distances,
    weighted_distances,
    weighted_regularised_triplet,
)

LABELS = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
FIXTURE = torch.tensor([[math.sin(0.7 * i + 0.3 * k + 0.1 * i * k) for k in range(4)] for i in range(8)])


def published(features: Tensor, labels: Tensor) -> Tensor:
    """AGW's loss to the letter: squared distances by the short formula, weights with 1e-6, log(1 + exp(x))."""
    square = features.pow(2).sum(dim=1)
    distances = (square[:, None] + square - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    positive = (labels[:, None] == labels).to(features.dtype)
    negative = 1 - positive

    def weights(values: Tensor, mask: Tensor) -> Tensor:
        largest = (values * mask).amax(dim=1, keepdim=True)
        exponents = (values - largest).exp() * mask
        return exponents / (exponents.sum(dim=1, keepdim=True) + 1e-6)

    pull = (weights(distances * positive, positive) * distances * positive).sum(dim=1)
    push = (weights(-distances * negative, negative) * distances * negative).sum(dim=1)
    return (1 + (pull - push).exp()).log().mean()


def random_features(scale: float, seed: int = 0, count: int = 16, dim: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return features, torch.arange(count) // 4


def test_fixture_of_the_published_loss() -> None:
    loss = weighted_regularised_triplet(FIXTURE, LABELS, include_self=True, legacy_weights=True)
    assert float(loss) == pytest.approx(1.2342321226, abs=1e-5)
    positive, negative = weighted_distances(FIXTURE, LABELS, include_self=True, legacy_weights=True)
    assert positive[:3].tolist() == pytest.approx([2.08828514, 2.86184993, 2.45334697], abs=1e-5)
    assert negative[:3].tolist() == pytest.approx([1.4523587, 1.43025441, 1.29732769], abs=1e-5)
    exact = weighted_regularised_triplet(FIXTURE.double(), LABELS, include_self=True)
    assert float(exact) == pytest.approx(1.2342321226, abs=1e-5)  # weights that sum to 1 change nothing here


def test_fixture_of_the_batch_hard_loss() -> None:
    assert float(batch_hard_triplet(FIXTURE, LABELS)) == pytest.approx(2.0023680473, abs=1e-6)


@pytest.mark.parametrize(("scale", "seed"), list(product((0.05, 0.3, 1.0, 3.0), (0, 1))))
def test_legacy_weights_equal_the_published_code_where_it_is_finite(scale: float, seed: int) -> None:
    features, labels = random_features(scale, seed)
    ours = weighted_regularised_triplet(features, labels, include_self=True, legacy_weights=True)
    torch.testing.assert_close(ours, published(features, labels), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 0.3, 0.7])
def test_normal_weights_equal_the_published_code_at_small_distances(scale: float) -> None:
    features, labels = random_features(scale)
    ours = weighted_regularised_triplet(features, labels, include_self=True)
    torch.testing.assert_close(ours, published(features, labels), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [20.0, 1000.0])
def test_long_features_stay_finite_where_the_published_code_overflows(
    scale: float, dtype: torch.dtype, legacy: bool
) -> None:
    features, labels = random_features(scale)
    assert torch.isinf(published(features.float(), labels))
    leaf = features.to(dtype).requires_grad_()
    loss = weighted_regularised_triplet(leaf, labels, include_self=True, legacy_weights=legacy)
    loss.backward()
    assert torch.isfinite(loss)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_weights_sum_to_one_at_any_distance_unless_legacy() -> None:
    """On a line with equal gaps the weighted mean lies between the nearest and the farthest distance."""
    features = torch.arange(6.0)[:, None] * 40
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    positive, negative = weighted_distances(features, labels)
    assert float(positive[0]) == pytest.approx(80)
    assert float(negative[0]) == pytest.approx(120)
    _, lost = weighted_distances(features, labels, legacy_weights=True)
    assert float(lost[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("include_self", [True, False])
def test_against_a_slow_loop(include_self: bool) -> None:
    features, labels = random_features(0.4, count=12, dim=5)
    total = 0.0
    for i in range(12):
        gaps = [max(math.dist(features[i].tolist(), features[j].tolist()), 1e-6) for j in range(12)]
        near = [gaps[j] for j in range(12) if labels[j] == labels[i] and (include_self or j != i)]
        far = [gaps[j] for j in range(12) if labels[j] != labels[i]]
        pull = sum(g * math.exp(g) for g in near) / sum(math.exp(g) for g in near)
        push = sum(g * math.exp(-g) for g in far) / sum(math.exp(-g) for g in far)
        total += math.log(1 + math.exp(pull - push))
    ours = weighted_regularised_triplet(features, labels, include_self=include_self)
    assert float(ours) == pytest.approx(total / 12, rel=1e-9)


def test_a_person_s_only_picture_is_its_own_positive() -> None:
    features, _ = random_features(0.3, count=3)
    positive, _ = weighted_distances(features, torch.tensor([0, 0, 1]))
    assert float(positive[2]) == pytest.approx(1e-6)


def test_distances_between_long_features_keep_their_digits() -> None:
    base = torch.full((1, 2048), 20.0)
    step = torch.zeros(1, 2048)
    step[0, 0] = 0.5
    assert float(pairwise_distances(torch.cat([base, base + step]))[0, 1]) == pytest.approx(0.5, rel=1e-6)


def test_equal_features_have_a_gradient_that_is_finite() -> None:
    features = torch.ones(8, 4, requires_grad=True)
    for loss in (weighted_regularised_triplet, batch_hard_triplet):
        (gradient,) = torch.autograd.grad(loss(features, LABELS), features)
        assert torch.isfinite(gradient).all()


def test_batch_hard_against_a_slow_loop() -> None:
    features, labels = random_features(0.5)
    distances = torch.cdist(features, features)
    total = 0.0
    for i in range(len(labels)):
        same = labels == labels[i]
        total += max(0.0, 0.3 + float(distances[i][same].max()) - float(distances[i][~same].min()))
    assert float(batch_hard_triplet(features, labels)) == pytest.approx(total / len(labels))


def test_identity_loss_and_accuracy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    labels = torch.tensor([0, 1])
    assert float(identity_loss(logits, labels)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert float(accuracy(logits, labels)) == 0.5
    halves = identity_loss(logits.bfloat16(), labels)
    assert halves.dtype == torch.float32
