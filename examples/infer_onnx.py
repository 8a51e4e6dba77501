"""Features from an exported network without torch and without dapg: numpy, Pillow and onnxruntime alone.

usage: python examples/infer_onnx.py visible.onnx IMAGE...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def encode(model: str, files: list[str]) -> np.ndarray:
    """A row of length one per image; the dot product of two rows is their likeness."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    size = json.loads(session.get_modelmeta().custom_metadata_map["dapg"])["input"]
    people = [Image.open(file).convert("RGB").resize((size["width"], size["height"]), Image.BILINEAR) for file in files]
    images = np.stack([np.asarray(person, dtype=np.float32) / 255 for person in people]).transpose(0, 3, 1, 2)
    return session.run(["features"], {"images": images})[0]


if __name__ == "__main__":
    features = encode(sys.argv[1], sys.argv[2:])
    print(np.round(features @ features.T, 3))
