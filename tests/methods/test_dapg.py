"""Stage 1 against its equations written as loops, and each switch against what it should change."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dapg.augment.noise_chain import ChainConfig
from dapg.augment.views import ViewConfig, clean_and_corrupted_views
from dapg.core.batch import Batch, effective_rank
from dapg.core.errors import UsageError
from dapg.core.images import decode, normalise
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.settings import check
from dapg.data.sets.synthetic import Synthetic
from dapg.methods.base import DataFacts
from dapg.methods.pretraining.dapg import DAPG
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.heads.moco_head import MoCoHead

B, PICTURES = 5, 60
SMALL = DAPG.Config(
    queue=7,
    momentum=0.9,
    head=MoCoHead.Config(hidden_dim=16, output_dim=8),
    views=ViewConfig(height=32, width=32, blur=0.0, erasing=0.0),
    chain=ChainConfig(height=32, width=32),
)


def method_of(**changes: Any) -> DAPG:
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    return DAPG(replace(SMALL, **changes), backbone, DataFacts(PICTURES), generator_from("head"))


def batch_of() -> Batch:
    coarse = torch.rand(B, 3, 8, 4, generator=generator_from("pictures"))
    images = functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    zeros = torch.zeros(B, dtype=torch.int64)
    return Batch(images, zeros, zeros, zeros, torch.arange(B))


def draws(step: int = 0) -> SampleGenerator:
    return SampleGenerator.for_step(3, step, torch.arange(B))


def unit_rows(*shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=generator_from("rows", *shape)), dim=-1)


def embed(method: DAPG, which: str, view: Tensor) -> Tensor:
    """A forward written here: the encoder ``online`` or ``key`` on one view, without gradient."""
    backbone, head = (method.backbone, method.head) if which == "online" else (method.keys.backbone, method.keys.head)
    with torch.no_grad():
        return functional.normalize(head(backbone(view).mean(dim=(2, 3))))


def loop_loss(method: DAPG, views: list[Tensor], filled: int) -> float:
    """Eq. 1-5 with loops over samples, positives and negatives."""
    config = method.settings
    query = embed(method, "online", views[0])
    keys = [embed(method, "key", view) for view in views[1:]]
    online = [embed(method, "online", view) for view in views[1:]]
    queue = method.keys.queue.keys[:filled]
    contrastive = consistency = 0.0
    for i in range(B):
        positive = sum(math.exp(float(query[i] @ key[i]) / config.temperature) for key in keys)
        negative = sum(math.exp(float(query[i] @ old) / config.temperature) for old in queue)
        contrastive -= math.log(positive / (positive + negative)) / B
        p = [torch.softmax(queue @ view[i] / config.js_temperature, dim=0) for view in online]
        mean = (p[0] + p[1] + p[2]) / 3
        consistency += sum(float((each * (each / mean).log()).sum()) for each in p) / 3 / B
    return config.alpha * contrastive + (1 - config.alpha) * config.js_weight * consistency


@pytest.mark.parametrize(
    "changes", [{}, {"alpha": 0.3, "js_weight": 12.0}, {"temperature": 0.7, "js_temperature": 0.05}]
)
def test_loss_is_equations_1_to_5(changes: dict[str, Any]) -> None:
    """Batch norm in evaluation mode, so that a view's features do not depend on what else is in the pass."""
    method = method_of(**changes).eval()
    method.keys.queue.push(unit_rows(4, 8))
    views = list(method._views(batch_of(), draws()))
    expected = loop_loss(method, views, filled=4)
    assert method(batch_of(), draws()).loss.item() == pytest.approx(expected, rel=1e-4)


