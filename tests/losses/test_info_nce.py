import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dapg.core.errors import UsageError
from dapg.losses.info_nce import Reduction, label_guided_info_nce, multi_positive_info_nce, nt_xent


def fixture() -> tuple[Tensor, Tensor, Tensor]:
    """One query, three positives and four negatives from sines, six dimensions."""
    k = torch.arange(6, dtype=torch.float64)
    query = normalize(torch.sin(k + 1), dim=0)
    positives = torch.stack([normalize(torch.sin(k + 1 + 0.2 * (i + 1)), dim=0) for i in range(3)])
    negatives = torch.stack([normalize(torch.cos((j + 2) * (k + 1)), dim=0) for j in range(4)])
    return query[None], positives[None], negatives


def random_features(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize(
    "temperature, inside, outside",
    [(0.07, 6.2817e-7, 1.43507), (0.1, 4.73139e-5, 1.27416), (0.2, 0.00713721, 1.15242), (0.7, 0.24535278, 1.34790)],
)
def test_equation_2_on_the_fixture(temperature: float, inside: float, outside: float) -> None:
    query, positives, negatives = fixture()
    loss = multi_positive_info_nce(query, positives, negatives, temperature)
    assert loss.item() == pytest.approx(inside, rel=1e-5)
    loss = multi_positive_info_nce(query, positives, negatives, temperature, reduction="mean_outside")
    assert loss.item() == pytest.approx(outside, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum_inside", "mean_outside"])
@pytest.mark.parametrize("temperature", [0.05, 0.7])
@pytest.mark.parametrize("masked", ["no", "for all", "for each"])
def test_against_a_slow_loop(reduction: Reduction, temperature: float, masked: str) -> None:
    batch, count, size = 5, 3, 7
    query, positives, negatives = random_features(batch, 8), random_features(batch, count, 8, seed=1), None
    negatives = random_features(size, 8, seed=2)
    each = torch.rand(batch, size, generator=torch.Generator().manual_seed(3)) < 0.6
    valid = {"no": None, "for all": each[0], "for each": each}[masked]
    losses = []
    for b in range(batch):
        tops = [math.exp(float(query[b] @ positives[b, p]) / temperature) for p in range(count)]
        rest = 0.0
        for k in range(size):
            if masked == "no" or (masked == "for all" and each[0, k]) or (masked == "for each" and each[b, k]):
                rest += math.exp(float(query[b] @ negatives[k]) / temperature)
        if reduction == "sum_inside":
            losses.append(-math.log(sum(tops) / (sum(tops) + rest)))
        else:
            losses.append(sum(-math.log(top / (sum(tops) + rest)) for top in tops) / count)
    fast = multi_positive_info_nce(query, positives, negatives, temperature, reduction, valid)
    assert fast.item() == pytest.approx(sum(losses) / batch, rel=1e-9)


def test_closed_form_of_perfect_positives_and_orthogonal_negatives() -> None:
    """ln(1 + K / (3 e^(1/t))): with K = 65536 it is 8.56 at the paper's 0.7 and 0.69 at 0.1."""
    query = torch.zeros(1, 4)
    query[0, 0] = 1
    negatives = torch.zeros(65536, 4)
    negatives[:, 1] = 1
    positives = query[None].expand(1, 3, 4)
    for temperature, printed in ((0.7, 8.56), (0.1, 0.69)):
        loss = multi_positive_info_nce(query, positives, negatives, temperature).item()
        assert loss == pytest.approx(math.log(1 + 65536 / (3 * math.exp(1 / temperature))), rel=1e-5)
        assert loss == pytest.approx(printed, abs=0.005)


def test_one_positive_is_cross_entropy() -> None:
    query, positive, negatives = random_features(4, 8), random_features(4, 8, seed=1), random_features(9, 8, seed=2)
    logits = torch.cat([(query * positive).sum(dim=1, keepdim=True), query @ negatives.T], dim=1) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.int64))
    for reduction in ("sum_inside", "mean_outside"):
        torch.testing.assert_close(
            multi_positive_info_nce(query, positive[:, None], negatives, 0.1, reduction), expected
        )


def test_masked_negatives_have_no_influence_on_value_and_gradient() -> None:
    query = random_features(3, 8).requires_grad_()
    positives, negatives = random_features(3, 2, 8, seed=1), random_features(6, 8, seed=2)
    valid = torch.tensor([True, False, True, True, False, False])
    garbage = negatives.clone()
    garbage[~valid] = 1e6
    results = []
    for keys, mask in ((negatives[valid], None), (garbage, valid)):
        loss = multi_positive_info_nce(query, positives, keys, 0.1, valid=mask)
        results.append((loss, *torch.autograd.grad(loss, query)))
    torch.testing.assert_close(results[0], results[1])


