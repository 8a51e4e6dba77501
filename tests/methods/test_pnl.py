"""PNL's parts: prototypes that move query by query, labels that are corrected, and what counts from when on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dapg.core.batch import Batch
from dapg.core.errors import DataError, UsageError
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.settings import check
from dapg.core.types import UNKNOWN, Record
from dapg.methods.base import DataFacts
from dapg.methods.pretraining.pnl import PNL, corrected_labels, moved_prototypes
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.heads.moco_head import MoCoHead

PERSONS = (3, 7, 20)
COUNT = 6


def method_of(**changes: Any) -> PNL:
    config = PNL.Config(head=MoCoHead.Config(32, 16), queue=12, **changes)
    config = replace(config, views=replace(config.views, height=64, width=32))
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    return PNL(config, backbone, DataFacts(200, PERSONS), generator_from("head")).train()


def batch_of() -> Batch:
    coarse = torch.rand(COUNT, 3, 8, 4, generator=generator_from("pictures"))
    images = torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    persons = torch.tensor(PERSONS * 2)
    return Batch(images, persons, persons, torch.ones_like(persons), torch.arange(COUNT))


def draws(step: int = 0) -> SampleGenerator:
    return SampleGenerator.for_step(0, step, torch.arange(COUNT))


def features(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_prototypes_move_query_by_query() -> None:
    prototypes, queries = features(5, 8, seed=0), features(7, 8, seed=1)
    prototypes[3] = 0.0  # never seen before
    labels = torch.tensor([2, 3, 2, 0, 3, 2, 3])
    expected = prototypes.clone()
    for query, label in zip(queries, labels.tolist(), strict=True):
        expected[label] = 0.9 * expected[label] + 0.1 * query
    expected = torch.stack([row if i in (1, 4) else normalize(row, dim=0) for i, row in enumerate(expected)])
    torch.testing.assert_close(moved_prototypes(prototypes, queries, labels, 0.9), expected)


def test_a_label_nobody_had_keeps_a_zero_prototype() -> None:
    moved = moved_prototypes(torch.zeros(3, 8, dtype=torch.float64), features(2, 8, seed=1), torch.tensor([0, 0]), 0.9)
    assert moved.norm(dim=1).tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_only_sure_labels_are_corrected() -> None:
    sure, unsure = torch.tensor([0.0, 9.0, 0.0]), torch.tensor([0.0, 0.5, 0.0])
    logits = torch.stack([sure, sure, unsure])
    nearness = torch.stack([sure, -sure, unsure])  # of the second they disagree
    assert corrected_labels(logits, nearness, torch.tensor([0, 2, 2]), 0.8).tolist() == [1, 2, 2]


def test_queue_holds_the_labels_of_its_keys() -> None:
    method = method_of()
    method(batch_of(), draws())
    method.after_step(1, 100)
    _, labels, filled = method.keys.queue.contents()
    assert labels[filled].tolist() == [0, 1, 2, 0, 1, 2]


def test_prototypes_count_from_their_share_of_the_training_on() -> None:
    method = method_of(prototypes_from=0.02)
    for step in range(2):
        assert method(batch_of(), draws(step)).logs["prototype"] == 0
        method.after_step(step + 1, 100)
    assert method(batch_of(), draws(2)).logs["prototype"] > 0


def test_keys_of_one_label_are_positives_from_their_share_on() -> None:
    """The same weights, views and queue; only the label-guided loss differs."""

    def instance(guided_from: float) -> float:
        method = method_of(guided_from=guided_from)
        method(batch_of(), draws())
        method.after_step(1, 100)
        return float(method(batch_of(), draws(1)).logs["instance"])

    assert instance(0.01) != instance(0.5)
    assert instance(0.02) == instance(0.5)


def test_corrected_labels_are_told() -> None:
    """A classifier that is sure of class 2 for all, with prototypes that agree."""
    method = method_of(correction_from=0.0)
    with torch.no_grad():
        last = method.classifier[2]
        assert isinstance(last, torch.nn.Linear)
        last.bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
        first, _ = method._pair(batch_of(), draws(), ("query", "key"))
        method.prototypes[2] = normalize(method.project(first).mean(dim=0), dim=0)
    logs = method(batch_of(), draws()).logs
    assert float(logs["corrected"]) == pytest.approx(4 / 6)


def test_the_query_sees_a_weak_view_and_the_key_a_strong_one() -> None:
    method = method_of(padding=0.0)
    weak, strong = method._pair(batch_of(), draws(), ("query", "key"))
    batch = batch_of()
    mean, std = (torch.tensor(value)[:, None, None] for value in (method.backbone.mean, method.backbone.std))
    plain = (batch.images / 255 - mean) / std
    mirrored = plain.flip(-1)
    for picture in range(COUNT):
        near = [(weak[picture] - each[picture]).abs().max() for each in (plain, mirrored)]
        assert min(near) < 1e-5
        assert min((strong[picture] - each[picture]).abs().max() for each in (plain, mirrored)) > 0.1


def test_pictures_without_labels_are_refused_with_a_way_out() -> None:
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    with pytest.raises(UsageError, match="dapg data group"):
        PNL(PNL.Config(), backbone, DataFacts(40, (UNKNOWN,)), generator_from("head"))


def test_a_file_of_groups_gives_the_labels(tmp_path: Any) -> None:
    records = [Record(f"{name}.jpg") for name in "abc"]
    file = tmp_path / "groups.tsv"
    file.write_text("a.jpg\t5\nc.jpg\t9\nelsewhere.jpg\t9\n")
    config = PNL.Config(groups=str(file))
    assert [(record.path, record.person) for record in config.labelled(records)] == [("a.jpg", 5), ("c.jpg", 9)]
    assert PNL.Config().labelled(records) == records
    file.write_text("elsewhere.jpg\t9\n")
    with pytest.raises(DataError, match=r"no group .*any of the 3 images.*a\.jpg"):
        config.labelled(records)


def test_shares_outside_0_to_1_are_refused() -> None:
    with pytest.raises(UsageError, match="guided_from"):
        check(PNL.Config(guided_from=15.0))
