"""A trained method in one file: its tensors, and everything that is needed to build it, as safetensors.

A run's folder holds the same in ``config.yaml``, ``result.json`` and ``method.safetensors``; this is for others.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from dapg.core.errors import DapgError, WeightsError
from dapg.core.files import atomic_path
from dapg.core.scales import Stage
from dapg.core.settings import from_dict, to_dict
from dapg.core.types import JsonObject
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import FOLDERS, method_class, untrained_method
from dapg.models.weights._weight_files import METADATA_KEY, METHOD_FORMAT, description, read
from dapg.models.weights.addresses import Card
from dapg.models.weights.backbone_weights import backbone_by, describe


@dataclass(frozen=True)
class MethodFile:
    """What a file of a method holds."""

    method: Method
    """In evaluation mode on the CPU."""
    card: Card
    sha256: str


def save_method(method: Method, path: Path | str, card: Card, half: bool = False) -> None:
    """Write a method; equal content gives equal bytes. ``half`` stores matrices and convolutions in float16."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(describe_method(method, card), sort_keys=True)})


def describe_method(method: Method, card: Card) -> JsonObject:
    """What the file says beside its tensors."""
    stage, name = _place(method)
    about = {
        "stage": stage,
        "name": name,
        "method": to_dict(method.settings),
        "pictures": method.facts.pictures,
        "persons": list(method.facts.persons),
        "input": list(method.input_size),
        "feature": method.headline,
        "card": to_dict(card),
    }
    return {"format": METHOD_FORMAT, **describe(method.backbone, about)}


def is_method_file(path: Path) -> bool:
    """Whether a file is one of ``save_method``; its tensors are not read.

    Raises:
        WeightsError: it is damaged.
    """
    stated = description(path)
    return stated is not None and stated["format"] == METHOD_FORMAT


def read_method(path: Path | str) -> MethodFile:
    """The method that a file of ``save_method`` holds.

    Raises:
        WeightsError: another kind of file, a damaged one, or one of another version.
    """
    content = read(Path(path))
    if content.metadata is None or content.metadata.get("format") != METHOD_FORMAT:
        raise WeightsError(f"{path} does not hold a trained method")
    about = content.metadata["metadata"]
    try:
        backbone = backbone_by(content.metadata, str(path))
        facts = DataFacts(about["pictures"], tuple(about["persons"]))
        method = untrained_method(about["stage"], about["name"], about["method"], backbone, facts)
        method.load_state_dict(content.tensors)
        card = from_dict(Card, about["card"], "card.")
    except (DapgError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} does not hold the method that it says it does: {reason}") from error
    return MethodFile(method.eval().requires_grad_(False), card, content.sha256)


def _place(method: Method) -> tuple[Stage, str]:
    """Stage and name by which the plug-in is loaded."""
    name = type(method).__module__.rsplit(".", 1)[-1]
    for stage in FOLDERS:
        try:
            if method_class(stage, name) is type(method):
                return stage, name
        except DapgError:
            continue
    raise WeightsError(f"{type(method).__name__} is no plug-in, so that nobody could read its file")
