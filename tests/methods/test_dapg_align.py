"""Alignment: which images become positives, what is done to their channels, the loss by hand, heads that go on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from dapg.augment.channel import draw_channels
from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.scales import PRESETS
from dapg.methods.alignment.base import positive_images
from dapg.methods.alignment.dapg_align import DAPGAlign
from dapg.methods.base import DataFacts
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.moco_head import MoCoHead
from dapg.recipes import alignment

COUNT, POSES = 6, 3
STILL = ViewConfig(
    height=32, width=16, crop_scale=(1.0, 1.0), crop_ratio=(0.5, 0.5), flip=0.0, grey=0.0, blur=0.0, erasing=0.0
)


def batch(valid: torch.Tensor | None = None) -> Batch:
    """Images of one level each: originals 10 * i, companions 10 * i + 1 + slot."""
    base = 10 * torch.arange(COUNT)
    images = base[:, None, None, None].expand(-1, 3, 32, 16).to(torch.uint8)
    companions = (base[:, None] + 1 + torch.arange(POSES))[:, :, None, None, None].expand(-1, -1, 3, 32, 16)
    extras = {
        "companions": companions.to(torch.uint8),
        "companions_valid": torch.ones(COUNT, POSES, dtype=torch.bool) if valid is None else valid,
    }
    numbers = torch.arange(COUNT)
    return Batch(images, numbers, numbers, torch.ones(COUNT, dtype=torch.int64), numbers, extras)


def draws(step: int, count: int = COUNT) -> SampleGenerator:
    return SampleGenerator.for_step(0, step, torch.arange(count))


def method(**changes: Any) -> DAPGAlign:
    config = replace(
        DAPGAlign.Config(views=STILL, head=replace(MoCoHead.Config(), hidden_dim=32, output_dim=16)), **changes
    )
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    return DAPGAlign(config, backbone, DataFacts(100), generator_from("head"))


class TestPositivePictures:
    def test_all_poses_are_drawn_and_never_twice_in_a_step(self) -> None:
        seen = set()
        for step in range(20):
            pictures, own = positive_images(batch(), 2, draws(step))
            levels = pictures[:, :, 0, 0, 0].long() - 10 * torch.arange(COUNT)[:, None]
            assert not own.any()
            assert bool((levels[:, 0] != levels[:, 1]).all())
            seen |= set(levels.flatten().tolist())
        assert seen == {1, 2, 3}

    def test_only_real_companions_count_and_the_picture_stands_in_for_none(self) -> None:
        valid = torch.ones(COUNT, POSES, dtype=torch.bool)
        valid[1] = False
        valid[2] = torch.tensor([False, True, False])
        for step in range(10):
            pictures, own = positive_images(batch(valid), 3, draws(step))
            levels = pictures[:, :, 0, 0, 0]
            assert own.tolist() == [False, True, False, False, False, False]
            assert levels[1].tolist() == [10, 10, 10]
            assert levels[2].tolist() == [22, 22, 22]
            assert sorted(levels[3].tolist()) == [31, 32, 33]

    def test_without_companions_everybody_is_their_own(self) -> None:
        lonely = batch()
        lonely.extras.clear()
        pictures, own = positive_images(lonely, 2, draws(0))
        assert bool(own.all())
        assert torch.equal(pictures[:, 1], lonely.images)

    def test_a_sample_s_draw_does_not_depend_on_its_batch(self) -> None:
        whole, _ = positive_images(batch(), 2, draws(5))
        part = batch()
        rows = torch.tensor([4])
        alone = Batch(
            part.images[rows],
            part.persons[rows],
            part.cameras[rows],
            part.modalities[rows],
            rows,
            {key: value[rows] for key, value in part.extras.items()},
        )
        assert torch.equal(positive_images(alone, 2, draws(5).rows(rows))[0], whole[rows])


def test_channels_are_exchanged_with_the_stated_chances() -> None:
    chosen = draw_channels(0.5, draws(1, 40_000), luma=True)
    shares = [float((chosen == value).float().mean()) for value in (-1, 0, 1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.125, 0.125, 0.125, 0.125], abs=0.01)


@pytest.mark.parametrize("order", ["before", "after"])
def test_positives_have_one_channel_three_times_before_or_after_normalising(order: str) -> None:
    colours = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None].expand(COUNT, -1, 32, 16)
    aligner = method(channel=1.0, channel_order=order)
    view = aligner._positive_view(colours, draws(0))
    mean, std = torch.tensor(aligner.backbone.mean), torch.tensor(aligner.backbone.std)
    inside = view[:, :, 16, 8]
    if order == "before":
        raw = inside * std + mean
        torch.testing.assert_close(raw, raw[:, :1].expand(-1, 3), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(inside, inside[:, :1].expand(-1, 3))


@pytest.mark.parametrize("order", ["before", "after"])
def test_positives_are_the_same_in_bf16(order: str) -> None:
    """Only the network may be rounded: the luma of eight bits would move by a level."""
    images = torch.randint(0, 256, (COUNT, 3, 32, 16), generator=generator_from("images"), dtype=torch.uint8)
    aligner = method(channel=1.0, channel_order=order)
    plain = aligner._positive_view(images, draws(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(aligner._positive_view(images, draws(0)), plain)


def features(aligner: DAPGAlign, level: int) -> torch.Tensor:
    """Of an image of one level, by a forward written here."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (aligner.backbone.mean, aligner.backbone.std))
    normal = (torch.full((1, 3, 32, 16), level / 255) - mean) / std
    return functional.normalize(aligner.head(average_pool(aligner.backbone(normal))))[0]


