"""Your own ONNX network with heat maps of COCO's 17 key points (HRNet, SimpleBaseline, ViTPose); needs dapg[onnx]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.core.errors import DataError, UsageError, WeightsError
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.key_points import KEY_POINT_NAMES, LEFT_SHOULDER, NECK, RIGHT_SHOULDER
from dapg.core.ranges import Factor, Pixels, Positive, Weight
from dapg.core.schema import said
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.pose.estimators._frame import frame, unframe
from dapg.pose.estimators.base import Estimator

if TYPE_CHECKING:
    import onnxruntime

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""Order of COCO's key points, which is the order of the maps."""
_ORDER = [COCO_NAMES.index("left_shoulder" if name == "neck" else name) for name in KEY_POINT_NAMES]


class HeatMapNetwork(Estimator):
    """Runs a graph (B, 3, h, w) -> (B, 17, h', w') and takes each map's highest place."""

    @dataclass(frozen=True)
    class Config:
        """Settings of the network."""

        model: str = ""
        """The ONNX file."""
        height: Pixels = 256
        """Rows of the input, where the graph leaves them open."""
        width: Pixels = 192
        """Columns of the input, where the graph leaves them open."""
        padding: Factor = 1.25
        """How many times the crop the input shows (HRNet and its kin: 1.25)."""
        mean: tuple[Weight, Weight, Weight] = IMAGENET_MEAN
        """Of the images in [0, 1] that the network was trained with."""
        std: tuple[Positive, Positive, Positive] = IMAGENET_STD
        """The same."""

    batch_size: ClassVar[int] = 16

    def __init__(self, config: Config, dataset: Dataset | None = None) -> None:
        super().__init__(config, dataset)
        self._session = _session(config.model)
        source = self._session.get_inputs()[0]
        if len(source.shape) != 4 or (source.shape[1] not in (3, "3", None) and not isinstance(source.shape[1], str)):
            raise WeightsError(f"{config.model}: the first input must be (B, 3, h, w), not {source.shape}")
        fixed, _, height, width = source.shape
        self._input = source.name
        self._step = fixed if isinstance(fixed, int) else 0
        self._size = (
            height if isinstance(height, int) else config.height,
            width if isinstance(width, int) else config.width,
        )

    def estimate(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"], records: Sequence[Record] = ()
    ) -> Float[Tensor, "B 18 3"]:
        """Places with a quarter pixel towards the higher neighbour; confidence: the map's height, at most 1.

        Raises:
            WeightsError: the graph's first output is not 17 maps an image.
        """
        if len(images) == 0:
            return torch.zeros(0, 18, 3)
        framed, covered = frame(images.cpu(), sizes.cpu(), self._size, self.config.padding)
        maps = self._run(normalise(framed, self.config.mean, self.config.std))
        places, heights = peaks(maps)
        points = torch.cat([unframe(places, covered), heights.clamp(0, 1)[..., None]], dim=-1)[:, _ORDER]
        points[:, NECK, :2] = points[:, [LEFT_SHOULDER, RIGHT_SHOULDER], :2].mean(dim=1)
        points[:, NECK, 2] = points[:, [LEFT_SHOULDER, RIGHT_SHOULDER], 2].amin(dim=1)
        return points

    def _run(self, inputs: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 17 a b"]:
        """All maps; a graph of fixed batch size gets its size, the last part filled up with its last image."""
        parts = []
        for part in torch.split(inputs, self._step or len(inputs)):
            short = max(self._step - len(part), 0)
            whole = torch.cat([part, part[-1:].expand(short, -1, -1, -1)]) if short else part
            maps = torch.from_numpy(self._session.run(None, {self._input: whole.numpy()})[0])
            if maps.ndim != 4 or maps.shape[:2] != (len(whole), len(COCO_NAMES)):
                raise WeightsError(
                    f"{self.config.model}: the first output is {tuple(maps.shape)}, not (B, 17, h, w) heat maps of "
                    "COCO's key points"
                )
            parts.append(maps[: len(part)].to(torch.float32))
        return torch.cat(parts)


def peaks(maps: Float[Tensor, "B P h w"]) -> tuple[Float[Tensor, "B P 2"], Float[Tensor, "B P"]]:
    """Highest place of each map, as parts of its width and height, and its height.

    The place is the pixel's centre and a quarter pixel towards the higher neighbour on each axis (Newell et al. 2016).
    """
    height, width = maps.shape[-2:]
    top, place = maps.flatten(2).max(dim=-1)
    row, column = place // width, place % width
    batch = torch.arange(maps.shape[0])[:, None]
    point = torch.arange(maps.shape[1])[None]

    def at(rows: Int[Tensor, "B P"], columns: Int[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        values = maps[batch, point, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        return torch.where(inside, values, top - 1)  # beyond the edge is lower than anything beside the peak

    across = torch.sign(at(row, column + 1) - at(row, column - 1))
    down = torch.sign(at(row + 1, column) - at(row - 1, column))
    x = (column + 0.5 + 0.25 * across) / width
    y = (row + 0.5 + 0.25 * down) / height
    return torch.stack([x, y], dim=-1), top


def _session(model: str) -> "onnxruntime.InferenceSession":
    if not model:
        raise UsageError("the estimator `onnx` needs --estimator.model FILE.onnx")
    try:
        import onnxruntime
    except ImportError as error:
        raise DataError("the estimator `onnx` needs onnxruntime: pip install 'dapg[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # its errors have no public base class
        raise WeightsError(f"{model} is not an ONNX network that can be run ({said(error)})") from error
