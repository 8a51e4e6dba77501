"""An exported network as an encoder, run by onnxruntime: what a file gives is scored like anything else."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.core.errors import UsageError, WeightsError
from dapg.core.images import normalise, to_float
from dapg.core.types import JsonObject, Modality

FORMAT, METADATA = "dapg onnx 1", "dapg"
"""What a file says it is, and under which key of its metadata."""
ANY_LIGHT = "any"
"""Modality of a network without a second stem."""


class OnnxEncoder:
    """One file for both kinds of light, or the one for visible and its neighbour for infrared images."""

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        """Open a file, whichever of the two it is.

        Raises:
            UsageError: onnxruntime is missing, or the other file is.
            WeightsError: not a file that ``dapg export`` wrote, or a damaged one.
        """
        about = description_of(session_of(path), path)
        self.headline = str(about["feature"])
        self.input_size = int(about["input"]["height"]), int(about["input"]["width"])
        self._normalised = about["input"]["normalised"] == "imagenet"
        self._sessions: dict[Modality, Any] = {}
        for modality in Modality:
            light = about["modality"]
            name = path.name if light == ANY_LIGHT else path.name.replace(light, modality.name.lower(), 1)
            if not path.with_name(name).is_file():
                raise UsageError(f"{path} is for {light} images; {name} beside it is missing")
            self._sessions[modality] = session_of(path.with_name(name))

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """The one feature that was exported."""
        batch = to_float(images)
        given = normalise(batch) if self._normalised else batch
        (features,) = self._sessions[modality].run(None, {"images": given.numpy()})
        return {self.headline: torch.from_numpy(features)}


def session_of(path: Path) -> Any:
    """An onnxruntime session on the CPU.

    Raises:
        UsageError: onnxruntime is missing.
        WeightsError: not an ONNX file, or a damaged one.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("an ONNX file needs the extra `onnx`: pip install 'dapg[onnx]'") from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds
        raise WeightsError(f"{path} cannot be opened by onnxruntime: {' '.join(str(error).split())[:200]}") from error


def description_of(session: Any, path: Path) -> JsonObject:
    """What a file of ours says about itself.

    Raises:
        WeightsError: it was not written by ``dapg export``.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA, "{}")
    try:
        about = json.loads(text)
        whole = about["format"] == FORMAT and {"feature", "modality", "input"} <= set(about)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise WeightsError(f"{path} does not say how images are prepared for it: it was not written by dapg export")
    return dict(about)
