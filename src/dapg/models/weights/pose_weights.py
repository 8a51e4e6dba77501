"""Files of trained pose generators: the weights, the network they belong to, and what they were trained on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dapg.core.errors import UsageError, WeightsError
from dapg.core.files import ASSETS, atomic_path, sha256
from dapg.core.ranges import Pixels
from dapg.core.schema import checked, parse_json, said
from dapg.core.settings import from_dict, to_dict
from dapg.core.types import JsonObject
from dapg.models.pn_gan import GeneratorConfig, PoseGenerator, build_generator

EMBEDDED = ASSETS / "weights" / "pn_gan_tiny.safetensors"
"""Where the package's own generator lies (``scripts/embed_pose_generator.py`` puts it there)."""
GENERATOR_FILE = "generator.safetensors"
"""What a finished GAN training leaves."""
_FORMAT = "dapg-pose-generator-1"
_KEY = "dapg"


class _Description(TypedDict):
    """What a file says of its generator."""

    config: dict[str, object]
    height: Pixels
    width: Pixels
    supervision: str
    training: dict[str, object]


@dataclass(frozen=True)
class GeneratorFacts:
    """What a generator's file says about it."""

    height: int
    """Rows it was trained at."""
    width: int
    """Columns it was trained at."""
    supervision: str
    """What its pairs came from: labels (identities), synthetic (exact), groups (pseudo-persons) or self (no labels)."""
    training: JsonObject
    """Data, steps, seeds: plain values for cards and reports."""
    sha256: str = ""
    """Of the file."""

    @property
    def saw_identities(self) -> bool:
        """Whether identity labels of real people entered through its pairs."""
        return self.supervision == "labels"


def save_generator(generator: PoseGenerator, path: Path | str, facts: GeneratorFacts, half: bool = False) -> None:
    """Write a generator as safetensors; ``half`` stores the weights in float16."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    about = {key: value for key, value in to_dict(facts).items() if key != "sha256"}
    described = json.dumps({"format": _FORMAT, "config": to_dict(generator.config), **about}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: described})


def load_generator(source: Path | str = "embedded") -> tuple[PoseGenerator, GeneratorFacts]:
    """A generator in evaluation mode on the CPU, in float32, and what its file says.

    Args:
        source: ``embedded``, a file, or the folder of a finished GAN training.

    Raises:
        UsageError: nothing of that name.
        WeightsError: damaged, or not the file of a generator.
    """
    path = EMBEDDED if str(source) == "embedded" else Path(source)
    if path == EMBEDDED and not path.is_file():
        raise UsageError(
            "this version ships no trained generator: train one "
            "(dapg pose train --preset tiny, docs/explanation/pose-gan.md) and give its folder"
        )
    if path.is_dir():
        path = path / GENERATOR_FILE
    if not path.is_file():
        raise UsageError(
            f"no generator at {path}: give embedded, a file, or the folder of a finished `dapg pose train`"
        )
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # whatever safetensors raises for a damaged file
        raise WeightsError(f"{path} cannot be read as safetensors ({said(error)})") from error
    described = checked(parse_json(metadata.get(_KEY, "{}"), path), JsonObject, path)
    if described.get("format") != _FORMAT:
        raise WeightsError(f"{path} is not the file of a pose generator: it does not say {_FORMAT}")
    checked(described, _Description, path)
    generator = build_generator(from_dict(GeneratorConfig, described["config"], f"{path}: "))
    _fill(generator, tensors, path)
    facts = GeneratorFacts(
        described["height"], described["width"], described["supervision"], described["training"], sha256(path)
    )
    return generator.eval().requires_grad_(False), facts


def _fill(generator: PoseGenerator, tensors: dict[str, Tensor], path: Path) -> None:
    if any(not bool(tensor.float().isfinite().all()) for tensor in tensors.values()):
        raise WeightsError(f"{path} holds values that are not finite; the file is of no use")
    try:
        generator.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the network it names: {said(error)}") from error
