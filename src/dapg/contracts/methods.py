"""Checks of a method: it has a recipe at every scale, learns one batch, goes on from its state, makes unit features."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from dapg import recipes
from dapg.contracts.base import Checks, require, require_near
from dapg.core.batch import Batch
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.scales import SCALES, Stage
from dapg.core.settings import from_dict, to_dict
from dapg.core.types import Modality, Record
from dapg.data.image_lines import write_lines
from dapg.methods.base import DataFacts, Method, MethodConfig
from dapg.methods.contrastive import NegativesConfig, QueueConfig
from dapg.methods.runs import method_class
from dapg.models.backbones.base import Backbone
from dapg.models.backbones.resnet18 import ResNet18
from dapg.training.training_settings import TrainingSettings

COUNT, SIZE = 12, (32, 32)
SMALL = replace(SCALES["demo"], size=SIZE, decoded=SIZE)
RECORDS = tuple(Record(f"{number}.jpg", person=number % 6) for number in range(COUNT))


def checks(stage: Stage) -> Checks:
    """Every check of the methods of a stage."""
    return {check.__name__: partial(check, stage) for check in _CHECKS}


def has_a_recipe_at_every_scale(stage: Stage, name: str) -> None:
    """Complete settings, which survive being written to a file."""
    make: dict[Stage, Callable[[str, str], TrainingSettings]] = {
        "pretrain": recipes.pretraining,
        "align": recipes.alignment,
        "finetune": recipes.finetuning,
    }
    for scale in SCALES:
        settings = make[stage](name, scale)
        require(settings.train.total_steps(100.0) > 0, f"{scale}: no step to train")
        again = from_dict(type(settings.method), to_dict(settings.method), "method")
        require(again == settings.method, f"{scale}: the settings come back changed from a file")


def loss_is_finite_and_logs_are_detached_scalars(stage: Stage, name: str) -> None:
    """By the defaults, the recommended and the literal settings."""
    kind = method_class(stage, name)
    for config in (kind.Config(), kind.recommended(), kind.paper()):
        with built(stage, name, config) as method:
            result = method.train()(some_batch(), draws(0))
            require(result.loss.isfinite(), f"the loss is {result.loss.item()}")
            numbers = {**result.logs, **result.diagnostics()}
            require(bool(numbers) or result.features is not None, "nothing is logged")
            if result.features is not None:
                require(result.features().ndim == 2, "the features whose spread is logged are no rows of numbers")
            for key, value in numbers.items():
                require(value.ndim == 0 and not value.requires_grad, f"{key}, which is logged, is no detached scalar")
            result.loss.backward()  # the diagnostics left its graph alone


def one_batch_overfits(stage: Stage, name: str) -> None:
    """Fixed images and views: within 60 steps the loss falls to under half of where it begins.

    A queue holds one key here: with the same images in every step, older ones would be the query's own. A momentum
    encoder follows faster than in a run of thousands of steps.
    """
    config = method_class(stage, name).Config()
    if isinstance(config, QueueConfig):
        config = replace(config, queue=1, momentum=0.9)
    with built(stage, name, config) as method:
        optimizer, losses = optimizer_of(method), list[float]()
        for start in range(0, 60, 10):  # many need no more than twenty
            losses += train_steps(method, optimizer, range(start, start + 10), same_views=True)
            worst, now = max(losses[:6]), fmean(losses[-5:])  # queues start empty, so the very first loss may be 0
            if now < worst / 2:
                return
    require(False, f"the loss of one batch fell from {worst:.3g} to {now:.3g} only")


def goes_on_from_its_state(stage: Stage, name: str) -> None:
    """Loaded into a new object, state and optimiser give the same losses and weights."""
    with built(stage, name) as method, built(stage, name) as again:
        optimizer = optimizer_of(method)
        train_steps(method, optimizer, range(3))
        saved, saved_optimizer = copy.deepcopy(method.state_dict()), copy.deepcopy(optimizer.state_dict())
        expected = train_steps(method, optimizer, range(3, 6))
        fresh = optimizer_of(again)
        again.load_state_dict(saved)
        fresh.load_state_dict(saved_optimizer)
        require(train_steps(again, fresh, range(3, 6)) == expected, "losses differ: something is not in state_dict()")
        for key, tensor in method.state_dict().items():
            require(torch.equal(again.state_dict()[key], tensor), f"{key} differs after the same steps")


def same_draws_give_the_same_loss(stage: Stage, name: str) -> None:
    """After one step, since a queue is empty before it; other draws give another loss."""

    def second_loss(step: int) -> float:
        with built(stage, name) as method:
            train_steps(method, optimizer_of(method), range(1))
            return float(method(some_batch(), draws(step)).loss.item())

    require(second_loss(4) == second_loss(4), "chance comes from elsewhere than the step's generator")
    require(second_loss(4) != second_loss(5), "the step's generator is not used")


def every_trained_parameter_has_a_gradient_and_a_group(stage: Stage, name: str) -> None:
    """Each in exactly one group of the optimiser."""
    with built(stage, name) as method:
        method.train()(some_batch(), draws(0)).loss.backward()
        trained = {key: value for key, value in method.named_parameters() if value.requires_grad}
        silent = [key for key, value in trained.items() if value.grad is None]
        require(not silent, f"no gradient reaches {', '.join(silent[:5])}")
        grouped: list[Tensor] = [value for group in method.parameter_groups(0.1, 0.1) for value in group["params"]]
        missed = {id(value) for value in trained.values()} ^ {id(value) for value in grouped}
        require(not missed and len(grouped) == len(trained), "parameter_groups has parameters twice, or not at all")


def features_are_unit_rows(stage: Stage, name: str) -> None:
    """The headline among them, in both modalities."""
    with built(stage, name) as method:
        images = torch.randn(5, 3, *method.input_size, generator=generator_from("images"))
        for modality in Modality:
            features = method.eval().encode(images, modality)
            require(method.headline in features, f"the headline {method.headline!r} is not among the features")
            for key, values in features.items():
                require(len(values) == 5, f"{key} has {len(values)} rows for 5 images")
                require_near(values.norm(dim=1), torch.ones(5), f"rows of {key} are not of length 1")


def features_do_not_depend_on_the_batch(stage: Stage, name: str) -> None:
    """An image's are the same alone."""
    with built(stage, name) as method:
        images = torch.randn(4, 3, *method.input_size, generator=generator_from("images"))
        whole = method.eval().encode(images, Modality.VISIBLE)[method.headline]
        alone = method.encode(images[2:3], Modality.VISIBLE)[method.headline]
        require_near(whole[2:3], alone, "an image's feature depends on the batch around it")


