"""State dicts have torchvision's key names and shapes, so that published weights load without renaming."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dapg.models.backbones.mobilenet_v2 import MobileNetV2
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.backbones.resnet34 import ResNet34
from dapg.models.backbones.resnet50 import ResNet50

Table = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Table:
    table: Table = {f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")}
    return {**table, f"{name}.num_batches_tracked": ()}


def resnet_table(depths: tuple[int, ...], bottleneck: bool) -> Table:
    """Written from the published tables: kernel sizes and channels of each convolution, stage by stage."""
    table: Table = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    incoming = 64
    for stage, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        outgoing = channels * 4 if bottleneck else channels
        for block in range(depth):
            name = f"layer{stage}.{block}"
            if bottleneck:
                shapes = [(channels, incoming, 1, 1), (channels, channels, 3, 3), (outgoing, channels, 1, 1)]
            else:
                shapes = [(channels, incoming, 3, 3), (channels, channels, 3, 3)]
            for index, shape in enumerate(shapes, start=1):
                table |= {f"{name}.conv{index}.weight": shape, **norm(f"{name}.bn{index}", shape[0])}
            if block == 0 and (stage > 1 or bottleneck):
                table |= {f"{name}.downsample.0.weight": (outgoing, incoming, 1, 1)}
                table |= norm(f"{name}.downsample.1", outgoing)
            incoming = outgoing
    return table


def mobilenet_table() -> Table:
    """Table 2 of the MobileNetV2 paper, unrolled by hand: (input, expanded, output) channels of features.1 ... 17."""
    table: Table = {"features.0.0.weight": (32, 3, 3, 3), **norm("features.0.1", 32)}
    outputs = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    incoming = 32
    for index, outgoing in enumerate(outputs, start=1):
        name, hidden = f"features.{index}.conv", incoming * (1 if index == 1 else 6)
        place = 0
        if index > 1:
            table |= {f"{name}.0.0.weight": (hidden, incoming, 1, 1), **norm(f"{name}.0.1", hidden)}
            place = 1
        table |= {f"{name}.{place}.0.weight": (hidden, 1, 3, 3), **norm(f"{name}.{place}.1", hidden)}
        table |= {f"{name}.{place + 1}.weight": (outgoing, hidden, 1, 1), **norm(f"{name}.{place + 2}", outgoing)}
        incoming = outgoing
    return table | {"features.18.0.weight": (1280, 320, 1, 1), **norm("features.18.1", 1280)}


# Parameters are the published totals (11,689,512; 21,797,672; 25,557,032; 3,504,872) less those of the classifier.
CASES = [
    (ResNet18, resnet_table((2, 2, 2, 2), bottleneck=False), 120, 11_689_512 - 513 * 1000),
    (ResNet34, resnet_table((3, 4, 6, 3), bottleneck=False), 216, 21_797_672 - 513 * 1000),
    (ResNet50, resnet_table((3, 4, 6, 3), bottleneck=True), 318, 25_557_032 - 2049 * 1000),
    (MobileNetV2, mobilenet_table(), 312, 3_504_872 - 1281 * 1000),
]


@pytest.mark.parametrize("cls, table, tensors, parameters", CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_names_shapes_and_counts(cls: Any, table: Table, tensors: int, parameters: int) -> None:
    network = cls(cls.Config())
    state = network.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == table
    assert list(state) == list(table)  # torchvision's order too
    assert len(state) == tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("cls, depths", [(ResNet18, (2, 2, 2, 2)), (ResNet34, (3, 4, 6, 3)), (ResNet50, (3, 4, 6, 3))])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_the_forward_pass_equals_one_written_from_the_names(
    cls: Any, depths: tuple[int, ...], last_stride: int
) -> None:
    """A second implementation: what the tensors of a file say, and the strides of torchvision's network."""
    generator = torch.Generator().manual_seed(0)
    network = cls(cls.Config(width=0.125, last_stride=last_stride)).double().eval()
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:  # batch norms that do something
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    weights = network.state_dict()

    def convolve(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + 1e-5).sqrt()
        shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    images = torch.randn(2, 3, 64, 48, generator=generator, dtype=torch.float64)
    x = functional.max_pool2d(convolve(images, "conv1", "bn1", 2).clamp(min=0), 3, 2, 1)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = {1: 1, 2: 2, 3: 2, 4: last_stride}[stage] if block == 0 else 1
            projected = f"{name}.downsample.0.weight" in weights
            shortcut = convolve(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if projected else x
            if f"{name}.conv3.weight" in weights:
                x = convolve(x, f"{name}.conv1", f"{name}.bn1").clamp(min=0)
                x = convolve(x, f"{name}.conv2", f"{name}.bn2", stride).clamp(min=0)
                x = convolve(x, f"{name}.conv3", f"{name}.bn3")
            else:
                x = convolve(x, f"{name}.conv1", f"{name}.bn1", stride).clamp(min=0)
                x = convolve(x, f"{name}.conv2", f"{name}.bn2")
            x = (x + shortcut).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(network(images), x)
