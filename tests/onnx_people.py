"""Tiny ONNX networks in the output layouts of YOLO exports: they find rectangles of known colours in the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 80
_ROWS = 300  # exports have thousands of boxes, nearly all without score


@dataclass(frozen=True)
class Planted:
    """A colour (red, green, blue in 0 ... 255) that the network takes for an object."""

    colour: tuple[int, int, int]
    score: float = 0.9
    category: int = 0
    shift: float = 0.0
    """Of the box, in pixels of the network's input: an almost equal second box for non-maximum suppression."""


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: object, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=kind), name))
        return name

    def __call__(self, operation: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name


def write_network(
    path: Path,
    layout: str,
    planted: Sequence[Planted],
    size: tuple[int, int] = (320, 320),
    dynamic: bool = False,
    half: bool = False,
    names: str = "",
) -> Path:
    """Write a network of layout v5, v8, v11 or end-to-end."""
    graph = _Graph()
    picture = graph("Cast", "images", to=TensorProto.FLOAT)
    rows = [_row(graph, picture, each, layout) for each in planted]
    numbers = {"v5": 5 + CLASSES, "v8": 4 + CLASSES, "v11": 4 + CLASSES, "end-to-end": 6}[layout]
    empty = graph.constant(np.zeros((1, _ROWS - len(planted), numbers)))
    output = graph("Concat", *rows, empty, axis=1)
    if layout in ("v8", "v11"):
        output = graph("Transpose", output, perm=[0, 2, 1])
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    output = graph("Cast", output, to=kind)
    sides = ["height", "width"] if dynamic else list(size)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "planted",
            [helper.make_tensor_value_info("images", kind, [1, 3, *sides])],
            [helper.make_tensor_value_info(output, kind, None)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    if names:
        helper.set_model_props(model, {"names": names, "task": "detect"})
    onnx.save(model, str(path))
    return path


def _row(graph: _Graph, picture: str, planted: Planted, layout: str) -> str:
    """(1, 1, numbers): the outline of all pixels of the colour, and its score."""
    colour = graph.constant(np.array(planted.colour).reshape(1, 3, 1, 1) / 255)
    distance = graph("ReduceMax", graph("Abs", graph("Sub", picture, colour)), axes=[1], keepdims=0)  # (1, H, W)
    mask = graph("Cast", graph("Less", distance, graph.constant(0.32)), to=TensorProto.FLOAT)
    sides = {}
    for name, along, across in (("top", 1, 2), ("left", 2, 1)):
        line = graph("ReduceMax", mask, axes=[across], keepdims=1)
        for last in (0, 1):
            found = graph("ArgMax", line, axis=along, keepdims=1, select_last_index=last)
            sides[name, last] = graph("Cast", found, to=TensorProto.FLOAT)
    shift = graph.constant(planted.shift)
    first_x, first_y = graph("Add", sides["left", 0], shift), sides["top", 0]
    last_x = graph("Add", graph("Add", sides["left", 1], shift), graph.constant(1.0))
    last_y = graph("Add", sides["top", 1], graph.constant(1.0))
    present = graph("Reshape", graph("ReduceMax", mask, keepdims=0), graph.constant([1, 1, 1], np.int64))
    score = graph("Mul", present, graph.constant(planted.score))
    if layout == "end-to-end":
        kind = graph.constant(np.full((1, 1, 1), planted.category))
        return graph("Concat", first_x, first_y, last_x, last_y, score, kind, axis=2)
    half = graph.constant(0.5)
    centre = [graph("Mul", graph("Add", *pair), half) for pair in ((first_x, last_x), (first_y, last_y))]
    extent = [graph("Sub", *pair) for pair in ((last_x, first_x), (last_y, first_y))]
    one_hot = np.zeros((1, 1, CLASSES))
    one_hot[..., planted.category] = 1.0
    if layout == "v5":  # probability of an object, then of each class
        return graph("Concat", *centre, *extent, score, graph.constant(one_hot), axis=2)
    return graph("Concat", *centre, *extent, graph("Mul", score, graph.constant(one_hot)), axis=2)
