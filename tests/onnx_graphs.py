"""Small ONNX graphs shaped like networks with COCO heat maps, for tests."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDE = 4


def _save(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], batch: int | str, size: tuple[int, int]
) -> Path:
    height, width = size
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, height, width])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, [batch, None, height // STRIDE, width // STRIDE])
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "heat_maps", [source], [maps], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def coloured_peaks(path: Path, batch: int | str = "B", size: tuple[int, int] = (256, 192), maps: int = 17) -> Path:
    """Map k is high where the image is bright in a mixture of colours of its own."""
    weights = np.random.default_rng(0).uniform(0.1, 0.5, (maps, 3, 1, 1))
    pool = {"kernel_shape": [STRIDE, STRIDE], "strides": [STRIDE, STRIDE]}
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["mixed"]),
        helper.make_node("AveragePool", ["mixed"], ["maps"], **pool),
    ]
    return _save(path, nodes, {"weights": weights}, batch, size)


def planted_peaks(path: Path, planted: np.ndarray, batch: int | str = "B") -> Path:
    """The same 17 maps for every image."""
    size = (planted.shape[1] * STRIDE, planted.shape[2] * STRIDE)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "planted"], ["maps"]),
    ]
    return _save(path, nodes, {"zero": np.zeros(()), "planted": planted[None]}, batch, size)
