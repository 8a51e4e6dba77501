"""ONNX files: images to unit features, one file for each kind of light, checked in onnxruntime; and int8 copies.

A file takes any number of images. Its metadata (key ``dapg``) says how they are prepared and which feature comes out.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg import __version__
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import atomic_path
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise, to_float
from dapg.core.rng import generator_from
from dapg.core.types import JsonObject, Modality
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.onnx_encoder import ANY_LIGHT, FORMAT, METADATA, session_of
from dapg.methods.base import Method
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool

ONNX_TOLERANCE = 1e-4
"""Largest difference of a value of a unit feature between torch and onnxruntime."""
CALIBRATION = 64
"""Training images of each kind of light by which int8 chooses its ranges."""
InputRange = Literal["unit", "imagenet"]


def require_onnx(int8: bool) -> None:
    """What ONNX files need, asked for before anything is written.

    Raises:
        UsageError: a package of the extra ``onnx`` is missing.
    """
    try:
        import onnx  # noqa: F401 - what quantisation asks for
        import onnxruntime
        import onnxscript  # noqa: F401 - what torch's exporter asks for

        if int8:
            import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs the extra `onnx` ({error}): pip install 'dapg[onnx]'") from error


class FeatureNetwork(nn.Module):
    """Images in [0, 1] to unit features: normalisation, network, pooling.

    Args:
        network: a backbone, whose map is averaged, or a trained method, whose headline feature is taken.
        modality: of all images; it chooses the stem of a method that has two.
        taken: ``unit``: images in [0, 1]; ``imagenet``: images that are normalised by ImageNet's mean and deviation
            already, as other programs feed their networks.
    """

    def __init__(
        self, network: Backbone | Method, modality: Modality = Modality.VISIBLE, taken: InputRange = "unit"
    ) -> None:
        super().__init__()
        self.network, self.modality, self.taken = network, modality, taken
        backbone = network if isinstance(network, Backbone) else network.backbone
        self.feature = "backbone" if isinstance(network, Backbone) else network.headline
        given = (IMAGENET_MEAN, IMAGENET_STD) if taken == "imagenet" else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("shift", _channels(backbone.mean) - _channels(given[0]))
        self.register_buffer("scale", _channels(backbone.std))
        self.register_buffer("given_scale", _channels(given[1]))

    shift: Tensor
    scale: Tensor
    given_scale: Tensor

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Features as ``dapg evaluate`` scores them."""
        normalised = (images * self.given_scale - self.shift) / self.scale
        if isinstance(self.network, Backbone):
            return functional.normalize(average_pool(self.network(normalised)))
        return self.network.encode(normalised, self.modality)[self.feature]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks about their own parts, which tell the user nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _channels(values: Sequence[float]) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values).view(3, 1, 1)


def write_onnx(network: FeatureNetwork, size: tuple[int, int], path: Path, facts: JsonObject) -> None:
    """Write one file with the weights inside; ``facts`` join its metadata."""
    shared = isinstance(network.network, Backbone)
    about = {
        "format": FORMAT,
        "dapg_version": __version__,
        "modality": ANY_LIGHT if shared else network.modality.name.lower(),
        "feature": network.feature,
        "input": {
            "height": size[0],
            "width": size[1],
            "channels": "RGB",
            "layout": "NCHW",
            "resize": "bilinear with antialiasing",
            "values": "[0, 1]" if network.taken == "unit" else "[0, 1], then minus ImageNet's mean, by its deviation",
            "normalised": network.taken,
        },
        **facts,
    }
    batch = {"images": {0: torch.export.Dim("batch", min=1)}}
    with atomic_path(path) as temporary, _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            (torch.rand(2, 3, *size),),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=batch,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props[METADATA] = json.dumps(about, sort_keys=True)
        program.save(str(temporary), external_data=False)


@torch.no_grad()
def onnx_difference(network: FeatureNetwork, size: tuple[int, int], path: Path) -> float:
    """Largest difference of a feature value between torch and onnxruntime, over batches of three and of one.

    Raises:
        DapgError: it is more than ``ONNX_TOLERANCE``.
    """
    session, worst = session_of(path), 0.0
    images = torch.rand(3, 3, *size, generator=generator_from("export check"))
    if network.taken == "imagenet":
        images = normalise(images)
    for count in (3, 1):
        expected = network.eval()(images[:count]).numpy()
        worst = max(worst, float(np.abs(session.run(None, {"images": images[:count].numpy()})[0] - expected).max()))
    if not worst <= ONNX_TOLERANCE:
        raise DapgError(f"{path} was written, but its features differ by {worst:.2g} from torch's: do not use it")
    return worst


def write_int8(source: Path, path: Path, batches: Iterator[Float[Tensor, "B 3 H W"]]) -> None:
    """A copy in 8-bit integers by onnxruntime's static quantisation, its ranges chosen from ``batches`` of images.

    The first convolution and depthwise ones stay in floating point: their channels differ too much to share a range.
    Weights take seven bits, as sums of products of eight overflow on processors without VNNI.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(batches, None)
            return None if images is None else {"images": images.numpy()}

    with atomic_path(path) as temporary, _quiet():
        quantize_static(
            str(source),
            str(temporary),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_sensitive(source),
        )


def _sensitive(path: Path) -> list[str]:
    """Names of the first convolution and of those with groups."""
    import onnx

    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    grouped = [node for node in convolutions if any(part.name == "group" and part.i > 1 for part in node.attribute)]
    return [str(node.name) for node in (*convolutions[:1], *grouped)]


def calibration_images(
    dataset: Dataset,
    split: str,
    modality: Modality,
    size: tuple[int, int],
    taken: InputRange,
    unreadable: dict[str, str] | None = None,
) -> Iterator[Float[Tensor, "1 3 H W"]]:
    """Training images of one kind of light, drawn once; of the other kind where there is none of it.

    ``unreadable`` takes those that cannot be read.

    Raises:
        DataError: an image cannot be read, and there is no ``unreadable``.
    """
    records = dataset.records(split or dataset.splits[0])
    chosen = [record for record in records if record.modality == modality] or list(records)
    order = torch.randperm(len(chosen), generator=generator_from("calibration"))[:CALIBRATION]
    height, width = size
    config = LoaderConfig(height=height, width=width, workers=0)
    skip = unreadable is not None
    for batch in ordered_batches(dataset, [chosen[row] for row in order.tolist()], 1, config, skip=skip):
        if unreadable is not None and batch.bad_images:
            unreadable |= {bad.name: bad.reason for bad in batch.bad_images}
            continue
        images = to_float(batch.images)
        yield normalise(images) if taken == "imagenet" else images
