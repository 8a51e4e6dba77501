"""``dapg.load`` and ``encode``: every kind of source, every kind of image, the same features as the command line's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import dapg
from dapg.core.any_images import AnyImage
from dapg.core.errors import UsageError, WeightsError
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality
from dapg.features.build_encoder import build_encoder
from dapg.features.networks import Network, NetworkSettings
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.agw import AGW
from dapg.methods.method_files import read_method, save_method
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.weights.addresses import Card, CardScore
from dapg.models.weights.backbone_weights import init_backbone, load_backbone, save_backbone

CARD = Card("rendered people", "CC0", "CC0-1.0", "tests", (CardScore("synthetic, all", 10.0, 12.5),))


def tiny_method() -> AGW:
    """AGW of a few thousand weights with another infrared than visible stem."""
    generator = torch.Generator().manual_seed(0)
    backbone = ResNet18(ResNet18.Config(width=0.125), generator)
    backbone.mean = (0.4, 0.5, 0.6)
    config = AGW.Config()
    config = replace(config, views=replace(config.views, height=64, width=32))
    method = AGW(config, backbone, DataFacts(9, (3, 5, 8)), generator)
    with torch.no_grad():
        for parameter in method.two_stream.infrared_stem.parameters():
            parameter.add_(0.1)
    return method.eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_method(tiny_method(), tmp_path / "agw.safetensors", CARD)
    return tmp_path / "agw.safetensors"


def test_a_method_in_one_file_is_the_method(file: Path) -> None:
    method, again = tiny_method(), read_method(file)
    assert again.card == CARD
    assert again.method.settings == method.settings
    assert again.method.facts.persons == (3, 5, 8)
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    for modality in Modality:
        for name, values in method.encode(images, modality).items():
            assert torch.equal(again.method.encode(images, modality)[name], values)
    first = file.read_bytes()
    save_method(again.method, file, CARD)
    assert file.read_bytes() == first


def test_its_backbone_starts_another_training(file: Path) -> None:
    backbone = ResNet18(ResNet18.Config(width=0.125), None)
    report = load_backbone(backbone, file)
    assert not report.missing
    assert backbone.mean == (0.4, 0.5, 0.6)
    assert torch.equal(*(net.get_parameter("layer4.1.conv2.weight") for net in (backbone, tiny_method().backbone)))


def test_damaged_method_files_are_named(file: Path) -> None:
    half = file.with_name("half.safetensors")
    half.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"half\.safetensors"):
        dapg.load(half)
    other = file.with_name("other.safetensors")
    other.write_bytes(file.read_bytes().replace(b'stage\\": \\"finetune', b'stage\\": \\"finetuna'))
    with pytest.raises(WeightsError, match="does not hold the method that it says"):
        dapg.load(other)


def a_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)


def test_all_kinds_of_images_give_the_features_of_the_command_line(file: Path) -> None:
    model = dapg.load(file, device="cpu", batch_size=2)
    assert (model.card, model.feature, model.input_size) == (CARD, "after_bn", (64, 32))
    array = a_picture()
    stored = file.with_name("a.png")
    Image.fromarray(array).save(stored)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    content = stored.read_bytes()
    kinds: list[AnyImage] = [stored, str(stored), content, Image.open(stored), array, array / 255, tensor, tensor / 255]
    features = model.encode(kinds, modality="infrared")
    assert features.shape == (8, 64)
    torch.testing.assert_close(features, features[:1].expand(8, -1))
    torch.testing.assert_close(model.encode(content, "infrared"), features[:1])

    resized = torch.from_numpy(np.array(Image.fromarray(array).resize((32, 64), Image.Resampling.BILINEAR)))
    encoder = build_encoder(str(file), BackboneConfig(), (1, 1), 0, torch.device("cpu"))
    expected = encoder.encode(resized.permute(2, 0, 1)[None].contiguous(), Modality.INFRARED)
    torch.testing.assert_close(features[:1], expected["after_bn"])
    torch.testing.assert_close(model.encode(stored, "infrared", feature="before_bn"), expected["before_bn"])
    assert not torch.allclose(model.encode(stored), features[:1], atol=1e-3), "each light has a stem of its own"


def test_batches_and_grey_images(file: Path) -> None:
    model = dapg.load(file, device="cpu", batch_size=3)
    batch = np.stack([a_picture()] * 4)
    assert model.encode(batch).shape == (4, 64)
    torch.testing.assert_close(model.encode(batch), model.encode(torch.from_numpy(batch).permute(0, 3, 1, 2)))
    grey = a_picture()[..., 0]
    same = model.encode([grey, grey[..., None], np.repeat(grey[..., None], 3, axis=2), Image.fromarray(grey)])
    torch.testing.assert_close(same, same[:1].expand(4, -1))


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 4, 2), np.uint8), "this one has"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "not of torch.int64"),
        (torch.full((3, 8, 8), 200.0), r"in \[0, 1\]"),
        (torch.full((3, 8, 8), float("nan")), r"in \[0, 1\]"),
        ([], "no image"),
        ("missing.png", r"missing\.png cannot be read"),
    ],
)
def test_what_is_no_image_is_said(image: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dapg.load("histogram").encode(image)  # type: ignore[arg-type]


def test_words_that_nothing_is_called(file: Path) -> None:
    model = dapg.load(file, device="cpu")
    with pytest.raises(UsageError, match="did you mean 'infrared'"):
        model.encode(a_picture(), "infared")
    with pytest.raises(UsageError, match="there are before_bn, after_bn"):
        model.encode(a_picture(), feature="bn")
    with pytest.raises(UsageError, match="did you mean 'mobilenet_v2-imagenet'"):
        dapg.load("mobilenet_v2_imagenet")


def test_foreign_files_take_the_network_they_are_told(tmp_path: Path) -> None:
    network, _ = init_backbone("resnet18", {"width": 0.125, "last_stride": 1}, "random", 3)
    torch.save(network.state_dict(), tmp_path / "foreign.pth")
    settings = BackboneConfig("resnet18", width=0.125, last_stride=1)
    model = dapg.load(tmp_path / "foreign.pth", backbone=settings, size=(64, 32), device="cpu")
    features = model.encode(a_picture())
    assert features.shape == (1, 64)
    assert "not stated" in str(model.card)
    with pytest.raises(WeightsError, match="fills only"):
        dapg.load(tmp_path / "foreign.pth", device="cpu")


def test_a_gallery_believes_a_file_about_its_network(tmp_path: Path) -> None:
    """The settings were not changed, so the file's own network and input count, and the hash tells them apart."""
    network, _ = init_backbone("resnet18", {"width": 0.125, "last_stride": 1}, "random", 3)
    save_backbone(network, tmp_path / "own.safetensors", {"input": [64, 32]})
    loaded = Network(NetworkSettings(str(tmp_path / "own.safetensors")), "cpu")
    told = NetworkSettings(loaded.settings.model, BackboneConfig("resnet18", width=0.125, last_stride=1), 64, 32)
    assert loaded.input_size == (64, 32)
    assert loaded.card.hash == Network(told, "cpu").card.hash
    assert loaded.card.hash != Network(replace(told, height=48), "cpu").card.hash
    with pytest.raises(WeightsError, match="holds a resnet18, the network to fill is a resnet50"):
        dapg.load(tmp_path / "own.safetensors", device="cpu", backbone="resnet50")


