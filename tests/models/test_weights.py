"""Every layout of weights file is read, and nothing that does not fit is taken in silence. All files are made here."""

import argparse
import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dapg.core.errors import UsageError, WeightsError
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.models.backbones.base import Backbone
from dapg.models.backbones.mobilenet_v2 import MobileNetV2
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.weights.backbone_weights import (
    backbone_from_file,
    export_flat,
    init_backbone,
    load_backbone,
    save_backbone,
)

State = dict[str, Tensor]


def network(seed: int = 0, width: float = 0.125) -> ResNet18:
    """A ResNet-18 of 8 to 64 channels."""
    return ResNet18(ResNet18.Config(width=width), torch.Generator().manual_seed(seed))


def trained(seed: int = 1) -> State:
    """Weights and statistics that no fresh network has."""
    generator = torch.Generator().manual_seed(seed)
    state = network().state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value + 7
        for name, value in state.items()
    }


def with_prefix(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


HEAD = {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}


def same(backbone: Backbone, state: State) -> bool:
    own = backbone.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


def moco(state: State, module: str) -> dict[str, Any]:
    """As main_moco.py saves it: both encoders, an MLP in place of fc, the queue; the key encoder differs."""
    tensors = with_prefix(state, f"{module}encoder_q.") | with_prefix(trained(5), f"{module}encoder_k.")
    tensors |= {f"{module}encoder_q.fc.0.weight": torch.zeros(4, 4), f"{module}queue": torch.zeros(4, 8)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": tensors, "optimizer": {"state": {}, "param_groups": []}}


def fast_reid(state: State) -> dict[str, Any]:
    tensors = with_prefix(state, "backbone.") | {"heads.bottleneck.0.weight": torch.ones(64)}
    return {"model": tensors, "iteration": 3, "best": np.float64(0.5)}


def in_a_row(state: State) -> State:
    """A ResNet as lightly wraps it: ``nn.Sequential(*list(resnet.children())[:-2])``."""
    network = resnet_children(state)
    return {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}


def resnet_children(state: State) -> torch.nn.Sequential:
    own: Any = network()
    own.load_state_dict(state)
    parts = (own.conv1, own.bn1, torch.nn.ReLU(), torch.nn.MaxPool2d(2), own.layer1, own.layer2, own.layer3, own.layer4)
    return torch.nn.Sequential(*parts)


def teacher_and_student(state: State) -> dict[str, Any]:
    """DINO's checkpoint: the student's weights are the trained ones, the teacher's are their average."""
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    return {"teacher": with_prefix(other, "backbone."), "student": with_prefix(state, "module.backbone.")}


LAYOUTS: list[tuple[str, Any, str]] = [
    ("torchvision", lambda s: OrderedDict(s | HEAD), "torchvision"),
    ("luperson", lambda s: s, "flat, without classifier (as LUPerson)"),
    ("moco", lambda s: moco(s, "module."), "MoCo (state_dict, module.encoder_q.)"),
    ("moco_plain", lambda s: moco(s, ""), "MoCo (state_dict, encoder_q.)"),
    ("fast_reid", fast_reid, "fast-reid (model, backbone.)"),
    ("data_parallel", lambda s: {"net": with_prefix(s, "module."), "mAP": np.float32(1)}, "state dict (net, module.)"),
    ("mmselfsup", lambda s: {"state_dict": with_prefix(s, "encoder_q.0.")}, "state dict (state_dict, encoder_q.0.)"),
    (
        "lightning",
        lambda s: {"state_dict": with_prefix(s, "model.backbone.")},
        "state dict (state_dict, model.backbone.)",
    ),
    ("compiled", lambda s: with_prefix(s, "_orig_mod."), "state dict (_orig_mod.)"),
    ("parallel_twice", lambda s: with_prefix(s, "module.module."), "state dict (module.module.)"),
    ("mocov3", lambda s: with_prefix(s, "module.momentum_encoder."), "state dict (module.momentum_encoder.)"),
    ("teacher", lambda s: {"teacher": with_prefix(s, "module.backbone.")}, "state dict (teacher, module.backbone.)"),
    ("dino", teacher_and_student, "state dict (student, module.backbone.)"),
    ("spark", lambda s: {"arch": "resnet18", "module": s}, "state dict (module)"),
    ("averaged", lambda s: {"model_ema": s}, "state dict (model_ema)"),
    ("own_name", lambda s: {"weights_of_mine": s, "epoch": 3}, "state dict (weights_of_mine)"),
    ("lightly", in_a_row, "layers numbered in one row"),
    ("paths", lambda s: {"args": {"p": Path("/x")}, "state_dict": s}, "state dict (state_dict)"),
    ("student", lambda s: {"student": with_prefix(s, "module.backbone.")}, "state dict (student, module.backbone.)"),
]


@pytest.mark.parametrize("name, wrap, layout", LAYOUTS, ids=[case[0] for case in LAYOUTS])
@pytest.mark.parametrize("old_format", [False, True])
def test_common_layouts_are_read(tmp_path: Path, name: str, wrap: Any, layout: str, old_format: bool) -> None:
    state = trained()
    path = tmp_path / f"{name}.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not old_format)
    backbone = network()
    report = load_backbone(backbone, path)
    assert same(backbone, state)
    assert report.layout == layout
    assert len(report.matched) == 100  # 20 convolutions and 20 batch norms of four tensors each
    assert report.missing == ()
    assert (report.mean, report.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert report.normalisation == "ImageNet's, as the file states none"


def test_left_over_tensors_are_named(tmp_path: Path) -> None:
    torch.save(moco(trained(), "module."), tmp_path / "moco.pth")
    report = load_backbone(network(), tmp_path / "moco.pth")
    assert {"module.encoder_q.fc.0.weight", "module.queue", "module.encoder_k.conv1.weight"} <= set(report.left_over)
    assert not any(name.startswith("module.encoder_q.layer") for name in report.left_over)


def test_old_files_without_batch_counters_are_complete(tmp_path: Path) -> None:
    """torchvision's resnet50-19c8e357 was written before batch norms counted batches."""
    state = {name: value for name, value in trained().items() if "num_batches_tracked" not in name}
    torch.save(state, tmp_path / "old.pth")
    backbone = network()
    report = load_backbone(backbone, tmp_path / "old.pth")
    assert report.missing == ()
    assert same(backbone, state)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in trained().items()}
    torch.save(state, tmp_path / "half.pth")
    backbone = network()
    load_backbone(backbone, tmp_path / "half.pth")
    assert backbone.conv1.weight.dtype == torch.float32
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"].float())


def test_foreign_safetensors_are_read(tmp_path: Path) -> None:
    save_file(with_prefix(trained(), "backbone."), tmp_path / "any.safetensors")
    backbone = network()
    load_backbone(backbone, tmp_path / "any.safetensors")
    assert same(backbone, trained())


def test_normalisation_comes_from_the_file_or_its_name(tmp_path: Path) -> None:
    pixels = {"pixel_mean": torch.tensor([51.0, 102.0, 127.5]), "pixel_std": torch.tensor([25.5, 51.0, 255.0])}
    shaped = {name: value.view(1, 3, 1, 1) for name, value in pixels.items()}
    torch.save({"model": with_prefix(trained(), "backbone.") | shaped}, tmp_path / "pixels.pth")
    backbone = network()
    report = load_backbone(backbone, tmp_path / "pixels.pth")
    assert backbone.mean == pytest.approx((0.2, 0.4, 0.5))
    assert backbone.std == pytest.approx((0.1, 0.2, 1.0))
    assert "pixel_mean" in report.normalisation

    for name, mean, std in (
        ("lup_moco_r50", (0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)),
        ("lupws_r50", (0.3452, 0.3070, 0.3114), (0.2633, 0.2500, 0.2480)),
    ):
        torch.save(trained(), tmp_path / f"{name}.pth")
        report = load_backbone(backbone, tmp_path / f"{name}.pth")
        assert (backbone.mean, backbone.std) == (mean, std)
        assert "LUPerson" in report.normalisation


def test_our_own_file_comes_back_whole_and_with_equal_bytes(tmp_path: Path) -> None:
    backbone = network(3)
    backbone.load_state_dict(trained())
    backbone.mean, backbone.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    for name in ("one", "two"):
        save_backbone(backbone, tmp_path / f"{name}.safetensors", {"recipe_hash": "abc", "steps": 5})
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    other, report = init_backbone("resnet18", {"width": 0.125}, str(tmp_path / "one.safetensors"), 9)
    assert same(other, backbone.state_dict())
    assert (other.mean, other.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert report is not None
    assert report.metadata == {"recipe_hash": "abc", "steps": 5}
    assert report.normalisation == "stated with the weights"
    assert report.record()["matched"] == 100
    assert json.dumps(report.record())
    third, _ = backbone_from_file(tmp_path / "one.safetensors")
    assert third.config == backbone.config
    assert same(third, backbone.state_dict())
    assert len(list(tmp_path.iterdir())) == 2  # no temporary file stays


def test_export_is_a_flat_dict_that_a_strict_loader_takes(tmp_path: Path) -> None:
    backbone = network(3)
    backbone.mean = (0.1, 0.2, 0.3)
    beside = export_flat(backbone, tmp_path / "net.pth", {"recipe_hash": "abc"})
    flat = torch.load(tmp_path / "net.pth", weights_only=True)
    network(8).load_state_dict(flat, strict=True)
    assert list(flat) == list(backbone.state_dict())
    description = json.loads(beside.read_text())
    assert description["architecture"] == "resnet18"
    assert description["metadata"] == {"recipe_hash": "abc"}
    again, report = init_backbone("resnet18", {"width": 0.125}, str(tmp_path / "net.pth"), 0)
    assert again.mean == (0.1, 0.2, 0.3)
    assert report is not None
    assert same(again, backbone.state_dict())
    torch.save(trained(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="describes another file"):
        load_backbone(network(), tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"ending in \.pth"):
        export_flat(backbone, tmp_path / "net.json")


def test_somebody_elses_json_beside_the_file_is_let_be(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "net.pth")
    for text in ("{}", "[1]", "no json"):
        (tmp_path / "net.json").write_text(text)
        assert load_backbone(network(), tmp_path / "net.pth").missing == ()


def test_a_finished_run_is_a_source_and_an_unfinished_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no backbone\.safetensors"):
        load_backbone(network(), tmp_path)
    (tmp_path / "config.yaml").write_text("stage: pretrain\n")
    save_backbone(network(4), tmp_path / "backbone.safetensors")
    with pytest.raises(WeightsError, match="not finished"):
        load_backbone(network(), tmp_path)
    (tmp_path / "result.json").write_text("{}")
    backbone = network()
    load_backbone(backbone, tmp_path)
    assert same(backbone, network(4).state_dict())


def untouched(backbone: Backbone) -> bool:
    return same(backbone, network().state_dict()) and backbone.mean == IMAGENET_MEAN


def test_another_width_is_refused_with_shapes(tmp_path: Path) -> None:
    torch.save(network(1, width=0.25).state_dict(), tmp_path / "wide.pth")
    backbone = network()
    with pytest.raises(
        WeightsError, match=r"0 of 100 tensors .* conv1.weight: \(16, 3, 7, 7\) there, \(8, 3, 7, 7\) here"
    ):
        load_backbone(backbone, tmp_path / "wide.pth")
    assert untouched(backbone)


def test_nine_tenths_are_enough_and_less_are_not(tmp_path: Path) -> None:
    state = trained()
    counted = [name for name in state if "num_batches_tracked" not in name]
    backbone = network()
    ten_short = {name: value for name, value in state.items() if name not in counted[-10:]}
    torch.save(ten_short, tmp_path / "ten.pth")
    report = load_backbone(backbone, tmp_path / "ten.pth")
    assert list(report.missing) == counted[-10:]
    assert counted[-10] in report.summary()
    backbone = network()
    eleven_short = {name: value for name, value in state.items() if name not in counted[-11:]}
    torch.save(eleven_short, tmp_path / "eleven.pth")
    with pytest.raises(WeightsError, match=f"89 of 100 .* missing are {counted[-11]}"):
        load_backbone(backbone, tmp_path / "eleven.pth")
    assert untouched(backbone)


def test_unknown_names_are_refused_and_shown(tmp_path: Path) -> None:
    renamed = {name.replace("conv", "vision"): tensor for name, tensor in trained().items()}
    torch.save(renamed, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"the file also holds vision1\.weight"):
        load_backbone(network(), tmp_path / "odd.pth")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    save_backbone(network(), tmp_path / "r18.safetensors")
    with pytest.raises(WeightsError, match="holds a resnet18, the network to fill is a resnet34"):
        init_backbone("resnet34", {"width": 0.125}, str(tmp_path / "r18.safetensors"), 0)


def test_the_three_copies_of_agw_are_recognised(tmp_path: Path) -> None:
    state: State = {}
    for owner in ("visible_module.visible.", "thermal_module.thermal.", "base_resnet.base."):
        state |= with_prefix(trained(), owner)
    torch.save({"net": state, "cmc": np.ones(20), "mAP": np.float64(0.4), "epoch": 20}, tmp_path / "best.t")
    with pytest.raises(WeightsError, match="fine-tuned AGW network"):
        load_backbone(network(), tmp_path / "best.t")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = trained()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "nan.pth")
    backbone = network()
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight holds values that are not finite"):
        load_backbone(backbone, tmp_path / "nan.pth")
    assert untouched(backbone)


class Attack:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, old_format: bool) -> None:
    target = tmp_path / "owned"
    torch.save(
        {"state_dict": trained(), "x": Attack(target)},
        tmp_path / "evil.pth",
        _use_new_zipfile_serialization=not old_format,
    )
    with pytest.raises(WeightsError, match=r"more than tensors and plain values \(it asks for posix\.system\)|damaged"):
        load_backbone(network(), tmp_path / "evil.pth")
    assert not target.exists()


def test_plain_companions_in_checkpoints_are_allowed(tmp_path: Path) -> None:
    others = {
        "args": argparse.Namespace(lr=0.1),
        "scalar": np.float64(0.25),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "cmc": np.linspace(0, 1, 20, dtype=np.float32),
    }
    torch.save({"state_dict": trained(), **others}, tmp_path / "full.pth")
    assert load_backbone(network(), tmp_path / "full.pth").missing == ()


def test_names_of_numpy_1_and_2_are_both_known(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": trained(), "mAP": np.float64(0.25)}, buffer, _use_new_zipfile_serialization=False)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    data = buffer.getvalue()
    present, absent = (new, old) if new in data else (old, new)
    for name in (present, absent):
        (tmp_path / "scores.pth").write_bytes(data.replace(present, name))
        assert load_backbone(network(), tmp_path / "scores.pth").missing == ()


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_a_file_cut_off_anywhere_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_backbone(network(), path)
    else:
        torch.save(trained(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for share in (0.0, 1e-5, 0.0001, 0.01, 0.3, 0.7, 0.99, 0.9999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(WeightsError, match=str(path)):
            load_backbone(network(), path)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, kind: str) -> None:
    """Bytes changed where the index lies: either it still loads, or a WeightsError says why not."""
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_backbone(network(), path)
    else:
        torch.save(trained(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    ends = {"zip": (0, len(whole)), "pickle": (0, 12_000), "safetensors": (0, 9_000)}[kind]
    chooser = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        damaged = bytearray(whole)
        for place in chooser.integers(*ends, size=4 if kind != "zip" else 400):
            damaged[place] = chooser.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load_backbone(network(), path)
        except WeightsError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0" + b"x" * 100, "neither a safetensors nor a torch file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"PK\x03\x04" + b"x" * 100, "cut off or damaged"),
        (b"\x80\x02garbage", "damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{" + b" " * 100, "damaged safetensors"),
        (pickle.dumps([1, 2, 3]), "damaged|not a state dict"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_backbone(network(), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "content, message",
    [
        ([torch.zeros(2)], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
        ({}, "no tensors"),
        ({"epoch": 3, "lr": 0.1}, "no tensors by name; its keys are epoch, lr"),
        ({1: torch.zeros(2)}, "no tensors by name"),
        ({"state_dict": {"a": 1}}, "no tensors by name"),
    ],
)
def test_torch_files_without_a_state_dict_are_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        load_backbone(network(), tmp_path / "weights.pth")


def test_archives_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(WeightsError, match="unpacks to 50000000 bytes"):
        load_backbone(network(), path)


def test_huge_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    with path.open("wb") as handle:
        handle.truncate(5 * 2**30)  # sparse: takes no room
    with pytest.raises(WeightsError, match=r"5\.0 GiB"):
        load_backbone(network(), path)


def test_a_tensor_that_repeats_one_value_is_not_unrolled(tmp_path: Path) -> None:
    state = trained()
    state["extra"] = torch.zeros(1).expand(10**13)
    torch.save(state, tmp_path / "stretched.pth")
    assert load_backbone(network(), tmp_path / "stretched.pth").left_over == ("extra",)


def test_a_damaged_download_shows_in_torchvisions_name(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match="f37072fd as its name says"):
        load_backbone(network(), tmp_path / "resnet18-f37072fd.pth")


def test_metadata_is_checked(tmp_path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in network().state_dict().items()}
    good = {
        "format": "dapg backbone 1",
        "architecture": "resnet18",
        "config": {},
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "metadata": {},
    }
    path = tmp_path / "own.safetensors"
    for bad, message in (
        ("no json", "damaged"),
        (json.dumps([1]), "not written by this version"),
        (json.dumps({**good, "format": "dapg backbone 99"}), "not written by this version"),
        (json.dumps({key: value for key, value in good.items() if key != "std"}), "does not state its std"),
        (json.dumps({**good, "mean": [0.5]}), "three numbers"),
        (json.dumps({**good, "std": [0.5, "wide", 1]}), "three numbers"),
        (json.dumps({**good, "metadata": "none"}), "does not state its metadata"),
    ):
        save_file(network(1).state_dict(), path, {"dapg": bad})
        backbone = network()
        with pytest.raises(WeightsError, match=message):
            load_backbone(backbone, path)
        assert untouched(backbone)
    save_file(tensors, path, {"dapg": json.dumps({**good, "architecture": "resnet999"})})
    with pytest.raises(WeightsError, match="cannot be built here"):
        backbone_from_file(path)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="does not say which network"):
        backbone_from_file(path)


def test_random_weights_hang_on_seed_and_name() -> None:
    first, report = init_backbone("resnet18", {"width": 0.125}, "random", 3)
    assert report is None
    assert same(init_backbone("resnet18", ResNet18.Config(width=0.125), "random", 3)[0], first.state_dict())
    assert not same(init_backbone("resnet18", {"width": 0.125}, "random", 4)[0], first.state_dict())


def test_wrong_wishes_are_answered() -> None:
    with pytest.raises(UsageError, match=r"torchvision's resnet50-19c8e357\.pth \(IMAGENET1K_V1"):
        init_backbone("resnet50", {"width": 0.125}, "imagenet", 0)
    with pytest.raises(WeightsError, match="no such file; did you mean 'random'"):
        init_backbone("resnet18", {"width": 0.125}, "randm", 0)
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        init_backbone("resnet-18", None, "random", 0)
    with pytest.raises(UsageError, match="did you mean 'width'"):
        init_backbone("resnet18", {"widht": 0.5}, "random", 0)
    with pytest.raises(WeightsError, match="of another shape or kind"):
        init_backbone("mobilenet_v2", {"width": 0.5}, "imagenet", 0)


def test_numbered_mobilenet_names_are_translated(tmp_path: Path) -> None:
    """The nested names of one network written in a row, block by block, as by hand."""
    source = MobileNetV2(MobileNetV2.Config(width=0.25), torch.Generator().manual_seed(1))
    rows = {}
    for name, value in source.state_dict().items():
        parts = name.split(".")
        if parts[2] != "conv":
            rows[name] = value
            continue
        stages = ["0.0", "0.1", "-", "1.0", "1.1", "-", "2", "3"] if parts[1] != "1" else ["0.0", "0.1", "-", "1", "2"]
        place = stages.index(".".join(parts[3:-1]))
        rows[".".join([*parts[:3], str(place), parts[-1]])] = value
    torch.save(rows, tmp_path / "row.pt")
    other = MobileNetV2(MobileNetV2.Config(width=0.25))
    report = load_backbone(other, tmp_path / "row.pt")
    assert same(other, source.state_dict())
    assert report.layout == "layers numbered in one row"
    assert report.missing == report.left_over == ()


@pytest.mark.parametrize("old_format", [False, True])
def test_pickles_that_cost_minutes_are_refused_at_once(tmp_path: Path, old_format: bool) -> None:
    marks = b"\x80\x02" + b"(" * 3_000_000 + b"."
    path = tmp_path / "marks.pth"
    if old_format:
        path.write_bytes(marks)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", marks)
    with pytest.raises(WeightsError, match="an index of over 500,000 instructions"):
        load_backbone(network(), path)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.tensor([1j, 0, 0]), torch.ones(3), "complex"),
        (torch.tensor([float("nan"), 0, 0]), torch.ones(3), "finite numbers of a usual size"),
        (torch.tensor([10.0**300, 0, 0], dtype=torch.float64), torch.ones(3), "finite numbers of a usual size"),
        (torch.zeros(3), torch.zeros(3), "must be above 0"),
    ],
)
def test_a_normalisation_that_makes_no_sense_is_refused(
    tmp_path: Path, mean: torch.Tensor, std: torch.Tensor, message: str
) -> None:
    torch.save({**trained(), "pixel_mean": mean, "pixel_std": std}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=message):
        load_backbone(network(), tmp_path / "odd.pth")


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    state = trained()
    state["bn1.running_var"] = -state["bn1.running_var"].abs() - 1
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"bn1\.running_var holds a negative variance"):
        load_backbone(network(), tmp_path / "odd.pth")
