"""CAJ's triplet: the published value, the published cut-off, and what replaces it."""

import math

import pytest
import torch
from torch import Tensor

from dapg.losses.enhanced_triplet import SATURATION, enhanced_triplet
from dapg.losses.triplet import weighted_distances

LABELS = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])


def fixture() -> Tensor:
    """F[i, k] = sin(0.7 i + 0.3 k + 0.1 i k), i 0 ... 7, k 0 ... 3."""
    i, k = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    return (0.7 * i + 0.3 * k + 0.1 * i * k).sin()


def test_published_value() -> None:
    """The same features and labels give this with the published code."""
    value = enhanced_triplet(fixture(), LABELS, include_self=True, legacy_weights=True, saturate=True)
    assert value.item() == pytest.approx(1.2271653777, abs=2e-6)


def test_against_a_loop() -> None:
    features = fixture() * 2
    positive, negative = weighted_distances(features, LABELS)
    terms = []
    for p, n in zip(positive.tolist(), negative.tolist(), strict=True):
        sign = 1 if p > n else -1
        terms.append(math.log1p(math.exp(sign * (p - n) ** 2)))
    assert enhanced_triplet(features, LABELS).item() == pytest.approx(sum(terms) / 8, rel=1e-6)


def anchors_apart(distance: float) -> tuple[Tensor, Tensor]:
    """Two persons on a line whose positives are ``distance`` apart and whose negatives are 1 apart."""
    features = torch.tensor([[0.0], [distance], [1.0], [distance + 1]], dtype=torch.float64)
    return features, torch.tensor([0, 0, 1, 1])


def test_the_published_cut_off_has_no_gradient_and_ours_has() -> None:
    features, labels = anchors_apart(20.0)
    for saturate in (True, False):
        leaf = features.clone().requires_grad_()
        loss = enhanced_triplet(leaf, labels, saturate=saturate)
        loss.backward()
        assert leaf.grad is not None
        if saturate:
            assert loss.item() == pytest.approx(SATURATION)
            assert (leaf.grad == 0).all()
        else:
            assert loss.item() > SATURATION
            assert leaf.grad.abs().max() > 1
    near, _ = anchors_apart(9.0)
    assert torch.equal(enhanced_triplet(near, labels), enhanced_triplet(near, labels, saturate=True))


def test_finite_at_any_distance_and_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (0.0, 1e-3, 1.0, 20.0, 1e4):
        for dtype in (torch.float32, torch.bfloat16):
            features = (torch.randn(8, 16, generator=generator) * scale).to(dtype).requires_grad_()
            loss = enhanced_triplet(features, LABELS)
            loss.backward()
            assert loss.dtype == torch.float32
            assert loss.isfinite()
            assert features.grad is not None
            assert features.grad.isfinite().all()


def test_gradient_equals_finite_differences() -> None:
    features = fixture().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: enhanced_triplet(x, LABELS), (features,))
