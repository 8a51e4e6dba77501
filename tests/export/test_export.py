"""Exported weights load back, in every form, and give the features of the run they come from."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import dapg
from dapg import cli
from dapg.core.errors import DapgError, UsageError, WeightsError
from dapg.core.files import sha256
from dapg.core.images import normalise
from dapg.core.schema import read_json
from dapg.core.settings import from_dict
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import Modality
from dapg.export.export import FLAT_FILE, PUBLISHED_FILE, UNFINISHED, ExportSettings, export
from dapg.export.onnx_files import FeatureNetwork, onnx_difference
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.agw import AGW
from dapg.methods.published import export_published, load_published
from dapg.methods.runs import load_method
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.backbones.resnet50 import ResNet50
from dapg.models.weights.backbone_weights import HUB_FILE, backbone_from_file, init_backbone, save_backbone
from dapg.recipes import pretraining
from dapg.training.pretrain import pretrain
from figures import draw_person

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
    export(run, ExportSettings(str(out), licence="cc0-1.0"))
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
        export(run, ExportSettings(str(exported), licence="mit"))
    with pytest.raises(UsageError, match="not a run"):
        export(tmp_path, ExportSettings(str(tmp_path / "out")))
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "config.yaml").write_text("stage: evaluate\n")
    (tmp_path / "scores" / "result.json").write_text("{}")
    with pytest.raises(UsageError, match="run of `evaluate`"):
        export(tmp_path / "scores", ExportSettings(str(tmp_path / "out")))


def test_other_features_are_an_error(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses something must not go unnoticed."""

    def forgetful(backbone: Any, path: Path, facts: dict[str, str]) -> None:
        with torch.no_grad():
            backbone.conv1.weight[0].add_(0.1)
        save_backbone(backbone, path, facts)

    monkeypatch.setattr("dapg.export.export.save_backbone", forgetful)
    with pytest.raises(DapgError, match="other features"):
        export(run, ExportSettings(str(tmp_path / "out")))


def test_the_command_says_where_and_how_to_go_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "weights"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    assert f"--init {out}" in capsys.readouterr().out
    backbone, report = backbone_from_file(out)
    assert report.metadata["method"] == "mocov2"
    assert backbone.feature_dim == 64


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


