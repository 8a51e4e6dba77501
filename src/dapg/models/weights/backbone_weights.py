"""Weights of backbones: start from nothing, ImageNet, a file or a run; read every common layout; say what was taken."""

import hashlib
import io
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dapg.core.errors import UsageError, WeightsError, nearest
from dapg.core.files import ASSETS, atomic_path, atomic_write_bytes, sha256, write_json
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.core.rng import generator_from
from dapg.core.run_folder import CONFIG, RESULT
from dapg.core.settings import from_dict, to_dict, to_plain
from dapg.core.types import JsonObject
from dapg.models.backbones._by_name import backbone_class
from dapg.models.backbones.base import Backbone
from dapg.models.weights._weight_files import BACKBONE_FORMAT, COMPANION_FORMAT, METADATA_KEY, Content, read, some
from dapg.models.weights.addresses import is_address, locate, zoo

Triple = tuple[float, float, float]

REQUIRED_SHARE = 0.9
"""A file that fills less of a backbone than this is refused."""
BACKBONE_FILE = "backbone.safetensors"
"""What a finished training run leaves for the next stage."""
HUB_FILE = "model.safetensors"
"""The same in an exported folder, under the name that model hubs look for."""

KNOWN_NORMALISATION: dict[str, tuple[str, Triple, Triple]] = {
    "lup_moco_r50": ("LUPerson's", (0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)),
    "lupws_r50": ("LUPerson-NL's", (0.3452, 0.3070, 0.3114), (0.2633, 0.2500, 0.2480)),
}
"""Released files that do not state their normalisation: beginning of the name, whose, mean, std (training scripts of
DengpanFu/LUPerson, entry "lup", and DengpanFu/LUPerson-NL)."""

_SMALL = 4096
"""Values of a convolution below which float16 saves nothing. The first blocks of ImageNet's MobileNetV2 have channels
whose mean is a hundred times their deviation; rounding their weights alone moves the pooled features by 1 %, and all
rounding without them by 0.1 %."""
_EMBEDDED = {"mobilenet_v2": "mobilenet_v2_imagenet.safetensors"}
_TORCHVISION = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-19c8e357.pth",
}
_COPIES = ("encoder_k", "momentum", "teacher", "ema")
"""Words in the names of averaged copies, which are taken only where the file holds no trained network beside them."""


@dataclass(frozen=True)
class WeightsReport:
    """What a file gave to a backbone. Counts leave out ``num_batches_tracked``, which older files do not have."""

    source: str
    """Path of the file, or ``embedded``."""
    layout: str
    """How its tensors were named."""
    sha256: str
    """Of the whole file."""
    matched: tuple[str, ...]
    """Backbone tensors that were filled."""
    missing: tuple[str, ...]
    """Backbone tensors that keep their first, random values."""
    left_over: tuple[str, ...]
    """Tensors of the file, under its own names, that the backbone has no place for."""
    mean: Triple
    """Per-channel mean that belongs to the weights."""
    std: Triple
    """Per-channel deviation that belongs to the weights."""
    normalisation: str
    """Where mean and deviation come from."""
    metadata: JsonObject = field(default_factory=dict)
    """What the writer said about the weights: method, recipe hash and so on."""

    def record(self) -> JsonObject:
        """Plain values for a run's result: counts of what was taken, names of what was not."""
        return {**to_dict(self), "matched": len(self.matched)}

    def summary(self) -> str:
        """One line for the log."""
        share = f"{len(self.matched)} of {len(self.matched) + len(self.missing)} tensors"
        missing = f", missing {some(self.missing)}" if self.missing else ""
        extra = f", {len(self.left_over)} left over" if self.left_over else ""
        return f"{self.source}: {share} ({self.layout}){missing}{extra}; normalisation: {self.normalisation}"


