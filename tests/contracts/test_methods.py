"""Every method found keeps the contract of methods/base.py, before anyone writes a test for it."""

import copy
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from dapg.core import plugins
from dapg.core.batch import Batch
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.scales import SCALES, Stage
from dapg.core.types import Modality, Record
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import FOLDERS, method_class
from dapg.models.backbones.resnet18 import ResNet18

METHODS = [(stage, name) for stage, folder in FOLDERS.items() for name in plugins.names(folder)]
SIZE, COUNT = (32, 32), 12
SMALL = replace(SCALES["demo"], size=SIZE, decoded=SIZE)


RECORDS = [Record(f"{number}.jpg", person=number % 6) for number in range(COUNT)]


@functools.cache
def _caption_file() -> Path:
    """Sentences for the methods that learn from them."""
    colours = ("red", "blue", "green", "black")
    file = Path(tempfile.mkdtemp()) / "captions.tsv"
    file.write_text("".join(f"{r.path}\ta {colours[i % 4]} coat and shoes {i}\n" for i, r in enumerate(RECORDS)))
    return file


def small_config(kind: type[Method], config: Any = None) -> Any:
    """The method's settings at a small size, without touching what makes it the method."""
    small = (kind.Config() if config is None else config).at(SMALL)
    return replace(small, captions=str(_caption_file())) if small.line_file == "captions" else small


def build(stage: Stage, name: str, config: Any = None) -> Method:
    kind = method_class(stage, name)
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    facts = DataFacts(200, tuple(range(6)), RECORDS)
    return kind(small_config(kind, config), backbone, facts, generator_from("head"))