@pytest.mark.parametrize("kind", ["file", "pil", "uint8", "float32", "tensor"])
def test_corrupt_gives_back_what_it_was_given(kind: str, tmp_path: Path) -> None:
    array = a_picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    kinds: dict[str, AnyImage] = {
        "file": tmp_path / "a.png",
        "pil": Image.fromarray(array),
        "uint8": array,
        "float32": (array / 255).astype(np.float32),
        "tensor": torch.from_numpy(array).permute(2, 0, 1),
    }
    result = dapg.corrupt(kinds[kind], "gaussian_noise", severity=2, seed=4)
    batch = torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()
    expected = dapg.corrupt_batch(batch, "gaussian_noise", 2, dapg.SampleGenerator(torch.tensor([4])))[0]
    if kind == "float32":
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result * 255, expected.permute(1, 2, 0).numpy(), atol=1.01)
        return
    assert isinstance(result, {"uint8": np.ndarray, "tensor": Tensor}.get(kind, Image.Image))
    found = result.permute(1, 2, 0).numpy() if isinstance(result, Tensor) else np.asarray(result)
    np.testing.assert_array_equal(found, expected.permute(1, 2, 0).numpy())


def test_infrared_noise_is_equal_on_all_channels() -> None:
    noisy = dapg.corrupt(np.full((64, 32), 128, np.uint8), "gaussian_noise", modality="infrared")
    assert isinstance(noisy, np.ndarray)
    assert (noisy[..., 0] == noisy[..., 1]).all()
    assert (noisy != 128).any()