def test_without_l_total_it_is_info_nce_of_x2_among_the_other_pictures_of_the_batch() -> None:
    method = method_of(positives=1, alpha=1.0, negatives="batch").eval()
    query, key = (embed(method, "online", view) for view in method._views(batch_of(), draws()))
    of_four = method_of()._views(batch_of(), draws())
    for view, whole in zip(method._views(batch_of(), draws()), (of_four[0], of_four[2]), strict=True):
        assert torch.equal(view, whole), "x_q and x2 of the same chain"
    expected = 0.0
    for i in range(B):
        scores = [math.exp(float(query[i] @ key[j]) / method.settings.temperature) for j in range(B)]
        expected -= math.log(scores[i] / sum(scores)) / B
    result = method(batch_of(), draws())
    assert result.loss.item() == pytest.approx(expected, rel=1e-4)
    assert result.logs["js"] == 0
    with pytest.raises(UsageError, match="positives 1 needs alpha 1"):
        method_of(positives=1)


def test_two_views_are_a_clean_and_a_corrupted_one_each_the_anchor_of_the_other() -> None:
    changes = {"positives": 1, "alpha": 1.0, "negatives": "batch", "symmetric": True}
    method = method_of(**changes, chain=replace(SMALL.chain, anchor="clean")).eval()
    expected = clean_and_corrupted_views(batch_of().images, SMALL.views, SMALL.chain, draws().fork("chain"))
    views = method._views(batch_of(), draws())
    assert len(views) == 2
    for view, wanted in zip(views, expected, strict=True):
        assert torch.equal(view, normalise(wanted, method.backbone.mean, method.backbone.std))
    clean, corrupted = (embed(method, "online", view) for view in views)
    loss = 0.0
    for anchor, positive in ((clean, corrupted), (corrupted, clean)):
        for i in range(B):
            scores = [math.exp(float(anchor[i] @ other) / method.settings.temperature) for other in corrupted]
            own = math.exp(float(anchor[i] @ positive[i]) / method.settings.temperature)
            loss -= math.log(own / (own + sum(scores) - scores[i])) / (2 * B)
    assert method(batch_of(), draws()).loss.item() == pytest.approx(loss, rel=1e-4)


def test_alpha_weighs_the_terms() -> None:
    losses, logs = {}, {}
    for alpha in (0.0, 0.5, 1.0):
        method = method_of(alpha=alpha).eval()
        method.keys.queue.push(unit_rows(4, 8))
        result = method(batch_of(), draws())
        numbers = result.logs | result.diagnostics()
        losses[alpha], logs[alpha] = result.loss.item(), {name: value.item() for name, value in numbers.items()}
    assert losses[1.0] == pytest.approx(logs[1.0]["contrastive"])
    assert losses[0.0] == pytest.approx(logs[0.0]["js"], rel=1e-4)
    assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2, rel=1e-4)
    assert losses[0.5] != pytest.approx(losses[1.0], rel=1e-2)
    assert logs[1.0]["js_gradient_share"] == 0
    assert logs[0.0]["js_gradient_share"] == pytest.approx(1)


@pytest.mark.parametrize("term", ["alpha=1", "alpha=0", "dimensions", "batch", "symmetric"])
def test_gradient_of_each_term_by_finite_differences(term: str) -> None:
    variants: dict[str, dict[str, Any]] = {
        "alpha=1": {"alpha": 1.0},
        "alpha=0": {"alpha": 0.0},
        "dimensions": {"alpha": 0.0, "distribution": "dimensions"},
        "batch": {"alpha": 1.0, "negatives": "batch"},
        "symmetric": {"alpha": 1.0, "symmetric": True},
    }
    method = method_of(temperature=0.5, js_temperature=0.5, **variants[term]).eval().double()
    if method.settings.negatives == "queue":
        method.keys.queue.push(unit_rows(4, 8).double())
    views = tuple(view.double() for view in method._views(batch_of(), draws()))
    method._views = lambda batch, generator: views  # type: ignore[method-assign]
    weight = method.head.layers[2].weight  # type: ignore[index,union-attr]
    method(batch_of(), draws()).loss.backward()
    assert weight.grad is not None
    expected, step = weight.grad.clone(), 1e-5
    for row, column in ((0, 0), (3, 5), (7, 15)):
        values = []
        for sign in (1, -1):
            weight.data[row, column] += sign * step
            values.append(method(batch_of(), draws()).loss.item())
            weight.data[row, column] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected[row, column].item(), rel=1e-4, abs=1e-9)


