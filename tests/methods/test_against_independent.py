"""SimCLR, MoCo v2 and BYOL against other implementations, over twenty training steps on the same views."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch
from dapg.core.rng import SampleGenerator, generator_from
from dapg.methods.base import DataFacts, Method
from dapg.methods.contrastive import TwoViews
from dapg.methods.pretraining.byol import BYOL
from dapg.methods.pretraining.mocov2 import MoCoV2
from dapg.methods.pretraining.simclr import SimCLR
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.heads.byol_head import BYOLHead
from dapg.models.heads.moco_head import MoCoHead
from dapg.models.heads.simclr_head import SimCLRHead

STEPS, B, PICTURES = 20, 8, 40
VIEWS = ViewConfig(height=32, width=16)


@pytest.fixture(autouse=True)
def double_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision rounding does not grow into a difference within twenty steps; in single it does."""
    view = TwoViews._view
    monkeypatch.setattr(TwoViews, "_view", lambda *arguments: view(*arguments).double())


def batch_of(step: int) -> Batch:
    generator = generator_from("pictures", step % 5)
    coarse = torch.rand(B, 3, 8, 4, generator=generator)
    images = functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    zeros = torch.zeros(B, dtype=torch.int64)
    return Batch(images, zeros, zeros, zeros, torch.arange(B))


def draws(step: int) -> SampleGenerator:
    return SampleGenerator.for_step(1, step, torch.arange(B))


def optimizer_of(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)  # type: ignore[arg-type]


def embed(backbone: nn.Module, head: nn.Module, view: torch.Tensor) -> torch.Tensor:
    return head(functional.adaptive_avg_pool2d(backbone(view), 1).flatten(1))


def our_losses(method: Method) -> list[float]:
    optimizer = optimizer_of([p for p in method.parameters() if p.requires_grad])
    losses = []
    method.train()
    for step in range(STEPS):
        loss = method(batch_of(step), draws(step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step + 1, STEPS)
        losses.append(loss.item())
    return losses


def test_simclr_equals_pytorch_metric_learning() -> None:
    losses_module = pytest.importorskip("pytorch_metric_learning.losses")
    backbone = ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from("backbone"))
    config = SimCLR.Config(temperature=0.2, head=SimCLRHead.Config(hidden_dim=32, output_dim=16), views=VIEWS)
    method = SimCLR(config, backbone, DataFacts(PICTURES), generator_from("head")).double()
    other_backbone, other_head = copy.deepcopy(method.backbone), copy.deepcopy(method.head)
    views = [
        [method._view(batch_of(s), VIEWS, draws(s).fork(name)) for name in ("first", "second")] for s in range(STEPS)
    ]

    criterion = losses_module.NTXentLoss(temperature=0.2)
    labels = torch.arange(B).repeat(2)
    optimizer = optimizer_of([*other_backbone.parameters(), *other_head.parameters()])
    theirs = []
    for first, second in views:
        loss = criterion(embed(other_backbone.train(), other_head.train(), torch.cat([first, second])), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())

    ours = our_losses(method)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert ours[-1] < ours[0]


def test_mocov2_equals_a_plain_loop_from_the_paper() -> None:
    """Algorithm 1 of He et al. 2020, with the queue as a list and the loss as a cross entropy over logits."""
    backbone = ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from("backbone"))
    head = MoCoHead.Config(hidden_dim=32, output_dim=16)
    config = MoCoV2.Config(temperature=0.2, momentum=0.9, queue=100, head=head, views=VIEWS)
    method = MoCoV2(config, backbone, DataFacts(PICTURES), generator_from("head")).double()
    views = [[method._view(batch_of(s), VIEWS, draws(s).fork(name)) for name in ("query", "key")] for s in range(STEPS)]
    online = nn.ModuleList([copy.deepcopy(method.backbone), copy.deepcopy(method.head)]).train()
    slow = copy.deepcopy(online)

    optimizer = optimizer_of(online.parameters())
    queue: list[torch.Tensor] = []
    theirs = []
    for first, second in views:
        query = functional.normalize(embed(online[0], online[1], first))
        with torch.no_grad():
            key = functional.normalize(embed(slow[0], slow[1], second))
        rows = []
        for q, k in zip(query, key, strict=True):
            rows.append(torch.stack([q.dot(k), *(q.dot(old) for old in queue)]) / 0.2)
        loss = functional.cross_entropy(torch.stack(rows), torch.zeros(B, dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for fast_weight, slow_weight in zip(online.parameters(), slow.parameters(), strict=True):
                slow_weight.copy_(0.9 * slow_weight + 0.1 * fast_weight)
        queue = [*queue, *key][-PICTURES // 2 :]
        theirs.append(loss.item())

    ours = our_losses(method)
    assert len(method.keys.queue.keys) == PICTURES // 2
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_byol_equals_a_plain_loop_from_the_paper() -> None:
    """Section 3.1 of Grill et al. 2020 by other means: squared distances of unit rows, a moving target."""
    backbone = ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from("backbone"))
    config = BYOL.Config(momentum=0.9, head=BYOLHead.Config(hidden_dim=32, output_dim=16), views=VIEWS)
    method = BYOL(config, backbone, DataFacts(PICTURES), generator_from("head")).double()
    views = [
        [method._view(batch_of(s), VIEWS, draws(s).fork(name)) for name in ("first", "second")] for s in range(STEPS)
    ]
    online = nn.ModuleList([copy.deepcopy(part) for part in (method.backbone, method.head, method.predictor)]).train()
    target = copy.deepcopy(online[:2])

    def unit(rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.pow(2).sum(dim=1, keepdim=True).sqrt()

    optimizer = optimizer_of(online.parameters())
    theirs = []
    for step, pair in enumerate(views):
        with torch.no_grad():
            projected = [unit(embed(target[0], target[1], view)) for view in pair]
        predicted = [unit(online[2](embed(online[0], online[1], view))) for view in pair]
        terms = [(p - z).pow(2).sum(dim=1).mean() for p, z in zip(predicted, reversed(projected), strict=True)]
        loss = terms[0] + terms[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * (step + 1) / STEPS) + 1) / 2
        with torch.no_grad():
            for slow_weight, weight in zip(target.parameters(), online[:2].parameters(), strict=True):
                slow_weight.copy_(tau * slow_weight + (1 - tau) * weight)
        theirs.append(loss.item())

    # Passes in another order give batch norms other running statistics; training mode does not look at them.
    assert our_losses(method) == pytest.approx(theirs, abs=1e-6)
