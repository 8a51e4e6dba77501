"""An encoder that can be told from others: its hash, its card, and how it comes back, as a gallery needs it."""

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from dapg.core import plugins
from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.files import sha256
from dapg.core.ranges import Pixels
from dapg.core.run_folder import CONFIG, RESULT
from dapg.core.schema import read_json
from dapg.core.settings import from_dict, read_yaml, to_dict
from dapg.core.train_config import BackboneConfig
from dapg.core.types import JsonObject, Modality
from dapg.data.base import Dataset
from dapg.features.build_encoder import BUILT_IN, build_encoder, card_of
from dapg.features.encoders import BackboneEncoder, Encoder, MethodEncoder
from dapg.methods.runs import METHOD_WEIGHTS
from dapg.models.weights.addresses import Card, locate
from dapg.models.weights.backbone_weights import HUB_FILE


@dataclass(frozen=True)
class NetworkSettings:
    """Which network turns images into features."""

    model: str = ""
    """Folder of a finished run, a name of the zoo (``dapg weights``), a weights file or its address, ``histogram``,
    ``random`` or ``imagenet``; empty: the gallery's own."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 256
    """Rows of the input, where the model does not say."""
    width: Pixels = 128
    """Columns of the input, where the model does not say."""


@dataclass(frozen=True)
class ModelCard:
    """What is stored about a network beside its features."""

    hash: str
    """SHA-256 over weights and settings: features of two hashes never meet."""
    spec: str
    """``NetworkSettings`` as JSON, to load it again."""
    name: str
    feature: str
    """Which of its features."""
    width: int
    """Numbers of the feature."""
    infrared: str
    """Kind of infrared that it has learnt from: near, thermal or unknown."""
    licence: str
    """Of the weights."""
    data_terms: str
    """Of the images that it has learnt from."""


class Network:
    """An encoder with its card: one feature of unit length for each image."""

    def __init__(self, settings: NetworkSettings, device: str = "auto") -> None:
        """Load it.

        Raises:
            UsageError: no such model.
            WeightsError: weights that do not fit.
        """
        self.settings, size = settings, (settings.height, settings.width)
        self.encoder: Encoder = build_encoder(settings.model, settings.backbone, size, 0, resolve_device(device))
        self.input_size = self.encoder.input_size
        blank = torch.zeros(1, 3, *self.input_size, dtype=torch.uint8)
        self.card = _card(settings, self.encoder, self.encode(blank, Modality.VISIBLE).shape[1])

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> Float32[np.ndarray, "B D"]:
        """Unit features of decoded images of one kind of light."""
        features = self.encoder.encode(images.to(self.encoder.device), modality)[self.encoder.headline]
        array: Float32[np.ndarray, "B D"] = functional.normalize(features.float()).cpu().numpy()
        return array

    def encode_mixed(self, images: UInt8[Tensor, "B 3 H W"], modalities: list[Modality]) -> Float16[np.ndarray, "B D"]:
        """Half-precision features, as a gallery keeps them, of images of either kind."""
        features = np.zeros((len(images), self.card.width), dtype=np.float16)
        for modality in set(modalities):
            rows = [row for row, kind in enumerate(modalities) if kind == modality]
            features[rows] = self.encode(images[rows], modality)
        return features


def load_network(card: ModelCard, device: str = "auto", moved: str = "") -> Network:
    """The network that a gallery's features come from.

    Args:
        card: as the gallery stores it.
        device: where it computes.
        moved: where the model is now, if not in its old place.

    Raises:
        UsageError: what lies there is another network.
    """
    values = json.loads(card.spec)
    network = Network(from_dict(NetworkSettings, {**values, "model": moved or values["model"]}), device)
    if network.card.hash != card.hash:
        raise UsageError(
            f"{moved or values['model']} is not the network that the gallery was made with (hash "
            f"{network.card.hash[:12]}, not {card.hash[:12]}); name that one with --model, or re-encode with "
            "dapg index --migrate"
        )
    return network


def _card(settings: NetworkSettings, encoder: Encoder, width: int) -> ModelCard:
    identity: JsonObject = {"feature": encoder.headline, "width": width}
    if settings.model in BUILT_IN:
        identity |= {"network": to_dict(settings)}
        known, name, place = Card("learnt from no image", "none", "none needed"), settings.model, settings.model
        if settings.model == "imagenet":
            known, name = Card(), f"imagenet {settings.backbone.name}"
    else:
        source = locate(settings.model)
        place = str(source.path.resolve()) if Path(settings.model).exists() else settings.model
        name = Path(settings.model).resolve().name if Path(settings.model).exists() else settings.model
        if (source.path / CONFIG).exists():
            stored, result = read_yaml(source.path / CONFIG), read_json(source.path / RESULT)
            identity |= {key: stored[key] for key in ("stage", "name", "method")}
            identity["backbone"] = {**stored["backbone"], "init": ""}  # where it once began is in the weights
            identity |= {"weights": sha256(source.path / METHOD_WEIGHTS), "mean": result["mean"], "std": result["std"]}
            known, name = _training_data(stored), f"{stored['name']} {name}"
        else:
            file = source.path / HUB_FILE if source.path.is_dir() else source.path
            identity |= {"weights": sha256(file)}
            if not isinstance(encoder, MethodEncoder):  # what such a file does not say itself
                identity |= {"network": to_dict(_effective(settings, encoder))}
            known = source.card or card_of(source.path)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    spec = json.dumps({**to_dict(settings), "model": place}, sort_keys=True)
    return ModelCard(
        digest, spec, name, encoder.headline, width, known.infrared, known.licence, f"{known.data}; {known.terms}"
    )


def _effective(settings: NetworkSettings, encoder: Encoder) -> NetworkSettings:
    """The settings of the network that was built, which a file may have stated itself."""
    if not isinstance(encoder, BackboneEncoder):
        return replace(settings, model="")
    own = encoder.backbone.config
    shared = {field.name: getattr(own, field.name) for field in fields(BackboneConfig) if hasattr(own, field.name)}
    backbone = replace(settings.backbone, name=encoder.backbone.architecture, **shared)
    return replace(settings, model="", backbone=backbone, height=encoder.input_size[0], width=encoder.input_size[1])


def thresholds_file(model: str) -> Path:
    """Where the thresholds of a model are: in the folder of a run, or beside a file.

    Raises:
        UsageError: no such model.
    """
    path = locate(model).path
    return path / "thresholds.json" if path.is_dir() else path.with_suffix(".thresholds.json")


def _training_data(stored: JsonObject) -> Card:
    """What the data set of a run says about itself."""
    try:
        kind = plugins.load("data.sets", stored["data"]["name"], Dataset)
    except (KeyError, UsageError):  # a plug-in that is not there now
        return Card()
    return Card(kind.title, kind.licence, f"as its training data allow ({kind.licence})", infrared=kind.infrared)