def init_backbone(
    name: str, config: Backbone.Config | Mapping[str, object] | None, init: str, seed: int
) -> tuple[Backbone, WeightsReport | None]:
    """A backbone by name with its first weights, and what a file gave to it (None for random ones).

    Args:
        name: a file of ``models/backbones``.
        config: its settings, as its ``Config``, as plain values, or None for the defaults.
        init: ``random``; ``imagenet`` (shipped for mobilenet_v2); the path of a weights file; or the folder of a
            finished run.
        seed: of random weights, which also stand where a file has none.

    Raises:
        UsageError: unknown name or setting, or no ImageNet weights for this network.
        WeightsError: the file is missing, damaged, or does not fit.
    """
    kind = backbone_class(name)
    if not isinstance(config, Backbone.Config):
        config = from_dict(kind.Config, dict(config or {}), f"{name}: ")
    backbone = kind(config, generator_from("backbone", name, seed))
    if init == "random":
        return backbone, None
    if init == "imagenet":
        path = _embedded(name)
        return backbone, _fill(backbone, read(path), path, "embedded")
    return backbone, load_backbone(backbone, init)


def _embedded(name: str) -> Path:
    if name not in _EMBEDDED:
        published = _TORCHVISION.get(name)
        where = f", for example torchvision's {published} (IMAGENET1K_V1, the weights of the published results)"
        raise UsageError(
            f"ImageNet weights of {name} are not shipped (those of {', '.join(_EMBEDDED)} are): give the path of a "
            f"file{where if published else ''} as init"
        )
    return ASSETS / "weights" / _EMBEDDED[name]


def load_backbone(backbone: Backbone, path: Path | str) -> WeightsReport:
    """Fill a backbone, in place, from a weights file or the folder of a finished run; its mean and std are set too.

    Understood are our own safetensors, and safetensors or torch files that hold a state dict: flat (torchvision,
    LUPerson), wrapped in ``state_dict``, ``model`` and the like, and with any owners such as
    ``module.encoder_q.`` (MoCo) or ``backbone.`` (fast-reid) before the names. Classifiers, heads and queues are left
    over. Nothing is changed when an error is raised.

    Raises:
        WeightsError: no such file; not a weights file, damaged or refused; less than 90 % of the backbone's tensors
            are there in the right shape; another architecture; values that are not finite.
    """
    file = _find(path)
    return _fill(backbone, read(file), file, str(file))


def weights_hash(init: str) -> str | None:
    """SHA-256 of the file that an ``init`` (as in ``init_backbone``) names now.

    None where it names no file of a run (``random``, ``imagenet``), or the file is gone or being made again.
    """
    if init in ("random", "imagenet"):
        return None
    try:
        return sha256(_find(init))
    except (UsageError, WeightsError):
        return None


def backbone_from_file(path: Path | str) -> tuple[Backbone, WeightsReport]:
    """The backbone that a file written by ``save_backbone`` holds, built from what the file says about itself.

    Raises:
        WeightsError: another kind of file, or a damaged one.
    """
    file = _find(path)
    content = read(file)
    if content.metadata is None:
        raise WeightsError(f"{file} does not say which network it holds: fill one you name (init_backbone)")
    backbone = backbone_by(content.metadata, str(file))
    return backbone, _fill(backbone, content, file, str(file))


