"""DEEN: losses written person by person, blocks against the published layers, what is scored, each switch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.types import Modality
from dapg.losses.centre_pairs import centre_pair_loss, orthogonality
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.deen import DEEN
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.blocks.expansion import DiverseExpansion, StageAttention
from dapg.models.two_stream import TwoStreamConfig
from dapg.recipes import finetuning

PERSONS = (3, 5, 8)


def build(**changes: Any) -> DEEN:
    config = replace(DEEN.Config(), **changes)
    config = replace(config, views=replace(config.views, height=32, width=16, padding=2))
    backbone = ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from("backbone"))
    return DEEN(config, backbone, DataFacts(50, PERSONS), generator_from("head"))


def some_batch() -> Batch:
    """Two visible and two infrared images of three persons."""
    images = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=generator_from("images"))
    modalities = torch.tensor([1, 1, 2, 2] * 3)
    persons = torch.tensor(PERSONS).repeat_interleave(4)
    return Batch(images, persons, modalities.clone(), modalities, torch.arange(12))


def streams() -> SampleGenerator:
    return SampleGenerator.for_step(0, 0, torch.arange(12))


def rows(seed: int, count: int = 12) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pairs_by_hand() -> None:
    """Two persons on a line, one image each: V 0 and 10, I 4 and 14, V+ 1 and 11, I+ 3 and 13; margin 0.2.

    Visible side: d(I, V+) = 3, d(V, V+) = 1, so 2.2; the next person is 10 away, which costs nothing. Infrared side:
    d(V, I+) = 3, d(I, I+) = 1, likewise.
    """
    labels = torch.tensor([1, 2, 1, 2])
    original, expanded = torch.tensor([[0.0], [10], [4], [14]]), torch.tensor([[1.0], [11], [3], [13]])
    assert centre_pair_loss(original, expanded, labels).item() == pytest.approx(2.2)
    near = torch.tensor([[0.0], [2], [4], [6]]), torch.tensor([[1.0], [3], [3], [5]])
    # Now 3 + 0.2 - 2 for the next person's V+ and V each, both halved: 1.2 more.
    assert centre_pair_loss(*near, labels).item() == pytest.approx(3.4)


def by_person(original: Tensor, expanded: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The published loss (LLCM, DEEN/loss.py) told person by person."""
    half = len(labels) // 2
    persons = sorted(set(labels.tolist()))

    def centre(features: Tensor, side: int, person: int) -> Tensor:
        part, of = (slice(half), labels[:half]) if side == 0 else (slice(half, None), labels[half:])
        return features[part][of == person].mean(dim=0)

    total = torch.zeros((), dtype=torch.float64)
    for own in (0, 1):
        hinges = []
        for person in persons:
            across = (centre(original, 1 - own, person) - centre(expanded, own, person)).norm()
            within = (centre(original, own, person) - centre(expanded, own, person)).norm().detach()
            others = [other for other in persons if other != person]
            next_ = [
                min((centre(kind, own, person) - centre(kind, own, other)).norm() for other in others)
                for kind in (expanded, original)
            ]
            parts = [functional.relu(margin + across - apart) for apart in (within, *next_)]
            hinges.append(parts[0] + (parts[1] + parts[2]) / 2)
        total = total + torch.stack(hinges).mean() / 2
    return total


@pytest.mark.parametrize("margin", [0.2, 5.0])
def test_pairs_person_by_person_with_gradients(margin: float) -> None:
    labels = torch.tensor([7, 7, 4, 4, 9, 9, 9, 9, 4, 4, 7, 7])  # the halves need not be in one order
    first, second = (
        (rows(1).requires_grad_(), rows(2).requires_grad_()),
        (
            rows(1).requires_grad_(),
            rows(2).requires_grad_(),
        ),
    )
    ours, theirs = centre_pair_loss(*first, labels, margin), by_person(*second, labels, margin)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, first), torch.autograd.grad(theirs, second), strict=True):
        torch.testing.assert_close(mine, other)


def test_orthogonality_is_the_mean_dot_product() -> None:
    first, second = torch.tensor([[1.0, 2], [0, 3]]), torch.tensor([[3.0, 1], [5, 0]])
    assert orthogonality(first, second).item() == pytest.approx((5 + 0) / 2)
    assert orthogonality(first, -second).item() == 0


def test_non_local_blocks_are_refused() -> None:
    """The stages are walked without them: they would be neither run nor trained."""
    with pytest.raises(UsageError, match="no non-local blocks"):
        build(network=TwoStreamConfig(pooling="average"))


