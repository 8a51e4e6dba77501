"""An encoder by what the user names."""

from pathlib import Path

import torch

from dapg.core.seeds import derive_seed
from dapg.core.training import BackboneConfig
from dapg.features.encoders import BackboneEncoder, Encoder, HistogramEncoder, MethodEncoder
from dapg.methods.published import load_published
from dapg.methods.runs import backbone_settings, load_method
from dapg.models.weights.agw_checkpoints import is_published
from dapg.models.weights.backbone_weights import init_backbone


def build_encoder(
    model: str, backbone: BackboneConfig, input_size: tuple[int, int], seed: int, device: torch.device
) -> Encoder:
    """An encoder by what the user names: a run's folder, ``histogram``, ``random``, ``imagenet`` or a weights file.

    Raises:
        UsageError: a folder that is no finished run.
        WeightsError: a file that does not fit the backbone.
    """
    if model == "histogram":
        return HistogramEncoder(input_size, device)
    if Path(model).is_dir():
        return MethodEncoder(load_method(Path(model)), device)
    if Path(model).is_file() and is_published(model):
        return MethodEncoder(load_published(model), device)
    network, _ = init_backbone(backbone.name, backbone_settings(backbone), model, derive_seed("weights", seed))
    return BackboneEncoder(network, input_size, device)
