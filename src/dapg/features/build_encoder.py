"""An encoder by what the user names."""

from pathlib import Path

import torch

from dapg.core.errors import UsageError, WeightsError
from dapg.core.run_folder import CONFIG
from dapg.core.seeds import derive_seed
from dapg.core.settings import from_dict
from dapg.core.train_config import BackboneConfig
from dapg.features.encoders import BackboneEncoder, Encoder, HistogramEncoder, MethodEncoder
from dapg.features.onnx_encoder import OnnxEncoder
from dapg.methods.method_files import is_method_file, read_method
from dapg.methods.published import load_published
from dapg.methods.runs import METHOD_WEIGHTS, backbone_settings, load_method
from dapg.models.weights._weight_files import description
from dapg.models.weights.addresses import Card, locate
from dapg.models.weights.agw_checkpoints import is_published
from dapg.models.weights.backbone_weights import HUB_FILE, backbone_from_file, init_backbone

BUILT_IN = ("histogram", "random", "imagenet")
"""Encoders that need no file of the user's."""


def build_encoder(
    model: str,
    backbone: BackboneConfig | None,
    input_size: tuple[int, int],
    seed: int,
    device: torch.device,
    believe: bool = True,
) -> Encoder:
    """An encoder by what the user names: one of ``BUILT_IN``, or whatever ``models/weights/addresses.py`` locates.

    Args:
        model: the name, path or address; nothing is downloaded here.
        backbone: the network to fill; None, or settings that nobody changed: the one that the file says it holds, with
            its input size, or a ResNet-50 where it says nothing.
        input_size: (height, width) where the model has none of its own.
        seed: of random weights.
        device: where it runs.
        believe: take settings that nobody changed for none.

    Raises:
        UsageError: nothing of that name, or a folder that is no finished run.
        WeightsError: a file that does not fit the backbone.
    """
    if model == "histogram":
        return HistogramEncoder(input_size, device)
    if model not in BUILT_IN:
        path = locate(model).path
        if path.is_dir():
            if (path / CONFIG).exists() or not (path / HUB_FILE).exists():
                return MethodEncoder(load_method(path), device)
            path = path / HUB_FILE
        if path.suffix == ".onnx":
            return OnnxEncoder(path)
        if is_method_file(path):
            return MethodEncoder(read_method(path).method, device)
        if is_published(path):
            return MethodEncoder(load_published(path), device)
        stated = description(path)
        if stated is not None and (backbone is None or (believe and backbone == BackboneConfig())):
            height, width = stated["metadata"].get("input", input_size)
            return BackboneEncoder(backbone_from_file(path)[0], (height, width), device)
        model = str(path)
    backbone = backbone or BackboneConfig()
    network, _ = init_backbone(backbone.name, backbone_settings(backbone), model, derive_seed("weights", seed))
    return BackboneEncoder(network, input_size, device)


def weights_file(model: str) -> Path | None:
    """The file that ``model`` gets its weights from; None for what is built in, or what is gone.

    Raises:
        WeightsError: it has another hash than it should have.
    """
    if model in BUILT_IN:
        return None
    try:
        path = locate(model).path
    except UsageError:
        return None
    names = ((METHOD_WEIGHTS,) if (path / CONFIG).exists() else (HUB_FILE,)) if path.is_dir() else ("",)
    return next((path / name for name in names if (path / name).is_file()), None)


def card_of(path: Path) -> Card:
    """The card inside a file of ours or of a folder in the hub's layout; an empty one for everything else.

    Raises:
        WeightsError: the file is damaged.
    """
    stated = (
        description(path / HUB_FILE if path.is_dir() else path)
        if (path / HUB_FILE).exists() or path.is_file()
        else None
    )
    card = (stated or {}).get("metadata", {}).get("card", {})
    if not isinstance(card, dict):
        raise WeightsError(f"{path}: its card is damaged")
    return from_dict(Card, card, "card.")