def test_no_negative_at_all_is_a_finite_loss() -> None:
    query = random_features(3, 8).requires_grad_()
    positives, negatives = random_features(3, 2, 8, seed=1), random_features(6, 8, seed=2)
    loss = multi_positive_info_nce(query, positives, negatives, 0.1, valid=torch.zeros(6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_a_small_temperature_does_not_overflow() -> None:
    query, positives, negatives = (value.float() for value in fixture())
    assert multi_positive_info_nce(query, positives, negatives, 1e-3, "mean_outside").isfinite()


def test_autocast_does_not_change_the_value() -> None:
    query, positives, negatives = (value.float() for value in fixture())
    plain = multi_positive_info_nce(query, positives, negatives, 0.07, "mean_outside")
    views = nt_xent(positives[0], positives[0].flip(0), 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(multi_positive_info_nce(query, positives, negatives, 0.07, "mean_outside"), plain)
        assert torch.equal(nt_xent(positives[0], positives[0].flip(0), 0.07), views)


@pytest.mark.parametrize("reduction", ["sum_inside", "mean_outside"])
def test_gradients_equal_finite_differences(reduction: Reduction) -> None:
    inputs = [random_features(2, 4), random_features(2, 3, 4, seed=1), random_features(5, 4, seed=2)]
    for value in inputs:
        value.requires_grad_()
    valid = torch.tensor([True, True, False, True, False])
    assert torch.autograd.gradcheck(lambda q, p, n: multi_positive_info_nce(q, p, n, 0.2, reduction, valid), inputs)


def test_wrong_arguments_are_refused() -> None:
    query, positives, negatives = fixture()
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="temperature"):
            multi_positive_info_nce(query, positives, negatives, temperature)
        with pytest.raises(UsageError, match="temperature"):
            nt_xent(query, query, temperature)
    with pytest.raises(ValueError, match="both"):
        nt_xent(query, query, 0.1, all_a=query)
    with pytest.raises(ValueError, match="gathered"):
        nt_xent(query, query, 0.1, all_a=query, all_b=query, row_offset=1)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_against_a_slow_double_loop(batch: int, temperature: float) -> None:
    """SimCLR's algorithm 1: rows 2 k - 1 and 2 k are the two views of image k."""
    first, second = random_features(batch, 6), random_features(batch, 6, seed=1)
    views = [row for pair in zip(first, second, strict=True) for row in pair]
    total = 0.0
    for i, row in enumerate(views):
        partner = i + 1 if i % 2 == 0 else i - 1
        below = sum(math.exp(float(row @ other) / temperature) for j, other in enumerate(views) if j != i)
        total -= math.log(math.exp(float(row @ views[partner]) / temperature) / below)
    assert nt_xent(first, second, temperature).item() == pytest.approx(total / (2 * batch), rel=1e-9, abs=1e-12)


def test_nt_xent_closed_forms() -> None:
    same = torch.ones(4, 2) / math.sqrt(2)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(math.log(2 * 4 - 1), rel=1e-6)
    apart = torch.eye(3)
    expected = math.log(1 + 4 * math.exp(-1 / 0.5))  # the partner at similarity 1, four others at 0
    assert nt_xent(apart, apart, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_nt_xent_over_processes_is_the_loss_of_the_whole_batch() -> None:
    first, second = random_features(6, 5).requires_grad_(), random_features(6, 5, seed=1).requires_grad_()
    whole = nt_xent(first, second, 0.2)
    parts = [nt_xent(first[o : o + 2], second[o : o + 2], 0.2, first, second, o) for o in (0, 2, 4)]
    shared = torch.stack(parts).mean()
    torch.testing.assert_close(shared, whole)
    torch.testing.assert_close(
        torch.autograd.grad(shared, (first, second)), torch.autograd.grad(whole, (first, second))
    )


@pytest.mark.parametrize("masked", [False, True])
def test_label_guided_loss_against_a_slow_loop(masked: bool) -> None:
    batch, size, temperature = 4, 6, 0.07
    query, key, others = random_features(batch, 8), random_features(batch, 8, seed=1), random_features(size, 8, seed=2)
    draws = torch.rand(batch + 1, size, generator=torch.Generator().manual_seed(3))
    same, valid = draws[:batch] < 0.4, draws[batch] < 0.7
    losses = []
    for b in range(batch):
        counted = [k for k in range(size) if valid[k] or not masked]
        own = math.exp(float(query[b] @ key[b]) / temperature)
        tops = {k: math.exp(float(query[b] @ others[k]) / temperature) for k in counted}
        everything = own + sum(tops.values())
        terms = [-math.log(own / everything)]
        terms += [-math.log(tops[k] / everything) for k in counted if same[b, k]]
        losses.append(sum(terms) / len(terms))
    fast = label_guided_info_nce(query, key, others, same, temperature, valid if masked else None)
    assert fast.item() == pytest.approx(sum(losses) / batch, rel=1e-9)


def test_label_guided_loss_without_labels_is_info_nce() -> None:
    query, key, others = random_features(4, 8), random_features(4, 8, seed=1), random_features(6, 8, seed=2)
    nobody = torch.zeros(4, 6, dtype=torch.bool)
    expected = multi_positive_info_nce(query, key[:, None], others, 0.1)
    torch.testing.assert_close(label_guided_info_nce(query, key, others, nobody, 0.1), expected)
