"""Checkpoints of the published AGW and CAJ code: three copies of the backbone under its names, read and written.

Source of the layout: mangye16/Cross-Modal-Re-ID-baseline, model.py and train.py. ``visible_module.visible``,
``thermal_module.thermal`` and ``base_resnet.base`` are each a complete ResNet without classifier, of which the code
runs the stem of the first two and the stages of the third. Here names are translated and nothing else: what a state
dict means is known to ``methods/finetuning``.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dapg.core.errors import UsageError, WeightsError
from dapg.core.files import atomic_write_bytes
from dapg.models.weights._weight_files import read, some

STEM = ("conv1", "bn1")
"""Modules of a ResNet that each modality has for itself."""
_VISIBLE, _THERMAL, _SHARED = "visible_module.visible.", "thermal_module.thermal.", "base_resnet.base."
_NON_LOCAL = {"g": "g.0", "theta": "theta", "phi": "phi", "project": "W.0", "norm": "W.1"}
"""Part of a non-local block, here and there."""
_CLASSIFIER = "classifier.weight"


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a two-stream ResNet method under the published names.

    The unused parts of the three copies are filled with the weights that are in use.

    Raises:
        UsageError: the network has parts that the published one lacks (a trained GeM power, another kind of backbone).
    """
    published: dict[str, Tensor] = {}
    for name, tensor in state.items():
        published |= dict.fromkeys(_published_names(name), tensor)
    return published


def from_published(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors under the published names as the state dict that ``expected`` is an example of.

    Raises:
        WeightsError: a key is missing, unknown, or of another shape; ``num_batches_tracked`` alone may be missing, as
            files of old PyTorch versions do not have it.
    """
    wanted = to_published(expected)
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name}: {tuple(tensors[name].shape)} there, {tuple(wanted[name].shape)} expected"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{label} {some(names)}"
        for label, names in (("missing are", missing), ("unknown are", unknown), ("of another shape are", shapes))
        if names
    ]
    if problems:
        raise WeightsError(f"{source} is not the network it should be: {'; '.join(problems)}")
    infinite = [name for name, tensor in tensors.items() if not bool(tensor.float().isfinite().all())]
    if infinite:
        raise WeightsError(f"{source}: {some(infinite)} hold values that are not finite; the file is of no use")
    state = {}
    for name, example in expected.items():
        there = _used_name(name)
        state[name] = tensors[there].to(example.dtype) if there in tensors else torch.zeros_like(example)
    return state


def is_published(path: Path | str) -> bool:
    """Whether a file holds a network in this layout.

    Raises:
        WeightsError: the file cannot be read as weights at all.
    """
    return any(name.removeprefix("module.").startswith(_VISIBLE) for name in read(Path(path)).tensors)


def read_published(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.t`` or ``.pth`` file of the published code, under its names and without ``module.``.

    Raises:
        WeightsError: unreadable, damaged, holding code, or not in this layout.
    """
    content = read(Path(path))
    tensors = {name.removeprefix("module."): tensor for name, tensor in content.tensors.items()}
    if not any(name.startswith(_VISIBLE) for name in tensors) or _CLASSIFIER not in tensors:
        raise WeightsError(f"{path} is no checkpoint of the AGW or CAJ code; it holds {some(list(tensors))}")
    return tensors


def write_published(state: Mapping[str, Tensor], path: Path | str, epoch: int) -> None:
    """Write a state dict as the published code saves it: ``net`` and ``epoch``, readable with ``weights_only=True``.

    Raises:
        UsageError: see ``to_published``.
    """
    published = {name: tensor.detach().cpu() for name, tensor in to_published(state).items()}
    buffer = io.BytesIO()
    torch.save({"net": published, "epoch": epoch}, buffer)
    atomic_write_bytes(path, buffer.getvalue())


def persons(tensors: Mapping[str, Tensor]) -> int:
    """Classes that a published checkpoint was trained on: 395 SYSU-MM01, 206 RegDB, 713 LLCM."""
    return len(tensors[_CLASSIFIER])


def non_local_counts(tensors: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """Non-local blocks in each stage of a published checkpoint: (0, 2, 3, 0) for AGW and CAJ, none for base."""
    places = {tuple(map(int, hit.groups())) for name in tensors if (hit := re.match(r"NL_(\d)\.(\d+)\.", name))}
    first, second, third, fourth = (sum(stage == number for stage, _ in places) for number in (1, 2, 3, 4))
    return first, second, third, fourth


def _published_names(name: str) -> list[str]:
    """Every published name that takes its values from this tensor of ours."""
    owner, _, rest = name.partition(".")
    if owner != "backbone":
        return [_used_name(name)]
    if not re.match(r"(conv1|bn1|layer[1-4])\.", rest):
        raise UsageError(f"the published layout is for ResNets; {name} has no place in it")
    copies = (_VISIBLE, _SHARED) if _in_stem(rest) else (_VISIBLE, _THERMAL, _SHARED)
    return [copy + rest for copy in copies]


def _used_name(name: str) -> str:
    """The published name of the tensor that the published code runs where we run this one."""
    owner, _, rest = name.partition(".")
    if owner == "backbone":
        return (_VISIBLE if _in_stem(rest) else _SHARED) + rest
    if owner in ("neck", "classifier"):
        return f"bottleneck.{rest}" if owner == "neck" else name
    stem = re.fullmatch(r"infrared_stem\.(\d+)\.(\w+)", rest)
    if stem:
        return f"{_THERMAL}{STEM[int(stem[1])]}.{stem[2]}"
    block = re.fullmatch(r"non_local\.layer(\d)\.(\d+)\.(\w+)\.(\w+)", rest)
    if owner == "two_stream" and block:
        stage, place, part, kind = block.groups()
        return f"NL_{stage}.{place}.{_NON_LOCAL[part]}.{kind}"
    raise UsageError(f"the published AGW network has no place for {name}; train with the paper's settings")


def _in_stem(name: str) -> bool:
    return name.split(".", 1)[0] in STEM
