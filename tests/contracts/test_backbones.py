"""Every backbone found in models/backbones answers the contract."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.models.backbones.base import Backbone

NAMES = plugins.names("models.backbones")
SMALL = 0.125


def build(name: str, seed: int = 0, width: float = SMALL, **settings: object) -> Backbone:
    cls: Any = plugins.load("models.backbones", name, Backbone)
    backbone: Backbone = cls(cls.Config(width=width, **settings), torch.Generator().manual_seed(seed))
    return backbone


def test_the_files_are_found() -> None:
    assert {"resnet18", "resnet34", "resnet50", "mobilenet_v2"} <= set(NAMES)
    assert "base" not in NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(256, 128), (288, 144), (64, 32)])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_shapes(name: str, size: tuple[int, int], last_stride: int) -> None:
    network = build(name, last_stride=last_stride).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network(images)
    stride = 16 * last_stride
    assert features.shape == (2, network.feature_dim, -(-size[0] // stride), -(-size[1] // stride))
    assert features.isfinite().all()
    assert features.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_stages_have_the_promised_strides_and_channels_and_make_up_the_trunk(name: str) -> None:
    network = build(name, last_stride=2).eval()
    images = torch.randn(1, 3, 128, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = network.stem(images)
        for (stage, blocks), stride in zip(network.stages().items(), (4, 8, 16, 32), strict=True):
            for block in blocks:
                x = block(x)
            assert x.shape[1:] == (network.stage_dims()[stage], 128 // stride, 64 // stride)
        torch.testing.assert_close(x, network(images))
    assert list(network.stages()) == ["layer1", "layer2", "layer3", "layer4"]
    assert network.stage_dims()["layer4"] == network.feature_dim


@pytest.mark.parametrize("name", NAMES)
def test_stem_and_stages_hold_every_parameter_once(name: str) -> None:
    network = build(name)
    parts = [*network.stem_modules(), *(block for blocks in network.stages().values() for block in blocks)]
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in network.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_a_second_stem_is_run_with_its_own_weights(name: str) -> None:
    network, other = build(name, seed=0).eval(), build(name, seed=1).eval()
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network.apply_stem(other.stem_modules(), images), other.stem(images))
        assert not torch.allclose(network.stem(images), other.stem(images))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name).train()
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    target = torch.randn(4, network.feature_dim, 4, 2, generator=torch.Generator().manual_seed(2))
    functional.mse_loss(network(images), target).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_weights_depend_on_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, seed=5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))  # the global generator was left alone
    torch.manual_seed(2)
    second, third = build(name, seed=5).state_dict(), build(name, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)
    unnamed: Any = plugins.load("models.backbones", name, Backbone)
    fixed = [unnamed(unnamed.Config(width=SMALL), None).state_dict() for _ in range(2)]
    assert all(torch.equal(fixed[0][key], fixed[1][key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_width_scales_the_channels_and_nonsense_is_refused(name: str) -> None:
    assert build(name, width=0.5).stage_dims()["layer2"] * 2 == build(name, width=1.0).stage_dims()["layer2"]
    with pytest.raises(UsageError, match="width"):
        build(name, width=0.0)
    with pytest.raises(UsageError, match="last_stride"):
        build(name, last_stride=3)


@pytest.mark.parametrize(
    "name", [name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_exports_to_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network = build(name).eval()
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "network.onnx"
    torch.onnx.export(network, (images,), str(path), dynamo=True)
    session = runtime.InferenceSession(str(path))
    (exported,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(exported), network(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_shorter_network_is_the_beginning_of_the_whole_one(name: str) -> None:
    whole, short = build(name).eval(), build(name, end="layer3").eval()
    short.load_state_dict({key: whole.state_dict()[key] for key in short.state_dict()})
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = whole.stem(images)
        for stage in ("layer1", "layer2", "layer3"):
            for block in whole.stages()[stage]:
                x = block(x)
        torch.testing.assert_close(short(images), x)
    assert short.feature_dim == whole.stage_dims()["layer3"] == x.shape[1]
    assert list(short.stages()) == ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize("name", NAMES)
def test_fixed_stages_keep_weights_and_statistics(name: str) -> None:
    network = build(name, fixed="layer1").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    features = network(images)
    features.square().mean().backward()
    torch.optim.SGD(trained, 0.1).step()
    fixed = {id(value) for part in network.fixed_modules() for value in (*part.parameters(), *part.buffers())}
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    assert changed == {key for key, value in tensors.items() if id(value) not in fixed}
    stem = [parameter for part in network.stem_modules() for parameter in part.parameters()]
    assert {id(parameter) for parameter in stem} <= fixed


@pytest.mark.parametrize("name", NAMES)
def test_stages_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="did you mean 'layer3'"):
        build(name, end="leyer3")
    with pytest.raises(UsageError, match="fixed is stem, layer1, layer2"):
        build(name, end="layer2", fixed="layer3")