def backbone_by(description: JsonObject, source: str) -> Backbone:
    """The network that a file of ours describes, with its mean and std, and weights that are about to be loaded.

    Raises:
        WeightsError: no such network, or not with these settings.
    """
    try:
        backbone, _ = init_backbone(description["architecture"], description["config"], "random", 0)
    except (UsageError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{source} says it holds a network that cannot be built here: {error}") from error
    backbone.mean, backbone.std = (
        _triple(description["mean"], Path(source)),
        _deviations(description["std"], Path(source)),
    )
    return backbone


def save_backbone(
    backbone: Backbone, path: Path | str, metadata: Mapping[str, object] | None = None, half: bool = False
) -> None:
    """Write a backbone as safetensors: tensors under torchvision's names, and what they are.

    The file says architecture, settings, mean and std; ``metadata`` (plain values: recipe hash, method, steps) is
    stored beside them. Equal content gives equal bytes. ``half`` stores large convolutions in float16; batch norms
    and convolutions of up to 4096 values stay in float32 (see ``_SMALL``).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    if half:
        tensors = {
            name: tensor.half() if tensor.numel() > _SMALL and tensor.ndim > 1 else tensor
            for name, tensor in tensors.items()
        }
    description = {"format": BACKBONE_FORMAT, **describe(backbone, metadata)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(description, sort_keys=True)})


def export_flat(backbone: Backbone, path: Path | str, metadata: Mapping[str, object] | None = None) -> Path:
    """Write a backbone as other projects read it: a torch file with a flat dict under torchvision's names, no fc.

    The layout of the released LUPerson weights. A JSON file of the same name beside it holds what the torch file
    cannot: architecture, settings, mean, std, ``metadata`` and the torch file's hash. Returns its path.

    Raises:
        UsageError: ``path`` ends in .json, the name of the companion.
    """
    path = Path(path)
    if path.suffix == ".json":
        raise UsageError(f"{path} is the name of the description beside the weights; give a name ending in .pth")
    buffer = io.BytesIO()
    torch.save(OrderedDict((name, tensor.detach().cpu()) for name, tensor in backbone.state_dict().items()), buffer)
    companion, digest = path.with_suffix(".json"), hashlib.sha256(buffer.getvalue()).hexdigest()
    # First: a killed export takes weights that are there for whole.
    write_json(companion, {"format": COMPANION_FORMAT, "sha256": digest, **describe(backbone, metadata)})
    atomic_write_bytes(path, buffer.getvalue())
    return companion


def describe(backbone: Backbone, metadata: Mapping[str, object] | None) -> JsonObject:
    """What a file of weights says about itself: the network, its normalisation, and ``metadata`` as plain values."""
    own = {
        "architecture": backbone.architecture,
        "config": to_dict(backbone.config),
        "mean": list(backbone.mean),
        "std": list(backbone.std),
    }
    return {**own, "metadata": to_plain(dict(metadata or {}))}


def _find(source: Path | str) -> Path:
    """The weights file meant by a path: itself, or that of a finished run; an address or a name of the zoo likewise."""
    path = Path(source)
    if not path.exists() and (is_address(str(source)) or str(source) in zoo()):
        path = locate(str(source)).path
    if path.is_dir():
        if (path / CONFIG).exists() and not (path / RESULT).exists():
            raise WeightsError(f"the run in {path} is not finished: run its command again to go on")
        for name in (BACKBONE_FILE, HUB_FILE):
            if (path / name).is_file():
                return path / name
        raise WeightsError(
            f"{path} holds no {BACKBONE_FILE} and no {HUB_FILE}: it is neither the folder of a finished training run "
            "nor an exported one"
        )
    if not path.exists():
        hint = nearest(str(path), ["random", "imagenet"])
        raise WeightsError(
            f"{path}: no such file{hint}; first weights are random, imagenet, a weights file, a finished run's folder, "
            "a name of the zoo or an address (`dapg weights`)"
        )
    return path


def _fill(backbone: Backbone, content: Content, path: Path, source: str) -> WeightsReport:
    expected = backbone.state_dict()
    if content.metadata is not None:
        _same_architecture(backbone, content.metadata, source)
    best = _fit(backbone, content, source)
    counted = [name for name in expected if not name.endswith("num_batches_tracked")]
    matched = [name for name in counted if name in best.fitting]
    if len(matched) < REQUIRED_SHARE * len(counted):
        raise WeightsError(_refusal(backbone, best, matched, counted, content, source))
    for name, tensor in best.fitting.items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise WeightsError(f"{source}: {name} holds values that are not finite; the file is of no use")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsError(f"{source}: {name} holds a negative variance; the file is of no use")
    mean, std, normalisation = _normalisation(content, path)
    with torch.no_grad():
        for name, tensor in best.fitting.items():
            expected[name].copy_(tensor)  # state_dict shares memory with the network
    backbone.mean, backbone.std = mean, std
    used = {best.file_names[name] for name in best.fitting} | best.converted
    return WeightsReport(
        source=source,
        layout=best.layout,
        sha256=content.sha256,
        matched=tuple(matched),
        missing=tuple(name for name in counted if name not in best.fitting),
        left_over=tuple(name for name in content.tensors if name not in used),
        mean=mean,
        std=std,
        normalisation=normalisation,
        metadata=dict((content.metadata or {}).get("metadata", {})),
    )


@dataclass(frozen=True)
class _Fit:
    """Tensors that fit a network under one way to read the file's names."""

    layout: str
    fitting: dict[str, Tensor]
    file_names: dict[str, str]
    other_shape: dict[str, tuple[int, ...]]
    converted: frozenset[str]
    """Names in the file of what was renamed or made into something else."""


def _fit(backbone: Backbone, content: Content, source: str) -> _Fit:
    """The reading of the file's names that fills most of the network; the earlier one wins a draw."""
    if any("visible_module.visible." in name for name in content.tensors):
        raise WeightsError(
            f"{source} is a fine-tuned AGW network (two stems and three copies of a ResNet-50), not a backbone, which "
            "has one stem: score it as it is with `dapg evaluate FILE`"
        )
    readings = [_reading(backbone, content, prefix) for prefix in _prefixes(backbone.state_dict(), content)]
    return max(readings, key=lambda reading: (len(reading.fitting), len(reading.other_shape)))


def _prefixes(expected: Mapping[str, Tensor], content: Content) -> list[str]:
    """What stands before the names: nothing, or owners such as ``module.encoder_q.``; trained networks first."""
    first = next(iter(expected))
    ends = {first, "0.weight", "features.0.0.weight"}  # as named here, in a row of numbers, and as in MobileNetV2
    owners = {name.removesuffix(end) for name in content.tensors for end in ends if name.endswith(f".{end}")}
    plain = sorted(owners, key=lambda owner: (any(word in owner for word in _COPIES), len(owner), owner))
    return ["", *plain]


def _reading(backbone: Backbone, content: Content, prefix: str) -> _Fit:
    names = {name[len(prefix) :]: name for name in content.tensors if name.startswith(prefix)}
    renamed = _rename_sequential(_rename_mobilenet(names))
    converted = backbone.convert({name: content.tensors[there] for name, there in names.items()})
    fitting, other_shape = {}, {}
    for name, tensor in backbone.state_dict().items():
        if name not in renamed and name not in converted.tensors:
            continue
        candidate = converted.tensors[name] if name in converted.tensors else content.tensors[renamed[name]]
        if candidate.shape != tensor.shape or candidate.is_floating_point() != tensor.is_floating_point():
            other_shape[name] = tuple(candidate.shape)
        else:
            fitting[name] = candidate
    layout = _layout(
        content, prefix, renamed is not names, any(name.startswith(("fc.", "classifier.")) for name in names)
    )
    if converted.words:
        layout += f"; {converted.words}"
    own = {**dict.fromkeys(converted.tensors, ""), **renamed}
    return _Fit(layout, fitting, own, other_shape, frozenset(names[name] for name in converted.used))


def _layout(content: Content, prefix: str, renamed: bool, classifier: bool) -> str:
    """A readable name of the layout."""
    if content.metadata is not None:
        return "dapg"
    if renamed:
        return "layers numbered in one row"
    if prefix.endswith("encoder_q."):
        kind = "MoCo"
    elif prefix.endswith("backbone.") and content.wrapper == "model":
        kind = "fast-reid"
    elif not prefix and not content.wrapper:
        return "torchvision" if classifier else "flat, without classifier (as LUPerson)"
    else:
        kind = "state dict"
    return f"{kind} ({', '.join(part for part in (content.wrapper, prefix) if part)})"


_NUMBERED = re.compile(r"features\.(\d+)\.conv\.(\d+)\.(\w+)")


def _rename_mobilenet(names: dict[str, str]) -> dict[str, str]:
    """Names of tonylins' MobileNetV2 (conv.0 ... conv.7 of a block in one row) as torchvision's (nested by layer)."""
    if "features.1.conv.3.weight" not in names:  # torchvision's block 1 ends at conv.2
        return names
    renamed = {}
    for name, original in names.items():
        match = _NUMBERED.fullmatch(name)
        if match is None:
            renamed[name] = original
            continue
        block, layer, kind = match.groups()
        widens = f"features.{block}.conv.6.weight" in names
        places = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
        if not widens:
            places = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
        renamed[f"features.{block}.conv.{places.get(layer, layer)}.{kind}"] = original
    return renamed


_ROW = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Places of a ResNet's parts in ``nn.Sequential(*resnet.children())``, as lightly and others wrap it."""


def _rename_sequential(names: dict[str, str]) -> dict[str, str]:
    """A ResNet's parts by number as torchvision's by name."""
    if "0.weight" not in names or "4.0.conv1.weight" not in names:
        return names
    parts = {name: name.partition(".") for name in names}
    return {f"{_ROW.get(head, head)}.{tail}": names[name] for name, (head, _, tail) in parts.items()}


def _same_architecture(backbone: Backbone, metadata: Mapping[str, object], source: str) -> None:
    mine, theirs = backbone.architecture, metadata.get("architecture")
    if mine != theirs:
        raise WeightsError(f"{source} holds a {theirs}, the network to fill is a {mine}")


def _refusal(
    backbone: Backbone, best: _Fit, matched: list[str], counted: list[str], content: Content, source: str
) -> str:
    parts = [f"{source} fills only {len(matched)} of {len(counted)} tensors of {backbone.architecture}"]
    expected = backbone.state_dict()
    wrong = [f"{name}: {shape} there, {tuple(expected[name].shape)} here" for name, shape in best.other_shape.items()]
    if wrong:
        parts.append(f"of another shape or kind are {some(wrong)}")
    absent = [name for name in counted if name not in best.fitting and name not in best.other_shape]
    if absent:
        parts.append(f"missing are {some(absent)}")
    used = {best.file_names[name] for name in (*best.fitting, *best.other_shape)}
    others = [name for name in content.tensors if name not in used]
    if others:
        parts.append(f"the file also holds {some(others)}")
    return "; ".join(parts)


def _normalisation(content: Content, path: Path) -> tuple[Triple, Triple, str]:
    """Mean and deviation that belong to the weights, and who says so."""
    if content.metadata is not None:
        return (
            _triple(content.metadata["mean"], path),
            _deviations(content.metadata["std"], path),
            "stated with the weights",
        )
    stored = {
        name: content.tensors.get(name, content.tensors.get(f"module.{name}")) for name in ("pixel_mean", "pixel_std")
    }
    mean, std = stored["pixel_mean"], stored["pixel_std"]
    if mean is not None and std is not None and mean.numel() == std.numel() == 3:
        if mean.is_complex() or std.is_complex():
            raise WeightsError(f"{path}: pixel_mean and pixel_std are complex numbers; the file is of no use")
        scale = 255.0 if float(std.max()) > 2 else 1.0
        return (
            _triple((mean.double().flatten() / scale).tolist(), path),
            _deviations((std.double().flatten() / scale).tolist(), path),
            "pixel_mean and pixel_std of the file",
        )
    for name, (whose, known_mean, known_std) in KNOWN_NORMALISATION.items():
        if path.stem.startswith(name):
            return known_mean, known_std, f"{whose}, by the file's name"
    return IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, as the file states none"


def _triple(values: object, path: Path) -> Triple:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise WeightsError(f"{path}: mean and std must be three numbers each, found {values!r}")
    if not all(abs(value) < 1e6 for value in values):  # NaN is not, and neither is a number of 400 digits
        raise WeightsError(f"{path}: mean and std must be finite numbers of a usual size")
    return float(values[0]), float(values[1]), float(values[2])


def _deviations(values: object, path: Path) -> Triple:
    deviations = _triple(values, path)
    if min(deviations) <= 0:
        raise WeightsError(f"{path}: a deviation per channel must be above 0, found {deviations}")
    return deviations