def test_consistency_moves_the_online_encoder_only() -> None:
    method = method_of(alpha=0.0).train()
    method.keys.queue.push(unit_rows(4, 8))
    method(batch_of(), draws()).loss.backward()
    assert all(parameter.grad is not None for parameter in method.head.parameters())
    assert all(parameter.grad is None for parameter in method.keys.parameters())


def test_unfilled_slots_never_count() -> None:
    """An empty queue offers no negatives: Eq. 2 is 0, whatever lies in the slots."""
    method = method_of().eval()
    result = method(batch_of(), draws())
    assert result.logs["contrastive"].item() == pytest.approx(0, abs=1e-6)
    assert result.logs["js"].item() == pytest.approx(0, abs=1e-6)
    one_key = method_of().eval()
    one_key.keys.queue.push(unit_rows(1, 8))
    garbage = copy.deepcopy(one_key)
    garbage.keys.queue.keys[1:] = unit_rows(6, 8)
    assert one_key(batch_of(), draws()).loss.item() == pytest.approx(garbage(batch_of(), draws()).loss.item(), abs=1e-7)


def test_one_key_of_each_picture_is_remembered_in_order() -> None:
    method = method_of(queue=30).eval()
    views = method._views(batch_of(), draws())
    keys = torch.stack([embed(method, "key", view) for view in views[1:]], dim=1)
    method(batch_of(), draws())
    method.after_step(1, 10)
    assert int(method.keys.queue.filled) == B
    distance = (method.keys.queue.keys[:B, None] - keys).norm(dim=2)  # (B, 3)
    assert distance.min(dim=1).values.max() < 1e-5
    assert len(set(distance.argmin(dim=1).tolist())) > 1  # not always the same level


def test_batch_negatives_leave_out_the_own_picture() -> None:
    method = method_of(negatives="batch", alpha=1.0).eval()
    features = torch.stack([embed(method, "online", view) for view in method._views(batch_of(), draws())])
    total = 0.0
    for i in range(B):
        scores = (features[1:] @ features[0, i] / method.settings.temperature).exp()  # (3, B)
        total -= math.log(float(scores[:, i].sum() / scores.sum())) / B
    assert method(batch_of(), draws()).loss.item() == pytest.approx(total, rel=1e-4)
    assert not hasattr(method, "keys")


def test_symmetric_is_the_mean_over_anchors() -> None:
    method = method_of(symmetric=True, alpha=1.0).eval()
    method.keys.queue.push(unit_rows(4, 8))
    views = method._views(batch_of(), draws())
    online = [embed(method, "online", view) for view in views]
    keys = [embed(method, "key", view) for view in views]
    negatives = method.keys.queue.keys[:4]
    total = 0.0
    for anchor in range(4):
        for i in range(B):
            others = [keys[view][i] for view in range(4) if view != anchor]
            positive = sum(math.exp(float(online[anchor][i] @ key) / 0.1) for key in others)
            negative = sum(math.exp(float(online[anchor][i] @ old) / 0.1) for old in negatives)
            total -= math.log(positive / (positive + negative)) / (4 * B)
    assert method(batch_of(), draws()).loss.item() == pytest.approx(total, rel=1e-4, abs=1e-6)


def test_positives_reduction_changes_the_loss() -> None:
    losses = []
    for reduction in ("sum_inside", "mean_outside"):
        method = method_of(positives_reduction=reduction).eval()
        method.keys.queue.push(unit_rows(4, 8))
        losses.append(method(batch_of(), draws()).logs["contrastive"].item())
    assert losses[1] > losses[0]


def test_curriculum_raises_the_strongest_severity() -> None:
    method = method_of(curriculum=0.5, chain=replace(SMALL.chain, severities=(1, 5)))
    seen = [method.severities()]
    for step in range(1, 11):
        method.after_step(step, 10)
        seen.append(method.severities())
    assert [high for _, high in seen] == [1, 2, 3, 3, 4, 5, 5, 5, 5, 5, 5]  # 0, .8, 1.6, 2.4, 3.2, 4 above 1
    assert {low for low, _ in seen} == {1}