def test_attention_is_the_published_one() -> None:
    """CNL and PNL with their convolutions of stride 2 where the stage halves the map."""
    block = StageAttention(8, 4, generator_from("attention"))
    x, below = torch.randn(2, 8, 3, 2), torch.randn(2, 4, 6, 4)
    torch.testing.assert_close(block(x, below), x)  # it begins as the identity
    for part in (block.channels, block.places):
        nn.init.normal_(part.norm.weight, generator=generator_from("norm"))
    block.eval()
    channels, places = block.channels, block.places

    def strided(layer: nn.Conv2d, maps: Tensor, stride: int) -> Tensor:
        return functional.conv2d(maps, layer.weight, layer.bias, stride=stride)

    theta, g = channels.theta(x).view(2, 4, -1), channels.g(below).view(2, 4, -1)
    phi = strided(channels.phi, below, 2).view(2, 4, -1).permute(0, 2, 1)
    y = (torch.matmul(theta, phi) / 4 @ g).view(2, 4, 6, 4)
    z = x + channels.norm(strided(channels.project, y, 2))
    theta, g = places.theta(z).view(2, 2, -1).permute(0, 2, 1), places.g(below).view(2, 2, -1).permute(0, 2, 1)
    energy = torch.matmul(theta, places.phi(below).view(2, 2, -1))
    y = (energy / energy.size(-1) @ g).permute(0, 2, 1).reshape(2, 2, 3, 2)
    torch.testing.assert_close(block(x, below), z + places.norm(places.project(y)))


def test_expansion_keeps_the_map_and_adds_two() -> None:
    block, x = DiverseExpansion(8, generator_from("expansion")), torch.randn(2, 8, 6, 4)
    maps = block(x)
    assert maps.shape == (6, 8, 6, 4)
    torch.testing.assert_close(maps[:2], x)
    dilated: Any = block.dilated[1]
    convolved = [functional.conv2d(x, dilated[d - 1].weight, padding=d, dilation=d) for d in (1, 2, 3)]
    narrow = torch.stack(convolved).mean(dim=0)
    torch.testing.assert_close(maps[4:], block.widen[1](functional.relu(narrow)))


def test_joined_features_have_the_mean_of_six_likenesses() -> None:
    method = build(flip_test=False).eval()
    images = torch.randn(3, 3, 32, 16, generator=generator_from("images"))
    with torch.no_grad():
        pooled = method._expanded(images, None)
        likenesses = []
        for values in (pooled, method.neck(pooled)):
            for part in functional.normalize(values).chunk(3):
                likenesses.append(part @ part.T)
        joined = method.encode(images, Modality.VISIBLE)["joined"]
    torch.testing.assert_close(joined @ joined.T, torch.stack(likenesses).mean(dim=0))


def test_a_step_adds_up_and_every_switch_changes_it() -> None:
    def loss(**changes: Any) -> tuple[float, dict[str, float]]:
        result = build(**changes).train()(some_batch(), streams())
        return result.loss.item(), {name: value.item() for name, value in result.logs.items()}

    base, logs = loss()
    whole = logs["identity"] + logs["triplet"] + 0.8 * logs["pairs"] + 0.01 * logs["orthogonal"]
    assert base == pytest.approx(whole, rel=1e-6)
    third, legacy = loss(legacy_mean=True)
    assert legacy["orthogonal"] == pytest.approx(logs["orthogonal"] / 3)
    assert third == pytest.approx(base - 0.01 * logs["orthogonal"] * 2 / 3, rel=1e-5)
    for change in ({"dropout": 0.0}, {"grey": 0.0}, {"margin": 1.0}, {"pair_margin": 3.0}):
        assert loss(**change)[0] != pytest.approx(base, rel=1e-6), change
    assert loss() == (base, logs)


def test_dropout_keeps_the_mean_and_follows_its_stream() -> None:
    method = build(dropout=0.2)
    maps = torch.ones(12, 4, 16, 16)
    streams_ = SampleGenerator(torch.arange(4))
    dropped = method._dropped(maps, streams_)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    other = method._dropped(maps[torch.tensor([1, 5, 9])], SampleGenerator(torch.tensor([1])))
    torch.testing.assert_close(other, dropped[torch.tensor([1, 5, 9])])  # an image's rows depend on its stream alone
    assert method._dropped(maps, None) is maps


def test_recipes_differ_by_the_slips() -> None:
    paper, ours = finetuning("deen", "paper"), finetuning("deen", "recommended")
    assert paper.train.schedule.milestones == (20.0, 80.0)
    assert ours.train.schedule.milestones == (20.0, 80.0, 120.0)
    assert (paper.train.batch_size, paper.train.epochs) == (48, 151.0)
    literal, mended = DEEN.paper(), DEEN.Config()
    assert literal.views.erasing_value == (0.485, 0.456, 0.406)
    assert {key for key in vars(literal) if getattr(literal, key) != getattr(mended, key)} == {"views", "legacy_mean"}
    assert (mended.views.height, mended.views.width) == (384, 144)