def test_the_loss_is_eq_2_of_the_anchor_against_keys_and_queue() -> None:
    aligner = method(channel=0.0, positives=POSES).eval()  # evaluation mode: batch norm has no memory of the batch
    queue = functional.normalize(torch.randn(20, 16, generator=generator_from("queue")))
    aligner.keys.queue.push(queue)
    result = aligner.training_step(batch(), draws(0))

    losses = []
    for i in range(COUNT):
        anchor = features(aligner, 10 * i)
        positive = sum(torch.exp(anchor @ features(aligner, 10 * i + 1 + slot) / 0.1) for slot in range(POSES))
        negative = torch.exp(queue @ anchor / 0.1).sum()
        losses.append(-torch.log(positive / (positive + negative)))
    torch.testing.assert_close(result.loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)
    assert result.logs["own_positive"] == 0


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_batch_negatives_are_the_positives_of_all_other_pictures(alpha: float) -> None:
    aligner = method(channel=0.0, positives=POSES, negatives="batch", alpha=alpha).eval()
    loss = aligner.training_step(batch(), draws(0)).loss
    assert not [key for key in aligner.state_dict() if key.startswith("keys.")]
    anchors = [features(aligner, 10 * i) for i in range(COUNT)]
    keys = [[features(aligner, 10 * i + 1 + slot) for slot in range(POSES)] for i in range(COUNT)]
    expected = torch.zeros(())
    for i in range(COUNT):
        others = torch.stack([key for j in range(COUNT) if j != i for key in keys[j]])
        positive = sum(torch.exp(anchors[i] @ key / 0.1) for key in keys[i])
        contrastive = -torch.log(positive / (positive + torch.exp(others @ anchors[i] / 0.1).sum()))
        p = [torch.softmax(others @ key / 0.1, dim=0) for key in keys[i]]
        mean = sum(p) / POSES
        divergence = sum((each * (each / mean).log()).sum() for each in p) / POSES
        expected = expected + (alpha * contrastive + (1 - alpha) * divergence) / COUNT
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    one_person = batch()
    one_person.persons = torch.zeros(COUNT, dtype=torch.int64)
    assert torch.equal(aligner.training_step(one_person, draws(0)).loss, loss)  # labels are not looked at


def test_gradient_reaches_anchors_and_positives_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = method(negatives="batch")
    passes: list[torch.Tensor] = []

    def project(view: torch.Tensor) -> torch.Tensor:
        passes.append(functional.normalize(aligner.head(average_pool(aligner.backbone(view)))))
        return passes[-1]

    monkeypatch.setattr(aligner, "project", project)
    loss = aligner.training_step(batch(), draws(0)).loss
    assert [each.shape for each in passes] == [(2 * COUNT, 16)]
    gradient = torch.autograd.grad(loss, passes[0])[0]
    assert bool((gradient.norm(dim=1) > 0).all())


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_consistency_is_added_among_positives(negatives: str) -> None:
    both = method(positives=2, alpha=0.5, negatives=negatives)
    if negatives == "queue":
        both.keys.queue.push(functional.normalize(torch.randn(20, 16, generator=generator_from("queue"))))
    result = both.training_step(batch(), draws(0))
    assert float(result.logs["js"]) > 0
    expected = 0.5 * result.logs["contrastive"] + 0.5 * result.logs["js"]
    torch.testing.assert_close(result.loss.detach(), expected)
    with pytest.raises(UsageError, match="positives 2 or more"):
        method(alpha=0.5)


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_a_generated_person_pulls_the_network_and_one_batch_overfits(negatives: str) -> None:
    generator = generator_from("pictures")
    coarse = torch.rand(COUNT, 1 + POSES, 3, 4, 2, generator=generator)
    pictures = functional.interpolate(coarse.flatten(0, 1), size=(32, 16)).mul(255).to(torch.uint8)
    pictures = pictures.unflatten(0, (COUNT, 1 + POSES))
    given = batch()
    given.images, given.extras["companions"] = pictures[:, 0], pictures[:, 1:]
    aligner = method(channel=0.0, queue=1, momentum=0.9, negatives=negatives)
    optimizer = torch.optim.Adam(aligner.parameter_groups(5e-3, 0.0))
    losses = []
    for step in range(25):
        result = aligner(given, draws(0))
        optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        optimizer.step()
        aligner.after_step(step + 1, 25)
        losses.append(result.loss.item())
    assert min(losses[-5:]) < max(losses[:6]) / 2, losses


def test_stage_1_s_head_goes_on_and_the_queue_starts_empty() -> None:
    earlier, aligner = method(), method()
    with torch.no_grad():
        for parameter in earlier.head.parameters():
            parameter.add_(1)
    aligner.take_head(earlier.head.state_dict())
    for module in (aligner.head, aligner.keys.head):
        for key, value in earlier.head.state_dict().items():
            assert torch.equal(module.state_dict()[key], value)
    assert int(aligner.keys.queue.filled) == 0
    with pytest.raises(RuntimeError):
        aligner.take_head({"wrong": torch.zeros(1)})
    without_queue = method(negatives="batch")
    without_queue.take_head(earlier.head.state_dict())
    assert torch.equal(without_queue.head.state_dict()["layers.0.bias"], earlier.head.state_dict()["layers.0.bias"])


def test_literal_presets_keep_the_queue_and_short_ones_take_the_batch() -> None:
    paper = DAPGAlign.paper()
    assert (paper.temperature, paper.js_temperature, paper.positives, paper.alpha) == (0.7, 0.7, 1, 1.0)
    assert (paper.negatives, paper.queue, paper.momentum) == ("queue", 65_536, 0.999)
    configs: dict[str, Any] = {preset: alignment("dapg_align", preset).method for preset in PRESETS}
    negatives = {preset: config.negatives for preset, config in configs.items()}
    assert negatives == {"recommended": "queue", "paper": "queue", "gpu": "queue", "small": "batch", "demo": "batch"}