@pytest.mark.parametrize(
    "network, backbone", [({"power": 2.0}, {}), ({"non_local_channels": 8}, {}), ({}, {"last_stride": 2})]
)
def test_another_network_is_no_checkpoint_of_the_published_code(
    finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: dict[str, Any], backbone: dict[str, Any]
) -> None:
    """Of equal names and shapes, some of them, so that it could be loaded and would give other features."""
    method = load_method(finetuned)
    assert isinstance(method, AGW)
    assert isinstance(method.backbone, ResNet50)
    method.settings = replace(method.settings, network=replace(method.settings.network, **network))
    method.backbone.config = replace(method.backbone.config, **backbone)
    monkeypatch.setattr("dapg.methods.published.load_method", lambda run: method)
    with pytest.raises(UsageError, match="would build another network"):
        export_published(finetuned, tmp_path / "x.t")
    assert not (tmp_path / "x.t").exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AGW at the scale ``demo``, which the published code could not build, after two steps."""
    out = tmp_path_factory.mktemp("small") / "agw"
    words = "finetune agw --preset demo --pictures 1 --train.steps 2 --train.batch_size 4 --loader.workers 0"
    assert cli.main([*words.split(), "--out", str(out)]) == 0
    return out


def test_every_fine_tuning_is_written_in_the_hubs_layout(small: Path, tmp_path: Path) -> None:
    written = export(small, ExportSettings(str(tmp_path / "out"), licence="cc0-1.0"))
    assert set(written.sha256) == {HUB_FILE}
    assert "no published.t: the published code has a ResNet-50" in written.notes[0]
    model, run = dapg.load(tmp_path / "out", device="cpu"), dapg.load(small, device="cpu")
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    for modality in ("visible", "infrared"):
        assert torch.equal(model.encode(images, modality), run.encode(images, modality))
    assert model.card.terms == "CC0-1.0"
    assert model.card.licence == "cc0-1.0"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for text in (model.card.use, model.card.data, 'modality="infrared"', "Terms of the data: CC0-1.0"):
        assert text in card
    again = export(small, ExportSettings(str(tmp_path / "out"), licence="cc0-1.0"))
    assert again == written


def test_the_hubs_own_class_reads_the_folder(small: Path, run: Path, tmp_path: Path) -> None:
    """PyTorchModelHubMixin builds a network from config.json and fills it, strictly, from model.safetensors."""
    hub: Any = pytest.importorskip("huggingface_hub")
    (
        export(run, ExportSettings(hub=str(tmp_path / "backbone"))),
        export(small, ExportSettings(hub=str(tmp_path / "agw"))),
    )

    class HubResNet(ResNet18, hub.PyTorchModelHubMixin):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any], **rest: object) -> None:
            ResNet18.__init__(self, from_dict(ResNet18.Config, config), None)

    class HubAGW(AGW, hub.PyTorchModelHubMixin):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any], metadata: dict[str, Any], **rest: object) -> None:
            backbone = ResNet18(from_dict(ResNet18.Config, config), None)
            facts = DataFacts(metadata["pictures"], tuple(metadata["persons"]))
            AGW.__init__(self, from_dict(AGW.Config, metadata["method"]), backbone, facts, torch.Generator())

    assert {path.name for path in (tmp_path / "agw").iterdir() if not path.name.startswith(".")} == {
        HUB_FILE,
        "config.json",
        "README.md",
    }
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    backbone: Any = HubResNet.from_pretrained(str(tmp_path / "backbone"), strict=True).eval()
    assert torch.equal(backbone(images), load_method(run).backbone(images))
    agw: Any = HubAGW.from_pretrained(str(tmp_path / "agw"), strict=True).eval()
    for modality in Modality:
        assert torch.equal(
            agw.encode(images, modality)["after_bn"], load_method(small).encode(images, modality)["after_bn"]
        )


def test_a_killed_export_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first file: the second try keeps it, and writes what a first one would have."""
    out = tmp_path / "out"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("dapg.export.export.save_backbone", killed)
        with pytest.raises(KeyboardInterrupt):
            export(run, ExportSettings(str(out)))
    assert (out / UNFINISHED).exists()
    first = (out / FLAT_FILE).stat().st_mtime_ns
    with pytest.raises(UsageError, match="give another --out"):
        export(run, ExportSettings(str(out), licence="mit"))
    export(run, ExportSettings(str(out)))
    assert (out / FLAT_FILE).stat().st_mtime_ns == first
    assert not (out / UNFINISHED).exists()
    export(run, ExportSettings(str(tmp_path / "at_once")))
    assert (out / HUB_FILE).read_bytes() == (tmp_path / "at_once" / HUB_FILE).read_bytes()


def test_a_missing_extra_is_said_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"dapg\[onnx\]"):
        export(run, ExportSettings(str(tmp_path / "out"), onnx=True))
    assert not (tmp_path / "out").exists()


