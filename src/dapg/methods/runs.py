"""Shared by all stages: build a method from settings, and load one from a finished run's folder."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NotRequired, TypedDict

from safetensors.torch import load_file

from dapg.core import plugins
from dapg.core.errors import UsageError, WeightsError
from dapg.core.results import Network
from dapg.core.rng import generator_from
from dapg.core.run_folder import CONFIG, RESULT
from dapg.core.scales import Stage
from dapg.core.schema import read_json, read_settings, said
from dapg.core.settings import from_dict
from dapg.core.train_config import BackboneConfig
from dapg.core.types import JsonObject
from dapg.methods.alignment.base import AlignmentMethod
from dapg.methods.base import DataFacts, Method
from dapg.models.backbones._by_name import backbone_class
from dapg.models.backbones.base import Backbone

METHOD_WEIGHTS, BACKBONE_WEIGHTS = "method.safetensors", "backbone.safetensors"
FOLDERS: dict[Stage, str] = {
    "pretrain": "methods.pretraining",
    "align": "methods.alignment",
    "finetune": "methods.finetuning",
}
"""Stage -> folder of its methods."""
_CONTRACTS: dict[Stage, Callable[..., Method]] = {"align": AlignmentMethod}
"""What a stage asks of its methods beyond ``Method``."""


class _Settings(TypedDict):
    """What is read of a run's settings, whatever its stage."""

    stage: str
    name: NotRequired[str]
    backbone: NotRequired[dict[str, object]]
    method: NotRequired[dict[str, object]]


def backbone_settings(config: BackboneConfig) -> Backbone.Config:
    """The backbone's own settings from ours.

    Raises:
        UsageError: a setting that this backbone does not have was changed.
    """
    kind = backbone_class(config.name)
    own, values = {field.name for field in fields(kind.Config)}, dict[str, object]()
    for field in fields(config)[2:]:  # after name and init
        value = getattr(config, field.name)
        if field.name in own:
            values[field.name] = value
        elif value != field.default:
            raise UsageError(f"{config.name} has no setting {field.name}: give --backbone.{field.name} {field.default}")
    return from_dict(kind.Config, values, f"backbone {config.name}: ")


def method_class(stage: Stage, name: str) -> type[Method]:
    """The method plug-in of a stage by name."""
    return plugins.load(FOLDERS[stage], name, _CONTRACTS.get(stage, Method))


def load_method(folder: Path) -> Method:
    """The trained method of a finished run, in evaluation mode on the CPU.

    Raises:
        UsageError: not a training run's folder, or an unfinished one.
        WeightsError: the weights do not fit the settings beside them.
    """
    if not (folder / CONFIG).exists():
        raise UsageError(f"{folder} is not a run: it has no {CONFIG}")
    if not (folder / RESULT).exists():
        raise UsageError(f"the run in {folder} is not finished: run its command again to go on")
    stored = read_settings(folder / CONFIG, _Settings)
    stage = stored["stage"]
    if stage not in FOLDERS or not {"name", "method", "backbone"} <= stored.keys():
        raise UsageError(f"{folder} holds a run of `{stage}`, which has no weights")
    result = read_json(folder / RESULT, Network)
    facts = DataFacts(pictures=result["facts"]["pictures"], persons=tuple(result["facts"]["persons"]))
    network = from_dict(BackboneConfig, stored["backbone"], f"{folder / CONFIG}: backbone.")
    backbone_kind = backbone_class(network.name)
    backbone = backbone_kind(backbone_settings(network), None)
    backbone.mean, backbone.std = tuple(result["mean"]), tuple(result["std"])
    method = untrained_method(stage, stored["name"], stored["method"], backbone, facts)
    try:
        method.load_state_dict(load_file(folder / METHOD_WEIGHTS))
    except Exception as error:  # whatever torch and safetensors raise
        raise WeightsError(f"{folder / METHOD_WEIGHTS} does not fit the settings beside it: {said(error)}") from error
    return method.eval().requires_grad_(False)


def untrained_method(stage: Stage, name: str, settings: JsonObject, backbone: Backbone, facts: DataFacts) -> Method:
    """A method by its stored settings, whose weights are about to be loaded."""
    kind = method_class(stage, name)
    return kind(from_dict(kind.Config, settings, "method."), backbone, facts, generator_from("placeholder weights"))
