"""The two views of the baselines: corrupted ones are stage 1's, and labels become classes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dapg.augment.noise_chain import ChainConfig
from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.types import UNKNOWN
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import method_class
from dapg.models.backbones.resnet18 import ResNet18

VIEWS, CHAIN = ViewConfig(height=32, width=32), ChainConfig(height=32, width=32)
PERSONS = (3, 7, 20)


def build(name: str, facts: DataFacts | None = None, **settings: Any) -> Method:
    kind = method_class("pretrain", name)
    config = kind.Config(views=VIEWS, chain=CHAIN, **settings)  # type: ignore[call-arg]
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    return kind(config, backbone, facts or DataFacts(40, PERSONS), generator_from("head"))


def batch_of(persons: tuple[int, ...] = (20, 3, 7)) -> Batch:
    coarse = torch.rand(len(persons), 3, 8, 4, generator=generator_from("pictures"))
    images = torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    labels = torch.tensor(persons)
    return Batch(images, labels, labels, torch.ones_like(labels), torch.arange(len(persons)))


def draws() -> SampleGenerator:
    return SampleGenerator.for_step(0, 0, torch.arange(3))


@pytest.mark.parametrize("name", ["mocov2", "simclr", "byol", "supervised", "pnl"])
def test_corrupted_views_are_the_first_and_the_last_of_stage_1_s_chain(name: str) -> None:
    """Same sample, same step, same seed: same images, so that methods are compared on equal corruptions."""
    stage_1: Any = build("dapg")
    expected: list[Tensor] = list(stage_1._views(batch_of(), draws()))
    method: Any = build(name, pair="corrupted")
    first, second = method._pair(batch_of(), draws())
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[2])


def test_byol_s_published_views_differ_and_the_recommended_ones_do_not() -> None:
    method: Any = build("byol", asymmetric=True)
    first, second = method._view_configs()
    assert (first.blur, first.solarise, second.blur, second.solarise) == (1.0, 0.0, 0.1, 0.2)
    published: Any = method_class("pretrain", "byol").paper()
    assert published.asymmetric
    even: Any = build("byol")
    assert even._view_configs() == (VIEWS, VIEWS)


def test_person_numbers_become_classes_in_ascending_order() -> None:
    method: Any = build("supervised")
    assert method._classes(torch.tensor([20, 3, 7])).tolist() == [2, 0, 1]


def test_pictures_without_labels_are_refused_by_the_classifier() -> None:
    for persons in ((UNKNOWN,), (UNKNOWN, 3, 7), (3,), ()):
        with pytest.raises(UsageError, match=r"--data\.split train"):
            build("supervised", DataFacts(40, persons))
