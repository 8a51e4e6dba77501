"""Exported weights load back, in every form, and give the features of the run they come from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dapg import cli
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import read_json, sha256
from dapg.core.training import BackboneConfig, DataConfig
from dapg.core.types import Modality
from dapg.export.export import FLAT_FILE, PUBLISHED_FILE, FeatureNetwork, export
from dapg.methods.published import load_published
from dapg.methods.runs import load_method
from dapg.models.weights.backbone_weights import HUB_FILE, backbone_from_file, init_backbone, save_backbone
from dapg.recipes import pretraining
from dapg.train.pretrain import pretrain

SMALL = {"width": 0.125, "last_stride": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mocov2"
    base = pretraining("mocov2", "demo")
    train = replace(base.train, steps=2, batch_size=8)
    small = replace(base, backbone=BackboneConfig("resnet18", width=0.125), data=DataConfig(subset=16), train=train)
    pretrain(replace(small, out=str(folder), device="cpu"))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "weights"
    export(run, out, "cc0-1.0")
    return out


def test_every_form_gives_the_features_of_the_run(run: Path, exported: Path) -> None:
    method = load_method(run)
    pictures = torch.rand(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = FeatureNetwork(method.backbone).eval()(pictures)
    for source in (exported, exported / HUB_FILE, exported / FLAT_FILE):
        backbone, report = init_backbone("resnet18", SMALL, str(source), seed=3)
        assert report is not None
        assert not report.missing
        assert (backbone.mean, backbone.std) == (method.backbone.mean, method.backbone.std)
        assert torch.equal(FeatureNetwork(backbone).eval()(pictures), expected)


def test_the_flat_file_is_what_torchvision_users_expect(exported: Path) -> None:
    state = torch.load(exported / FLAT_FILE, weights_only=True)
    assert {"conv1.weight", "bn1.running_mean", "layer4.1.bn2.bias"} <= set(state)
    assert not [name for name in state if name.startswith(("fc.", "head.", "keys."))]


def test_card_and_config_say_what_it_is_and_what_nobody_tested(run: Path, exported: Path) -> None:
    config, card = read_json(exported / "config.json"), (exported / "README.md").read_text(encoding="utf-8")
    assert config["sha256"] == {name: sha256(exported / name) for name in (FLAT_FILE, HUB_FILE)}
    assert config["input"]["height"] == 64
    data_hash = read_json(run / "result.json")["data"]["hash"]
    for text in ("mocov2", data_hash, "temperature", "license: cc0-1.0", "SYSU-MM01", *config["sha256"].values()):
        assert text in card
    assert "None were taken" in card


def test_refusals(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an empty folder"):
        export(run, exported)
    with pytest.raises(UsageError, match="not a run"):
        export(tmp_path, tmp_path / "out")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "config.yaml").write_text("stage: evaluate\n")
    (tmp_path / "scores" / "result.json").write_text("{}")
    with pytest.raises(UsageError, match="run of `evaluate`"):
        export(tmp_path / "scores", tmp_path / "out")


def test_other_features_are_an_error(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses something must not go unnoticed."""

    def forgetful(backbone: Any, path: Path, facts: dict[str, str]) -> None:
        with torch.no_grad():
            backbone.conv1.weight[0].add_(0.1)
        save_backbone(backbone, path, facts)

    monkeypatch.setattr("dapg.export.export.save_backbone", forgetful)
    with pytest.raises(DapgError, match="other features"):
        export(run, tmp_path / "out")


def test_the_command_says_where_and_how_to_go_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "weights"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    assert f"--init {out}" in capsys.readouterr().out
    backbone, report = backbone_from_file(out)
    assert report.metadata["method"] == "mocov2"
    assert backbone.feature_dim == 64


@pytest.mark.slow
def test_onnx_gives_the_same_features_for_any_number_of_pictures(run: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    written = export(run, tmp_path / "out", onnx=True)
    assert written.onnx_difference is not None
    assert written.onnx_difference < 1e-5
    assert not list((tmp_path / "out").glob("*.data")), "the weights are inside the file"
    session = runtime.InferenceSession(str(tmp_path / "out" / "features.onnx"))
    rows = session.run(None, {"pictures": torch.rand(7, 3, 64, 32).numpy()})[0]
    assert rows.shape == (7, 64)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AGW's published network after one step."""
    out = tmp_path_factory.mktemp("finetuned") / "agw"
    words = "finetune agw --preset paper --data synthetic --pictures 1 --train.steps 1 --train.batch_size 4"
    sizes = "--method.views.height 64 --method.views.width 32 --loader.height 64 --loader.width 32 --loader.workers 0"
    assert cli.main([*words.split(), *sizes.split(), "--backbone.init", "random", "--out", str(out)]) == 0
    return out


def test_a_fine_tuning_becomes_a_checkpoint_of_the_published_code(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "published"
    assert cli.main(["export", str(finetuned), "--out", str(out)]) == 0
    assert "dapg evaluate" in capsys.readouterr().out
    content = torch.load(out / PUBLISHED_FILE, weights_only=True)
    assert set(content) == {"net", "epoch"}
    assert {"visible_module.visible.conv1.weight", "NL_2.0.theta.weight", "bottleneck.weight"} <= set(content["net"])
    method, read_back = load_method(finetuned), load_published(out / PUBLISHED_FILE, 64, 32)
    pictures = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    for modality in Modality:
        expected, found = method.encode(pictures, modality), read_back.encode(pictures, modality)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_other_fine_tunings_are_refused(finetuned: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two stems"):
        export(finetuned, tmp_path / "onnx", onnx=True)
    out = tmp_path / "tiny"
    words = "finetune agw --preset demo --pictures 1 --train.steps 1 --train.batch_size 4 --loader.workers 0"
    assert cli.main([*words.split(), "--out", str(out)]) == 0
    with pytest.raises(UsageError, match="ResNet-50"):
        export(out, tmp_path / "published")
