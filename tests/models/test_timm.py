"""``timm:NAME``: a stand-in with timm's calls, so that no torchvision is needed; the real package where it imports."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dapg.core.errors import UsageError
from dapg.core.train_config import BackboneConfig
from dapg.methods.runs import backbone_settings
from dapg.models.backbones._timm import timm_class
from dapg.models.weights.backbone_weights import backbone_from_file, init_backbone, save_backbone


class Convolutional(nn.Module):
    """Gives (B, C, h, w), or with the channels last as timm's Swin does."""

    num_features = 8

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.conv_stem, self.last = nn.Conv2d(3, 8, 16, 16), last

    def forward_features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.conv_stem(images)
        return maps.movedim(1, -1) if self.last else maps


class WithHead(Convolutional):
    """Has a layer that its features do without."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)


class Tokens(Convolutional):
    """Gives a class token and the patches."""

    num_prefix_tokens = 1

    def forward_features(self, images: Tensor) -> Tensor:
        patches = self.conv_stem(images).flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


def create_model(name: str, pretrained: bool, num_classes: int, **settings: Any) -> nn.Module:
    assert (pretrained, num_classes) == (False, 0)
    if name != "tokens" and settings:
        raise TypeError("no dynamic_img_size")
    kinds = {"tokens": Tokens(), "plain": Convolutional(), "last": Convolutional(last=True), "head": WithHead()}
    return kinds[name]


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["tokens", "plain", "last", "head"]
    stand_in = SimpleNamespace(list_models=lambda: names, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", stand_in)


@pytest.mark.parametrize("name", ["tokens", "plain", "last"])
def test_every_kind_of_features_becomes_a_map(timm: None, name: str, tmp_path: Path) -> None:
    network, _ = init_backbone(f"timm:{name}", backbone_settings(BackboneConfig(f"timm:{name}")), "random", 0)
    images = torch.randn(2, 3, 96, 48, generator=torch.Generator().manual_seed(0))
    maps = network(images)
    assert maps.shape == (2, 8, 6, 3)
    inner: Any = network.get_submodule("network.conv_stem")
    torch.testing.assert_close(maps, inner(images))
    torch.save(inner.state_dict(prefix="conv_stem."), tmp_path / "timm.pth")
    other, report = init_backbone(f"timm:{name}", None, str(tmp_path / "timm.pth"), 1)
    assert report is not None
    assert (report.missing, report.left_over) == ((), ())
    torch.testing.assert_close(other(images), maps)
    save_backbone(network, tmp_path / "own.safetensors")
    again, _ = backbone_from_file(tmp_path / "own.safetensors")
    assert again.architecture == f"timm:{name}"
    torch.testing.assert_close(again(images), maps)


def test_weights_depend_on_the_generator_and_torchs_is_left_alone(timm: None) -> None:
    state = torch.get_rng_state()
    first, second, other = (init_backbone("timm:plain", None, "random", seed)[0].state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_what_the_features_do_without_is_not_trained(timm: None) -> None:
    network, _ = init_backbone("timm:head", None, "random", 0)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"network.conv_stem.weight", "network.conv_stem.bias"}
    assert not next(network.parameters()).is_meta


def test_what_is_missing_is_said(timm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean 'tokens'"):
        init_backbone("timm:tokenz", None, "random", 0)
    with pytest.raises(UsageError, match="has no setting width"):
        backbone_settings(BackboneConfig("timm:plain", width=0.5))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"dapg\[timm\]"):
        init_backbone("timm:plain", None, "random", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_the_real_package_where_it_imports(name: str) -> None:
    try:
        network = timm_class(name)(timm_class(name).Config(), None)
    except UsageError as error:
        pytest.skip(str(error))
    size = (224, 224) if name.startswith("swin") else (256, 128)
    with torch.no_grad():
        maps = network.eval()(torch.randn(1, 3, *size))
    assert maps.shape[:2] == (1, network.feature_dim)
    assert maps.shape[2] * size[1] == maps.shape[3] * size[0]