def its_weights_start_the_next_stage(stage: Stage, name: str) -> None:
    """``transferable_state`` loads into a fresh backbone, which then is the trained one."""
    with built(stage, name) as method:
        train_steps(method, optimizer_of(method), range(1))
        backbone = network("another")
        backbone.load_state_dict(method.transferable_state())
        images = torch.randn(2, 3, *SIZE, generator=generator_from("images"))
        require_near(backbone.eval()(images), method.backbone.eval()(images), "what is handed on is another network")


_CHECKS = (
    has_a_recipe_at_every_scale,
    loss_is_finite_and_logs_are_detached_scalars,
    one_batch_overfits,
    goes_on_from_its_state,
    same_draws_give_the_same_loss,
    every_trained_parameter_has_a_gradient_and_a_group,
    features_are_unit_rows,
    features_do_not_depend_on_the_batch,
    its_weights_start_the_next_stage,
)


# A small network, twelve images


def network(seed: str) -> ResNet18:
    """An eighth-width ResNet-18."""
    return ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from(seed))


@contextmanager
def built(
    stage: Stage, name: str, config: MethodConfig | None = None, backbone: Backbone | None = None
) -> Iterator[Method]:
    """The method (None: with its defaults) on a small network; a file of lines is there while it is used."""
    kind = method_class(stage, name)
    config = kind.Config() if config is None else config
    small = config.at(SMALL)
    if isinstance(small, QueueConfig) and isinstance(config, QueueConfig):
        small = replace(small, momentum=config.momentum)
    if isinstance(small, NegativesConfig) and isinstance(config, NegativesConfig):
        small = replace(small, negatives=config.negatives)  # the queue is to be checked, too
    with tempfile.TemporaryDirectory() as folder:
        if small.line_file:
            lines = Path(folder) / "lines.tsv"
            write_lines(lines, {record.path: record.person for record in RECORDS})
            small = from_dict(kind.Config, {**to_dict(small), small.line_file: str(lines)}, "method")
        facts = DataFacts(200, tuple(range(6)), RECORDS)
        yield kind(small, network("backbone") if backbone is None else backbone, facts, generator_from("head"))


def some_batch() -> Batch:
    """Smooth random images, two of each person, one per modality."""
    coarse = torch.rand(COUNT, 3, 8, 4, generator=generator_from("batch"))
    images = functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    modalities = torch.arange(COUNT) // 6 + 1
    return Batch(images, torch.arange(COUNT) % 6, modalities.clone(), modalities, torch.arange(COUNT))


def draws(step: int) -> SampleGenerator:
    """The streams of a step."""
    return SampleGenerator.for_step(0, step, torch.arange(COUNT))


def optimizer_of(method: Method) -> torch.optim.Optimizer:
    """Adam over the method's groups."""
    return torch.optim.Adam(method.parameter_groups(2e-3, 0.0))


def train_steps(
    method: Method, optimizer: torch.optim.Optimizer, steps: range, same_views: bool = False
) -> list[float]:
    """Losses of some steps with the one batch."""
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
