"""Two streams over every backbone: stems, where non-local blocks stand, and the block itself against its formula."""

import functools

import pytest
import torch
from torch import Tensor, nn

from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.non_local import NonLocal
from dapg.models.two_stream import TwoStream, TwoStreamConfig
from dapg.models.weights.backbone_weights import init_backbone

BACKBONES = [name for name in plugins.names("models.backbones") if not name.startswith(("vit", "swin", "timm"))]


def backbone_of(name: str) -> Backbone:
    return init_backbone(name, {"width": 0.125, "last_stride": 1}, "random", 0)[0]


def two_stream_of(backbone: Backbone, **changes: object) -> TwoStream:
    return TwoStream(backbone, TwoStreamConfig(**changes), generator_from("two-stream"))  # type: ignore[arg-type]


def pictures(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 64, 32, generator=torch.Generator().manual_seed(seed))


def train_non_local(network: TwoStream) -> None:
    """Give the blocks something to do: their last batch norm starts at 0."""
    for blocks in network.non_local.values():
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            nn.init.ones_(block.get_parameter("norm.weight"))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_new_network_is_the_backbone(name: str) -> None:
    """Copied stem, non-local blocks that start as nothing: both modalities give what the backbone gives."""
    backbone = backbone_of(name).eval()
    network = two_stream_of(backbone).eval()
    images = pictures()
    expected = backbone(images)
    torch.testing.assert_close(network(backbone, images), expected)
    torch.testing.assert_close(network(backbone, None, images), expected)
    both = network(backbone, images[:1], images[1:])
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_non_local_blocks_stand_after_the_last_blocks_of_stages_two_and_three(name: str) -> None:
    backbone = backbone_of(name).eval()
    network = two_stream_of(backbone).eval()
    train_non_local(network)
    order: list[str] = []
    stages = backbone.stages()
    for stage, blocks in stages.items():
        for place, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, label=f"{stage}.{place}": order.append(label))
    for stage, extra in network.non_local.items():
        for place, block in enumerate(extra):  # type: ignore[arg-type]
            block.register_forward_hook(lambda *_, label=f"{stage} non-local {place}": order.append(label))
    out = network(backbone, pictures())
    assert not torch.allclose(out, backbone(pictures()))

    for stage, wanted in {"layer2": 2, "layer3": 3}.items():
        depth = len(stages[stage])
        count = min(wanted, depth)
        for place in range(count):
            before = order.index(f"{stage} non-local {place}") - 1
            assert order[before] == f"{stage}.{depth - count + place}"
    assert sum("non-local" in label for label in order) == sum(
        min(wanted, len(stages[stage])) for stage, wanted in {"layer2": 2, "layer3": 3}.items()
    )


def test_places_in_a_resnet_50_are_the_published_ones() -> None:
    backbone = backbone_of("resnet50")
    network = two_stream_of(backbone, non_local_channels=1)
    assert {stage: len(blocks) for stage, blocks in network.non_local.items()} == {"layer2": 2, "layer3": 3}  # type: ignore[arg-type]
    dims = [block.theta.weight.shape for place in ("layer2", "layer3") for block in network.non_local[place]]  # type: ignore[attr-defined]
    assert dims == [(1, 64, 1, 1)] * 2 + [(1, 128, 1, 1)] * 3  # 512 and 1024 at width 1


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_both_stems_and_each_only_from_its_own_pictures(name: str) -> None:
    backbone = backbone_of(name)
    network = two_stream_of(backbone)
    visible = next(backbone.stem_modules()[0].parameters())
    infrared = next(network.infrared_stem.parameters())
    assert visible is not infrared
    weights = torch.randn(1, backbone.feature_dim, 1, 1)
    ((network(backbone, pictures(4), pictures(4, 1)) * weights).mean()).backward()
    for stem in (visible, infrared):
        assert stem.grad is not None
        assert float(stem.grad.abs().max()) > 0
        stem.grad = None
    (network(backbone, pictures(4)) * weights).mean().backward()
    assert visible.grad is not None
    assert infrared.grad is None


def test_a_fixed_stem_serves_both_modalities() -> None:
    backbone = init_backbone("mobilenet_v2", {"width": 0.125, "end": "layer3", "fixed": "layer1"}, "random", 0)[0]
    network = two_stream_of(backbone, stripes=6)
    assert not list(network.infrared_stem.parameters())
    backbone.eval()
    images = pictures()
    torch.testing.assert_close(network(backbone, None, images), network(backbone, images))
    assert network.pool(network(backbone, images)).shape == (2, network.feature_dim)


def test_fixed_blocks_take_few_pictures_at_a_time_and_give_the_same() -> None:
    backbone = init_backbone("mobilenet_v2", {"width": 0.125, "end": "layer2", "fixed": "layer1"}, "random", 0)[0]
    backbone.train()
    seen: list[int] = []
    fixed, trained = backbone.get_submodule("features.2"), backbone.get_submodule("features.4")
    for block in (fixed, trained):
        block.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    images = pictures(37)
    with torch.no_grad():
        blocks = [block for stage in backbone.stages().values() for block in stage]
        whole = backbone(images)
        assert seen == [16, 16, 5, 37]
        torch.testing.assert_close(whole, functools.reduce(lambda x, block: block(x), blocks, backbone.stem(images)))


def test_neither_modality_is_an_error() -> None:
    backbone = backbone_of("resnet18")
    with pytest.raises(UsageError, match="needs visible or infrared"):
        two_stream_of(backbone)(backbone)


@pytest.mark.parametrize("channels, inner", [(8, 1), (8, 0), (64, 0)])
def test_non_local_against_its_formula(channels: int, inner: int) -> None:
    """Position by position, as Wang et al. write it; few inner channels and many take the two orders of products."""
    block = NonLocal(channels, inner, generator_from("block")).eval()
    nn.init.normal_(block.norm.weight, generator=generator_from("norm"))
    x = torch.randn(2, channels, 4, 3, generator=generator_from("x"))
    count = 12
    theta, phi, g = (layer(x).flatten(2) for layer in (block.theta, block.phi, block.g))
    seen = torch.zeros(2, block.g.out_channels, count)
    for i in range(count):
        for j in range(count):
            seen[:, :, i] += (theta[:, :, i] * phi[:, :, j]).sum(1, keepdim=True) / count * g[:, :, j]
    expected = x + block.norm(block.project(seen.reshape(2, -1, 4, 3)))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert block.theta.out_channels == (inner or channels // 2)


def test_a_new_non_local_block_changes_nothing_but_learns() -> None:
    block = NonLocal(6, 0, generator_from("block"))
    x = torch.randn(3, 6, 4, 2)
    out = block(x)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert block.norm.weight.grad is not None
    assert float(block.norm.weight.grad.abs().max()) > 0


def test_pooling_learned_fixed_and_average() -> None:
    backbone = backbone_of("resnet18")
    x = torch.rand(2, 4, 3, 2)
    learned, fixed = two_stream_of(backbone), two_stream_of(backbone, learn_power=False)
    torch.testing.assert_close(learned.pool(x), fixed.pool(x))
    assert "power" in learned.state_dict()
    assert "power" not in fixed.state_dict()
    learned.pool(torch.relu(x - 0.5)).sum().backward()
    assert learned.power.grad is not None
    assert torch.isfinite(learned.power.grad)
    average = two_stream_of(backbone, pooling="average")
    torch.testing.assert_close(average.pool(x), x.mean((2, 3)))
    assert "power" not in average.state_dict()


def test_settings_that_build_no_network_are_refused() -> None:
    with pytest.raises(UsageError, match="inner channels"):
        NonLocal(4, -1, generator_from("x"))
