"""BlazePose's landmark network (Bazarevsky et al. 2020), embedded; needs dapg[pose]."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dapg.core.errors import DataError, WeightsError
from dapg.core.files import ASSETS
from dapg.core.key_points import KEY_POINT_NAMES, LEFT_SHOULDER, NECK, RIGHT_SHOULDER
from dapg.core.ranges import Range, Share
from dapg.core.types import Record
from dapg.data.base import Dataset
from dapg.pose.estimators._frame import frame, unframe
from dapg.pose.estimators.base import Estimator

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

EMBEDDED = ASSETS / "poses" / "blazepose_landmark_full.tflite"

INPUT = 256
_LANDMARKS, _VALUES = 39, 5
"""33 landmarks and 6 that steer tracking; x, y, z in input pixels, visibility and presence as logits."""

_NUMBER = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11, "right_shoulder": 12,
    "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24,
    "left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28, "neck": 11,
}  # fmt: skip
"""BlazePose's landmark for each of our points; the neck, which it lacks, becomes the middle of the shoulders."""
_ORDER = [_NUMBER[name] for name in KEY_POINT_NAMES]


class BlazePose(Estimator):
    """33 landmarks by a network for phones, of which 17 and the middle of the shoulders are ours."""

    @dataclass(frozen=True)
    class Config:
        """Settings of BlazePose."""

        padding: Annotated[float, Range(1, 10)] = 1.5
        """Side of the network's square input in heights of the crop; tight crops lose side views."""
        least_presence: Share = 0.5
        """Below this score of the network for *a person is here* all confidences are 0."""
        model: str = ""
        """Another ``pose_landmark_*.tflite`` in place of the embedded one."""

    batch_size: ClassVar[int] = 16

    def __init__(self, config: Config, dataset: Dataset | None = None) -> None:
        super().__init__(config, dataset)
        self._network = _interpreter(Path(config.model) if config.model else EMBEDDED)
        self._input = self._network.get_input_details()[0]["index"]
        widths = {tuple(detail["shape"][1:]): detail["index"] for detail in self._network.get_output_details()}
        try:
            self._landmarks, self._presence = widths[(_LANDMARKS * _VALUES,)], widths[(1,)]
        except KeyError:
            raise WeightsError(f"{config.model or EMBEDDED} is no BlazePose landmark network") from None
        self._batch = 0

    def estimate(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"], records: Sequence[Record] = ()
    ) -> Float[Tensor, "B 18 3"]:
        """Points with confidence: the mean of *visible* and *inside the image*, so a hidden point has about 0.5."""
        if len(images) == 0:
            return torch.zeros(0, 18, 3)
        framed, covered = frame(images.cpu(), sizes.cpu(), (INPUT, INPUT), self.config.padding)
        values, presence = self._run(framed)
        landmarks = values.reshape(-1, _LANDMARKS, _VALUES)[:, _ORDER]
        places = unframe(landmarks[..., :2] / INPUT, covered)
        confidence = landmarks[..., 3:5].sigmoid().mean(dim=-1, keepdim=True)
        points = torch.cat([places, confidence], dim=-1)
        points[:, NECK, :2] = points[:, [LEFT_SHOULDER, RIGHT_SHOULDER], :2].mean(dim=1)
        points[:, NECK, 2] = points[:, [LEFT_SHOULDER, RIGHT_SHOULDER], 2].amin(dim=1)
        points[presence[:, 0] < self.config.least_presence, :, 2] = 0
        return points

    def _run(self, framed: Float[Tensor, "B 3 h w"]) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B 1"]]:
        if len(framed) != self._batch:
            self._network.resize_tensor_input(self._input, [len(framed), INPUT, INPUT, 3])
            self._network.allocate_tensors()
            self._batch = len(framed)
        self._network.set_tensor(self._input, np.ascontiguousarray(framed.permute(0, 2, 3, 1).numpy()))
        self._network.invoke()
        values = torch.from_numpy(np.array(self._network.get_tensor(self._landmarks)))
        return values, torch.from_numpy(np.array(self._network.get_tensor(self._presence)))


def _interpreter(path: Path) -> "Interpreter":
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DataError("BlazePose needs ai-edge-litert: pip install 'dapg[pose]'") from error
    try:
        network = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
        network.allocate_tensors()
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a tflite network that can be run ({error})") from error
    return network
