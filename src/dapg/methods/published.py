"""Shared by import and export: fine-tuned networks from and to checkpoints of the published AGW and CAJ code."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch

from dapg.core.errors import DapgError, UsageError
from dapg.core.ranges import CountOrZero, Weight
from dapg.core.rng import generator_from
from dapg.core.run_folder import RESULT
from dapg.core.schema import read_json
from dapg.core.types import UNKNOWN
from dapg.methods.base import DataFacts
from dapg.methods.finetuning._two_stream import TwoStreamMethod
from dapg.methods.finetuning.agw import AGW
from dapg.methods.finetuning.baseline import Baseline
from dapg.methods.runs import load_method
from dapg.models.backbones.resnet50 import ResNet50
from dapg.models.weights import agw_checkpoints


class _Length(TypedDict):
    """How long a fine-tuning was."""

    steps: CountOrZero
    steps_per_epoch: Weight


def load_published(path: Path | str, height: int = 288, width: int = 144) -> TwoStreamMethod:
    """The network of a ``.t`` or ``.pth`` file of the published code, in evaluation mode on the CPU.

    A file without non-local blocks is one of the code's base method. The classifier's persons are not known by name:
    they get labels below ``UNKNOWN``.

    Args:
        path: the file.
        height: rows of the images it was trained on.
        width: columns likewise.

    Raises:
        WeightsError: unreadable, damaged, or not exactly the published network.
    """
    tensors = agw_checkpoints.read_published(path)
    count = agw_checkpoints.persons(tensors)
    facts = DataFacts(0, tuple(range(UNKNOWN - count, UNKNOWN)))
    backbone = ResNet50(ResNet50.Config(last_stride=1), None)
    kind: type[TwoStreamMethod] = AGW if any(agw_checkpoints.non_local_counts(tensors)) else Baseline
    config = kind.paper()
    views = replace(config.views, height=height, width=width)  # and the published padding
    method = kind(replace(config, views=views), backbone, facts, generator_from("placeholder weights"))
    method.load_state_dict(agw_checkpoints.from_published(tensors, method.state_dict(), str(path)))
    return method.eval().requires_grad_(False)


def export_published(run: Path, path: Path | str) -> None:
    """Write the network of a finished fine-tuning run in the published layout, and read it back.

    Raises:
        UsageError: not such a run, or a network that the published code cannot build.
        DapgError: what was written is not the run's network.
    """
    method = load_method(run)
    if not isinstance(method.backbone, ResNet50):
        raise UsageError(f"the published code has a ResNet-50; {run} holds a {type(method.backbone).__name__}")
    if not isinstance(method, TwoStreamMethod):
        raise UsageError(f"the published code has a two-stream network; {run} is no fine-tuning of one")
    kind: type[TwoStreamMethod] = AGW if any(method.settings.network.non_local) else Baseline
    if method.settings.network != kind.paper().network or method.backbone.config != ResNet50.Config(last_stride=1):
        raise UsageError(
            f"the published code would build another network than that of {run}: it has the settings of --preset paper "
            "(--method.network) on a ResNet-50 of last stride 1, all of it trained"
        )
    result = read_json(run / RESULT, _Length)
    epochs = round(result["steps"] / max(result["steps_per_epoch"], 1))
    state = method.state_dict()
    agw_checkpoints.write_published(state, path, epochs)
    again = agw_checkpoints.from_published(agw_checkpoints.read_published(path), state, str(path))
    different = [name for name, tensor in state.items() if not torch.equal(again[name], tensor)]
    if different:
        raise DapgError(f"{path} was written, but holds another {different[0]} than {run}: do not use it")