def tiny_graph(path: Path, about: dict[str, Any]) -> None:
    """Mean colour of an image, through the same names and metadata as an exported network."""
    onnx: Any = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["features"], axis=1, p=2),
    ]
    inputs = [helper.make_tensor_value_info("images", kind, ["batch", 3, 64, 32])]
    outputs = [helper.make_tensor_value_info("features", kind, ["batch", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "mean", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    helper.set_model_props(model, {"dapg": json.dumps(about)})
    onnx.save(model, path)


ABOUT = {"format": "dapg onnx 1", "feature": "mean", "input": {"height": 64, "width": 32, "normalised": "unit"}}
WITHOUT_TORCH = """
import sys, runpy
sys.modules |= dict.fromkeys(("torch", "dapg"))  # importing what is None here fails
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def infer(model: Path, *files: Path) -> np.ndarray:
    """What examples/infer_onnx.py prints where neither torch nor dapg can be imported."""
    words = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLE), str(model), *map(str, files)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return np.array([float(number) for number in re.findall(r"-?\d+\.\d*", text)]).reshape(len(files), -1)


EXAMPLE = Path(__file__).parents[2] / "examples" / "infer_onnx.py"


def test_the_example_needs_no_torch_and_prepares_images_as_we_do(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tiny_graph(tmp_path / "features.onnx", {**ABOUT, "modality": "any"})
    colours = np.random.default_rng(0).integers(0, 256, (3, 90, 40, 3), dtype=np.uint8) // np.array([[[[1, 2, 4]]]] * 3)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, array in zip(files, colours.astype(np.uint8), strict=True):
        Image.fromarray(array).save(file)
    features = dapg.load(tmp_path / "features.onnx").encode(files)
    np.testing.assert_allclose(infer(tmp_path / "features.onnx", *files), features @ features.T, atol=6e-4)


def test_two_files_serve_two_kinds_of_light_and_others_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tiny_graph(tmp_path / "visible.onnx", {**ABOUT, "modality": "visible"})
    with pytest.raises(UsageError, match=r"infrared\.onnx beside it is missing"):
        dapg.load(tmp_path / "visible.onnx")
    tiny_graph(tmp_path / "infrared.onnx", {**ABOUT, "modality": "infrared"})
    assert dapg.load(tmp_path / "infrared.onnx").encode(torch.rand(2, 3, 8, 8), "infrared").shape == (2, 3)
    tiny_graph(tmp_path / "foreign.onnx", {"feature": "mean"})
    with pytest.raises(WeightsError, match="not written by dapg export"):
        dapg.load(tmp_path / "foreign.onnx")
    (tmp_path / "visible.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="cannot be opened by onnxruntime"):
        dapg.load(tmp_path / "visible.onnx")


@pytest.mark.parametrize("taken", ["unit", "imagenet"])
def test_images_normalised_by_others_give_the_same_features(run: Path, taken: Any) -> None:
    backbone = load_method(run).backbone
    backbone.mean, backbone.std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    given = normalise(images) if taken == "imagenet" else images
    expected = functional.normalize(backbone(normalise(images, backbone.mean, backbone.std)).mean(dim=(2, 3)))
    torch.testing.assert_close(FeatureNetwork(backbone, taken=taken).eval()(given), expected)


@pytest.mark.slow
def test_a_fine_tuning_runs_in_onnxruntime_and_in_integers(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    out = tmp_path / "out"
    written = export(small, ExportSettings(str(out), onnx=True, int8=True))
    lights = ("visible", "infrared")
    assert set(written.sha256) == {HUB_FILE, *(f"{light}{kind}.onnx" for light in lights for kind in ("", ".int8"))}
    assert written.onnx_difference is not None
    assert written.onnx_difference < 1e-5
    assert written.int8 is not None
    loss = written.int8["mAP"]["fp32"] - written.int8["mAP"]["int8"]
    assert abs(loss) < 0.02
    assert (out / "visible.int8.onnx").stat().st_size < 0.5 * (out / "visible.onnx").stat().st_size

    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        draw_person(number, 1, 0, False).save(file)
    run = dapg.load(small, device="cpu")
    for light in lights:
        expected = run.encode(files, light)
        torch.testing.assert_close(dapg.load(out / f"{light}.onnx").encode(files, light), expected, atol=1e-4, rtol=0)
        likeness = dapg.load(out / f"{light}.int8.onnx").encode(files, light) * expected
        assert float(likeness.sum(dim=1).min()) > 0.95
        np.testing.assert_allclose(infer(out / f"{light}.onnx", *files), expected @ expected.T, atol=6e-4)


@pytest.mark.slow
def test_a_backbone_runs_in_onnxruntime_as_boxmot_feeds_it(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    written = export(run, ExportSettings(str(tmp_path / "out"), onnx=True, onnx_input="imagenet"))
    assert written.onnx_difference is not None
    assert written.onnx_difference < 1e-5
    assert not list((tmp_path / "out").glob("*.data")), "the weights are inside the file"
    images = torch.rand(7, 3, 64, 32)
    features = dapg.load(tmp_path / "out" / "features.onnx").encode(images)
    torch.testing.assert_close(features, dapg.load(tmp_path / "out", device="cpu").encode(images), atol=1e-4, rtol=0)
    other, _ = init_backbone("resnet18", SMALL, "random", 5)
    with pytest.raises(DapgError, match="do not use it"):
        onnx_difference(FeatureNetwork(other, taken="imagenet"), (64, 32), tmp_path / "out" / "features.onnx")