@pytest.mark.parametrize("order", ["before", "after"])
def test_positives_have_one_channel_three_times_before_or_after_normalising_and_the_anchor_has_not(order: str) -> None:
    method = method_of(channel=1.0, channel_order=order)
    mean, std = (torch.tensor(values)[:, None, None] for values in (method.backbone.mean, method.backbone.std))
    views = method._views(batch_of(), draws())
    plain = method_of(channel=0.0)._views(batch_of(), draws())
    assert torch.equal(views[0], plain[0])
    assert (views[0][:, 0] - views[0][:, 1]).abs().mean() > 0.01
    for view, colourful in zip(views[1:], plain[1:], strict=True):
        before, source = (view, colourful) if order == "after" else (view * std + mean, colourful * std + mean)
        torch.testing.assert_close(before, before[:, :1].expand_as(before), atol=1e-6, rtol=0)
        nearest = (source - before).abs().amax(dim=(2, 3)).amin(dim=1)
        assert nearest.max() < 1e-6, "it is one of the picture's own channels"


def test_shared_geometry_is_aligned_and_per_view_is_not() -> None:
    """With mild corruptions, shared views differ from their anchor less than views of other crops do."""
    distances = {}
    for geometry in ("shared", "per_view"):
        chain = replace(SMALL.chain, geometry=geometry, severities=(1, 1))
        query, first, *_ = method_of(chain=chain)._views(batch_of(), draws())
        distances[geometry] = (query - first).abs().mean().item()
    assert distances["shared"] < distances["per_view"]


def test_paper_is_the_literal_reading() -> None:
    paper = DAPG.paper()
    assert (paper.temperature, paper.alpha, paper.js_weight, paper.chain.severities) == (0.7, 0.5, 1.0, (1, 5))
    assert (paper.views.blur, paper.views.erasing, paper.views.jitter) == (0.0, 0.0, 0.0)
    assert paper.positives_reduction == "sum_inside"


@pytest.mark.parametrize("changes", [{"alpha": 1.5}, {"js_weight": -1.0}])
def test_impossible_weights_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(changes))} must be a number from 0 to 1"):
        check(DAPG.Config(**changes))


@pytest.mark.slow
def test_held_out_pictures_are_found_again_and_features_do_not_collapse() -> None:
    """After 60 steps, corrupted views of images never trained on find each other far more often than before."""
    people = Synthetic()
    images = torch.stack([decode(people.read(record), (64, 32)) for record in people.records("unlabelled")[:460]])
    views = ViewConfig(height=64, width=32, crop_scale=(0.5, 1.0), crop_ratio=(0.4, 0.6), blur=0.0, erasing=0.0)
    chain = ChainConfig(height=64, width=32, severities=(1, 2))
    head = MoCoHead.Config(hidden_dim=128, output_dim=64)
    backbone = ResNet18(ResNet18.Config(width=0.25), generator_from("backbone"))
    config = DAPG.Config(negatives="batch", head=head, views=views, chain=chain)
    method = DAPG(config, backbone, DataFacts(400), generator_from("head"))

    def batch_at(rows: Tensor) -> Batch:
        return Batch(images[rows], rows * 0, rows * 0, rows * 0, rows)

    def found_again() -> tuple[float, float]:
        rows = torch.arange(400, 460)
        method.eval()
        query, _, other, _ = method._views(batch_at(rows), SampleGenerator.for_step(9, 0, rows))
        with torch.no_grad():
            features = [method.project(view) for view in (query, other)]
        hits = (features[0] @ features[1].T).argmax(dim=1) == torch.arange(60)
        return hits.float().mean().item(), effective_rank(features[0]).item()

    before, rank_before = found_again()
    optimizer = torch.optim.AdamW(method.parameter_groups(2e-3, 1e-4))
    for step in range(60):
        rows = torch.randperm(400, generator=generator_from("order", step))[:48]
        loss = method.train()(batch_at(rows), SampleGenerator.for_step(3, step, rows)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after, rank = found_again()
    assert after > before + 0.1
    assert rank > rank_before