def some_batch() -> Batch:
    """Pictures with structure: smooth random fields, two of each person, one per modality."""
    generator = generator_from("batch")
    coarse = torch.rand(COUNT, 3, 8, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    persons = torch.arange(COUNT) % 6
    modalities = torch.arange(COUNT) // 6 + 1
    return Batch(images, persons, modalities.clone(), modalities, torch.arange(COUNT))


def draws(step: int) -> SampleGenerator:
    return SampleGenerator.for_step(0, step, torch.arange(COUNT))


def train_steps(
    method: Method, optimizer: torch.optim.Optimizer, steps: range, same_views: bool = False
) -> list[float]:
    method.train()
    losses = []
    for step in steps:
        result = method(some_batch(), draws(0 if same_views else step))
        optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        optimizer.step()
        method.after_step(step + 1, 100)
        losses.append(result.loss.item())
    return losses


def optimizer_of(method: Method, lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(method.parameter_groups(lr, 0.0))


@pytest.mark.parametrize("stage, name", METHODS)
class TestEveryMethod:
    def test_loss_is_finite_and_logs_are_detached_scalars(self, stage: Stage, name: str) -> None:
        for config in (None, method_class(stage, name).paper()):
            result = build(stage, name, config).train()(some_batch(), draws(0))
            assert torch.isfinite(result.loss)
            numbers = result.logs | result.diagnostics()
            assert numbers
            for value in numbers.values():
                assert value.ndim == 0
                assert not value.requires_grad
            result.loss.backward()  # the diagnostics left its graph alone

    def test_corrupted_views_train_too(self, stage: Stage, name: str) -> None:
        """Where a method offers them; its two views are then parts of one noise chain."""
        config: Any = method_class(stage, name).Config()
        if not hasattr(config, "pair"):
            pytest.skip("this method has no choice of views")
        method = build(stage, name, replace(config, pair="corrupted"))
        losses = train_steps(method, optimizer_of(method), range(2))
        standard = build(stage, name)
        assert all(torch.isfinite(torch.tensor(losses)))
        assert losses != train_steps(standard, optimizer_of(standard), range(2))

    def test_one_batch_overfits(self, stage: Stage, name: str) -> None:
        """Fixed pictures and views: within 60 steps the loss must fall to under half of where it begins.

        A queue holds one key here: with the same pictures in every step, older ones would be the query's own. A
        momentum encoder follows faster than in a run of thousands of steps.
        """
        config = method_class(stage, name).Config()
        quick: dict[str, Any] = {"queue": 1, "momentum": 0.9}
        method = build(stage, name, replace(config, **{key: v for key, v in quick.items() if hasattr(config, key)}))
        optimizer, losses = optimizer_of(method), list[float]()
        for start in range(0, 60, 10):  # many need no more than twenty
            losses += train_steps(method, optimizer, range(start, start + 10), same_views=True)
            worst = max(losses[:6])  # queues start empty, so the very first loss may be 0
            if fmean(losses[-5:]) < worst / 2:
                return
        pytest.fail(f"{losses}")

    def test_save_load_continue_is_equal(self, stage: Stage, name: str) -> None:
        method = build(stage, name)
        optimizer = optimizer_of(method)
        train_steps(method, optimizer, range(3))
        saved, saved_optimizer = copy.deepcopy(method.state_dict()), copy.deepcopy(optimizer.state_dict())
        expected = train_steps(method, optimizer, range(3, 6))

        again = build(stage, name)
        fresh = optimizer_of(again)
        again.load_state_dict(saved)
        fresh.load_state_dict(saved_optimizer)
        assert train_steps(again, fresh, range(3, 6)) == expected
        for key, tensor in method.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), key

    def test_same_generator_same_loss(self, stage: Stage, name: str) -> None:
        """After one step, since a queue is empty before it."""

        def second_loss(step: int) -> Tensor:
            method = build(stage, name)
            train_steps(method, optimizer_of(method), range(1))
            return method(some_batch(), draws(step)).loss.detach()

        assert torch.equal(second_loss(4), second_loss(4))
        assert not torch.equal(second_loss(4), second_loss(5))

    def test_every_trained_parameter_gets_a_gradient_and_a_group(self, stage: Stage, name: str) -> None:
        method = build(stage, name).train()
        method(some_batch(), draws(0)).loss.backward()
        trained = {key: value for key, value in method.named_parameters() if value.requires_grad}
        silent = [key for key, value in trained.items() if value.grad is None]
        assert not silent
        grouped: list[Tensor] = [value for group in method.parameter_groups(0.1, 0.1) for value in group["params"]]
        assert {id(value) for value in grouped} == {id(value) for value in trained.values()}
        assert len(grouped) == len(trained)

    def test_features_are_unit_rows_and_the_headline_is_among_them(self, stage: Stage, name: str) -> None:
        method = build(stage, name).eval()
        images = torch.randn(5, 3, *method.input_size)
        for modality in Modality:
            features = method.encode(images, modality)
            assert method.headline in features
            for values in features.values():
                assert values.shape[0] == 5
                torch.testing.assert_close(values.norm(dim=1), torch.ones(5))

    def test_features_do_not_depend_on_the_batch_around(self, stage: Stage, name: str) -> None:
        method = build(stage, name).eval()
        images = torch.randn(4, 3, *method.input_size)
        whole = method.encode(images, Modality.VISIBLE)[method.headline]
        alone = method.encode(images[2:3], Modality.VISIBLE)[method.headline]
        torch.testing.assert_close(whole[2:3], alone, atol=1e-5, rtol=1e-4)

    def test_transferable_state_loads_into_a_fresh_backbone(self, stage: Stage, name: str) -> None:
        method = build(stage, name)
        train_steps(method, optimizer_of(method), range(1))
        backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("another"))
        backbone.load_state_dict(method.transferable_state())
        images = torch.randn(2, 3, *SIZE)
        torch.testing.assert_close(backbone.eval()(images), method.backbone.eval()(images))


def test_methods_were_found() -> None:
    assert {("pretrain", name) for name in ("byol", "mocov2", "simclr", "supervised")} <= set(METHODS)
