"""Three steps of every pre-training method, alone or as one process of two, so that tests can compare them.

Writes ``CASE.rank<r>.pt``: state, losses, and for MoCo v2 the keys of one more batch with batch norm in training mode.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from dapg.augment.noise_chain import ChainConfig
from dapg.core import distributed
from dapg.core.batch import Batch
from dapg.core.rng import SampleGenerator, generator_from
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import method_class
from dapg.models.backbones.resnet18 import ResNet18

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mocov2": ("mocov2", {}),
    "mocov2-corrupted": ("mocov2", {"pair": "corrupted"}),
    "simclr": ("simclr", {}),
    "byol": ("byol", {}),
    "supervised": ("supervised", {}),
    "pnl": ("pnl", {"prototypes_from": 0.0, "guided_from": 0.0}),
    "channel_transformer": ("channel_transformer", {}),
    "dapg": ("dapg", {}),
    "dapg-batch": ("dapg", {"negatives": "batch"}),
}
"""Name -> method and the settings that differ from the defaults."""

BATCH, PICTURES, STEPS = 8, 40, 3
"""40 images make a queue of 20 keys, so that three steps of 8 wrap around."""


def build(case: str) -> Method:
    """The method of a case at 32 x 32 on an eighth-width ResNet-18."""
    name, changes = CASES[case]
    kind = method_class("pretrain", name)
    config: Any = kind.Config()
    small: dict[str, Any] = {
        "views": replace(config.views, height=32, width=32),
        # Glass blur and JPEG truncate on their way, which makes a grey level of last bits that batch sizes change.
        "chain": ChainConfig(height=32, width=32, leave_out=("blur", "digital")),
    }
    if hasattr(config, "head"):
        small["head"] = replace(config.head, hidden_dim=32, output_dim=16)
    if hasattr(config, "momentum"):
        small["momentum"] = 0.9
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    facts = DataFacts(PICTURES, tuple(range(4)))
    return kind(replace(config, **small, **changes), backbone, facts, generator_from("head"))


def freeze_norms(method: Method) -> Method:
    """Training mode, but batch norms, the only part that sees just its own process's images, in evaluation mode."""
    method.train()
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.eval()
    return method


def batch_of(step: int, rows: slice) -> Batch:
    coarse = torch.rand(BATCH, 3, 8, 4, generator=generator_from("pictures", step))
    images = functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)[rows]
    persons = (torch.arange(BATCH) % 4)[rows]
    return Batch(images, persons, persons, torch.ones_like(persons), torch.arange(BATCH)[rows])


def draws(step: int, rows: slice) -> SampleGenerator:
    return SampleGenerator.for_step(0, step, torch.arange(BATCH)[rows])


def own_rows() -> slice:
    """This process's part of a batch."""
    share = BATCH // distributed.world_size()
    return slice(distributed.rank() * share, (distributed.rank() + 1) * share)


def run(case: str) -> dict[str, Any]:
    """State and losses after the steps; gradients are averaged over processes, as DDP does."""
    method = freeze_norms(build(case))
    optimizer = torch.optim.SGD(method.parameter_groups(0.05, 0.0), momentum=0.9)
    losses = []
    for step in range(STEPS):
        loss = method(batch_of(step, own_rows()), draws(step, own_rows())).loss
        optimizer.zero_grad()
        loss.backward()
        for parameter in method.parameters():
            if distributed.active() and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= distributed.world_size()
        optimizer.step()
        method.after_step(step + 1, STEPS)
        losses.append(loss.detach())
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    result = {"state": state, "losses": torch.stack(losses)}
    if case == "mocov2":
        result["keys"] = method.train().keys(view_of(own_rows()), draws(9, own_rows()))  # type: ignore[operator]
    return result


def view_of(rows: slice) -> Tensor:
    return torch.randn(BATCH, 3, 32, 32, generator=generator_from("view"))[rows]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for case in CASES:
        torch.save(run(case), folder / f"{case}.rank{distributed.rank()}.pt")
