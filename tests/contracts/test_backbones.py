"""Every backbone keeps its contract; ours are pyramids besides, of the promised strides, and shorter where asked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dapg.contracts.backbones import CHECKS
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.settings import from_dict
from dapg.models.backbones.base import Backbone, Pyramid

NAMES = plugins.names("models.backbones")
PYRAMIDS = [name for name in NAMES if issubclass(plugins.load("models.backbones", name, Backbone), Pyramid)]
SMALL = 0.125


def build(name: str, seed: int = 0, width: float = SMALL, **settings: Any) -> Pyramid:
    kind = plugins.load("models.backbones", name, Pyramid)
    return kind(kind.Config(width=width, **settings), torch.Generator().manual_seed(seed))


def test_the_files_are_found() -> None:
    assert {"resnet18", "resnet34", "resnet50", "mobilenet_v2"} <= set(NAMES)
    assert "base" not in NAMES


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_backbone_keeps_its_contract(name: str, check: str) -> None:
    CHECKS[check](name)


@pytest.mark.parametrize("name", PYRAMIDS)
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


@pytest.mark.parametrize("name", PYRAMIDS)
def test_width_scales_the_channels_and_nonsense_is_refused(name: str) -> None:
    assert build(name, width=0.5).stage_dims()["layer2"] * 2 == build(name, width=1.0).stage_dims()["layer2"]
    kind = plugins.load("models.backbones", name, Pyramid)
    for wrong in ({"width": 0.0}, {"last_stride": 3}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            from_dict(kind.Config, wrong, "")


@pytest.mark.parametrize(
    "name", [name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow) for name in PYRAMIDS]
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


@pytest.mark.parametrize("name", PYRAMIDS)
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


@pytest.mark.parametrize("name", PYRAMIDS)
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


@pytest.mark.parametrize("name", PYRAMIDS)
def test_stages_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="did you mean 'layer3'"):
        build(name, end="leyer3")
    with pytest.raises(UsageError, match="fixed is stem, layer1, layer2"):
        build(name, end="layer2", fixed="layer3")
