"""Any YOLO person detector as an ONNX file of your own: v5, v8 and v11 layouts, and exports that end with NMS.

Nothing is downloaded: export one (for example ``yolo export model=yolo11n.pt format=onnx``) and give its path. Mind the
licence of the weights; Ultralytics' are AGPL-3.0.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from dapg.core.errors import UsageError, WeightsError
from dapg.core.ranges import Pixels, Processes, Range, Share
from dapg.data.cropping._opencv import opencv
from dapg.data.cropping.boxes import best_of_overlapping, inside
from dapg.data.cropping.detectors.base import Detections, Detector, Frame

if TYPE_CHECKING:
    import onnxruntime

_GREY = 114
"""Border of the letterbox, as all these networks were trained with."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Layout = Literal["auto", "v5", "v8", "end-to-end"]


class Yolo(Detector):
    """A YOLO network through onnxruntime; looks at each frame alone, so people may stand and the camera may move."""

    @dataclass(frozen=True)
    class Config:
        """Which network, and how sure."""

        weights: str = ""
        """The ONNX file."""
        threshold: Share = 0.4
        """Smallest probability of a person."""
        overlap: Share = 0.6
        """Of two boxes with a larger IoU the better one stays."""
        layout: Layout = "auto"
        """auto: by the shape of the output. v5 is (1, boxes, 5 + classes), v8 and v11 are (1, 4 + classes, boxes),
        end-to-end is (1, boxes, 6) after NMS."""
        person: Annotated[int, Range(-1, 9999)] = -1
        """Number of the class; -1: the one the file calls person, else the first, as in COCO."""
        size: Pixels = 640
        """Side of the input, where the network takes any; a multiple of 32."""
        threads: Processes = 0
        """Threads of onnxruntime; 0: its own choice."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._cv2 = opencv()
        self._session = _session(config)
        entry = self._session.get_inputs()[0]
        if entry.type not in _TYPES or len(entry.shape) != 4:
            raise WeightsError(f"{config.weights}: the input is {entry.type} {entry.shape}, not a batch of images")
        self._name, self._type = entry.name, _TYPES[entry.type]
        rows, columns = entry.shape[2:]
        self._size = tuple(side if isinstance(side, int) else config.size for side in (rows, columns))
        self._person = config.person if config.person >= 0 else _person_class(self._session)

    def detect(self, frame: Frame) -> Detections:
        """Letterbox, run, read the layout, keep people, undo the letterbox."""
        image, scale, shift = self._letterbox(frame)
        outputs = self._session.run(None, {self._name: image[None].astype(self._type)})
        boxes, scores = self._read(np.asarray(outputs[0], dtype=np.float32))
        sure = scores >= self.config.threshold
        boxes, scores = boxes[sure], scores[sure]
        boxes = inside((boxes - np.concatenate([shift, shift])) / scale, frame.shape[0], frame.shape[1])
        chosen = best_of_overlapping(boxes, scores, self.config.overlap)
        return Detections(boxes[chosen], scores[chosen])

    def _letterbox(self, frame: Frame) -> tuple[Float32[np.ndarray, "3 h w"], float, Float32[np.ndarray, "2"]]:
        """The frame, scaled to fit and centred on grey, in [0, 1]; the scale, and (x, y) of its corner."""
        height, width = self._size
        scale = min(height / frame.shape[0], width / frame.shape[1])
        rows, columns = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
        resized = self._cv2.resize(frame, (columns, rows), interpolation=self._cv2.INTER_LINEAR)
        left, top = (width - columns) // 2, (height - rows) // 2
        canvas = np.full((height, width, 3), _GREY, dtype=np.uint8)
        canvas[top : top + rows, left : left + columns] = resized
        planes = np.ascontiguousarray(canvas.transpose(2, 0, 1)).astype(np.float32) / 255
        return planes, scale, np.array([left, top], dtype=np.float32)

    def _read(self, output: NDArray[np.float32]) -> tuple[Float32[np.ndarray, "N 4"], Float32[np.ndarray, "N"]]:
        """Boxes as corners in the letterboxed image, and the probability that each is a person."""
        layout = self.config.layout if self.config.layout != "auto" else _guess(output.shape, self.config.weights)
        table = output[0]
        if layout == "end-to-end":
            return table[:, :4], np.where(table[:, 5] == self._person, table[:, 4], 0).astype(np.float32)
        if layout == "v8":
            table = table.T
        first = 5 if layout == "v5" else 4
        classes = table[:, first:]
        if self._person >= classes.shape[1]:
            raise WeightsError(
                f"{self.config.weights} knows {classes.shape[1]} classes; there is no class {self._person}"
            )
        scores = np.where(classes.argmax(axis=1) == self._person, classes[:, self._person], 0)
        if layout == "v5":
            scores = scores * table[:, 4]  # probability of an object, times that of its class
        return _corners(table[:, :4]), scores.astype(np.float32)


def _session(config: Yolo.Config) -> "onnxruntime.InferenceSession":
    if not config.weights:
        raise UsageError("the detector yolo needs --detect.weights FILE.onnx; see docs/tutorials/own-footage.md")
    if not Path(config.weights).is_file():
        raise WeightsError(f"{config.weights}: no such file")
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("the detector yolo needs onnxruntime: pip install 'dapg[crop]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.log_severity_level = 3
    known = onnxruntime.get_available_providers()
    chosen = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known]
    try:
        return onnxruntime.InferenceSession(config.weights, options, providers=chosen)
    except Exception as error:  # onnxruntime raises classes of its own that share no base
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"{config.weights} is not a network that onnxruntime can run: {first}") from error


def _person_class(session: "onnxruntime.InferenceSession") -> int:
    """The class called person in the notes that the export left in the file."""
    try:
        names = ast.literal_eval(session.get_modelmeta().custom_metadata_map.get("names", ""))
    except (SyntaxError, ValueError):
        return 0
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return next((int(number) for number, name in pairs if str(name).lower() == "person"), 0)


def _guess(shape: tuple[int, ...], weights: str) -> Layout:
    """The layout by its shape: there are always more boxes than numbers about a box."""
    if len(shape) != 3 or shape[0] != 1:
        raise WeightsError(f"{weights}: the output has shape {shape}; expected (1, boxes, numbers) or its transpose")
    if shape[2] == 6 and shape[1] <= 1000:  # v5 with one class has tens of thousands of boxes
        return "end-to-end"
    return "v8" if shape[1] < shape[2] else "v5"


def _corners(boxes: Float[np.ndarray, "N 4"]) -> Float32[np.ndarray, "N 4"]:
    """(centre x, centre y, width, height) as (left, top, right, bottom)."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)
