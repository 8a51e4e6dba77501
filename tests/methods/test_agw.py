"""AGW against a plain forward pass on the published layout, its key and shape table, and its switches one by one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.padded import PaddedViewConfig, padded_view
from dapg.core.batch import Batch
from dapg.core.errors import UsageError, WeightsError
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.types import Modality
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.agw import AGW
from dapg.methods.finetuning.baseline import Baseline
from dapg.models.backbones.resnet50 import ResNet50
from dapg.models.two_stream import TwoStreamConfig
from dapg.models.weights import agw_checkpoints

PERSONS = (3, 5, 8, 9)
SMALL = PaddedViewConfig(height=64, width=32, padding=2)


def build(config: Any = None, width: float = 0.125, persons: tuple[int, ...] = PERSONS) -> AGW:
    """AGW over a narrow ResNet-50 with two different stems, busy non-local blocks and batch norms that have run."""
    config = replace(AGW.paper() if config is None else config, views=SMALL)
    backbone = ResNet50(ResNet50.Config(width=width, last_stride=1), generator_from("backbone"))
    method = AGW(config, backbone, DataFacts(100, persons), generator_from("head"))
    generator = generator_from("fill")
    for name, tensor in method.state_dict().items():
        if "norm.weight" in name or "norm.bias" in name:
            tensor.normal_(0, 0.03, generator=generator)
        elif "infrared_stem" in name and name.endswith(("weight", "bias")):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    if width < 1:
        _run_batch_norms(method)
    return method


def _run_batch_norms(method: AGW) -> None:
    norms = [layer for layer in method.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
    images = torch.randn(16, 3, 64, 32, generator=generator_from("statistics"))
    with torch.no_grad():
        method.train()._embed(images[:8], images[8:])
    for layer in norms:
        layer.momentum = 0.1


def batch_of(persons: tuple[int, ...] = PERSONS, pictures: int = 2) -> Batch:
    """As the cross-modal sampler makes it: person by person the visible, then the infrared images."""
    count = len(persons) * 2 * pictures
    images = torch.randint(0, 256, (count, 3, 64, 32), generator=generator_from("images"), dtype=torch.uint8)
    labels = torch.tensor(persons).repeat_interleave(2 * pictures)
    modalities = torch.tensor([1] * pictures + [2] * pictures).repeat(len(persons))
    return Batch(images, labels, modalities.clone(), modalities, torch.arange(count))


def draws(count: int = 16) -> SampleGenerator:
    return SampleGenerator.for_step(0, 0, torch.arange(count))


# ---- an independent forward pass, from the published layout ---------------------------------------------------------


def plain_features(net: dict[str, Tensor], images: Tensor, visible: bool) -> tuple[Tensor, Tensor]:
    """The published network in evaluation mode as one function over its state dict: features before and after BN."""

    def bn(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            net[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, weight, bias)

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        y = functional.relu(bn(functional.conv2d(x, net[f"{name}.conv1.weight"]), f"{name}.bn1"))
        y = functional.relu(bn(functional.conv2d(y, net[f"{name}.conv2.weight"], None, stride, 1), f"{name}.bn2"))
        y = bn(functional.conv2d(y, net[f"{name}.conv3.weight"]), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in net:
            x = bn(functional.conv2d(x, net[f"{name}.downsample.0.weight"], None, stride), f"{name}.downsample.1")
        return functional.relu(x + y)

    def non_local(x: Tensor, name: str) -> Tensor:
        def pointwise(y: Tensor, part: str) -> Tensor:
            return functional.conv2d(y, net[f"{name}.{part}.weight"], net[f"{name}.{part}.bias"])

        g, theta, phi = (pointwise(x, part).flatten(2) for part in ("g.0", "theta", "phi"))
        attention = theta.transpose(1, 2) @ phi / theta.shape[-1]
        y = (attention @ g.transpose(1, 2)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])
        return x + bn(pointwise(y, "W.0"), f"{name}.W.1")

    stem = "visible_module.visible" if visible else "thermal_module.thermal"
    x = functional.conv2d(images, net[f"{stem}.conv1.weight"], None, 2, 3)
    x = functional.max_pool2d(functional.relu(bn(x, f"{stem}.bn1")), 3, 2, 1)
    after = {"layer2": {2: 0, 3: 1}, "layer3": {3: 0, 4: 1, 5: 2}}
    for stage, depth, stride in (("layer1", 3, 1), ("layer2", 4, 2), ("layer3", 6, 2), ("layer4", 3, 1)):
        for place in range(depth):
            x = block(x, f"base_resnet.base.{stage}.{place}", 1 if place else stride)
            if place in after.get(stage, {}):
                x = non_local(x, f"NL_{stage[-1]}.{after[stage][place]}")
    pooled = (x.pow(3).mean((2, 3)) + 1e-12) ** (1 / 3)
    return functional.normalize(pooled), functional.normalize(bn(pooled, "bottleneck"))


@pytest.mark.parametrize("modality", list(Modality))
def test_features_equal_a_plain_forward_pass_of_the_published_network(modality: Modality) -> None:
    method = build().eval()
    net = agw_checkpoints.to_published(method.state_dict())
    images = torch.randn(3, 3, 64, 32, generator=generator_from("scored"))
    before, after = plain_features(net, images, modality == Modality.VISIBLE)
    ours = method.encode(images, modality)
    torch.testing.assert_close(ours["before_bn"], before, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["after_bn"], after, atol=1e-5, rtol=0)
    other = plain_features(net, images, modality != Modality.VISIBLE)[1]
    assert not torch.allclose(after, other, atol=1e-3)


# ---- checkpoints of the published code ------------------------------------------------------------------------------


def published_table(persons: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published checkpoint, written down from the layout and torchvision's ResNet-50."""
    resnet: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            resnet[f"{name}.{part}"] = (channels,)
        resnet[f"{name}.num_batches_tracked"] = ()

    resnet["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for stage, (depth, channels) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for place in range(depth):
            name = f"layer{stage}.{place}"
            shapes = ((channels, before, 1, 1), (channels, channels, 3, 3), (4 * channels, channels, 1, 1))
            for number, shape in enumerate(shapes, start=1):
                resnet[f"{name}.conv{number}.weight"] = shape
                norm(f"{name}.bn{number}", shape[0])
            if place == 0:
                resnet[f"{name}.downsample.0.weight"] = (4 * channels, before, 1, 1)
                norm(f"{name}.downsample.1", 4 * channels)
            before = 4 * channels
    table = {
        f"{owner}.{name}": shape
        for owner in ("visible_module.visible", "thermal_module.thermal", "base_resnet.base")
        for name, shape in resnet.items()
    }
    for stage, count, channels in ((2, 2, 512), (3, 3, 1024)):
        for place in range(count):
            name = f"NL_{stage}.{place}"
            for part in ("g.0", "theta", "phi"):
                table |= {f"{name}.{part}.weight": (1, channels, 1, 1), f"{name}.{part}.bias": (1,)}
            table |= {f"{name}.W.0.weight": (channels, 1, 1, 1), f"{name}.W.0.bias": (channels,)}
            table |= {f"{name}.W.1.{p}": (channels,) for p in ("weight", "bias", "running_mean", "running_var")}
            table[f"{name}.W.1.num_batches_tracked"] = ()
    table |= {f"bottleneck.{p}": (2048,) for p in ("weight", "bias", "running_mean", "running_var")}
    return table | {"bottleneck.num_batches_tracked": (), "classifier.weight": (persons, 2048)}


def test_keys_and_shapes_of_the_published_network() -> None:
    method = build(width=1.0, persons=tuple(range(395)))
    table = published_table(395)
    assert len(table) == 3 * 318 + 5 * 13 + 6
    assert {name: tuple(t.shape) for name, t in agw_checkpoints.to_published(method.state_dict()).items()} == table


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As the published training saves it: numpy scores beside the weights, keys of a data-parallel model."""
    net = {f"module.{k}": v for k, v in agw_checkpoints.to_published(build().state_dict()).items()}
    path = tmp_path / "sysu_agw_p4_n8_lr_0.1_seed_0_best.t"
    scores = {"cmc": np.array([0.4, 0.5]), "mAP": np.float64(0.47), "mINP": np.float32(0.3)}
    torch.save({"net": net, **scores, "epoch": 80}, path)
    return path


def test_a_published_checkpoint_loads_and_goes_back(checkpoint: Path, tmp_path: Path) -> None:
    tensors = agw_checkpoints.read_published(checkpoint)
    assert agw_checkpoints.persons(tensors) == 4
    assert agw_checkpoints.non_local_counts(tensors) == (0, 2, 3, 0)
    method = build()
    original = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    for parameter in method.parameters():
        parameter.data.zero_()
    method.load_state_dict(agw_checkpoints.from_published(tensors, method.state_dict(), "x"))
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, original[name]), name

    agw_checkpoints.write_published(method.state_dict(), tmp_path / "ours.t", 80)
    again = agw_checkpoints.read_published(tmp_path / "ours.t")
    assert again.keys() == tensors.keys()
    for name, tensor in again.items():
        assert torch.equal(tensor, tensors[name]), name
    assert torch.load(tmp_path / "ours.t", weights_only=True)["epoch"] == 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.pop("NL_3.1.theta.weight"), "missing are NL_3.1.theta.weight"),
        (lambda net: net.update(extra=torch.zeros(1)), "unknown are extra"),
        (lambda net: net.update({"bottleneck.bias": torch.zeros(3)}), r"bottleneck.bias: \(3,\) there"),
        (lambda net: net["base_resnet.base.layer1.0.conv1.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change: Any, message: str) -> None:
    method = build()
    net = {name: tensor.clone() for name, tensor in agw_checkpoints.to_published(method.state_dict()).items()}
    change(net)
    with pytest.raises(WeightsError, match=message):
        agw_checkpoints.from_published(net, method.state_dict(), "x.t")


def test_files_without_batch_counters_load() -> None:
    method = build()
    net = agw_checkpoints.to_published(method.state_dict())
    old = {name: tensor for name, tensor in net.items() if not name.endswith("num_batches_tracked")}
    method.load_state_dict(agw_checkpoints.from_published(old, method.state_dict(), "x.t"))


def test_other_files_and_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "x.t")
    with pytest.raises(WeightsError, match="no checkpoint of the AGW or CAJ code"):
        agw_checkpoints.read_published(tmp_path / "x.t")
    with pytest.raises(UsageError, match=r"two_stream\.power"):
        agw_checkpoints.to_published(build(AGW.Config()).state_dict())


def test_a_published_file_is_scored_as_it_is(tmp_path: Path) -> None:
    """Full width, as the code builds nothing else; the encoder's features are the plain forward pass's."""
    from dapg.core.train_config import BackboneConfig
    from dapg.features.build_encoder import build_encoder

    method = build(width=1.0, persons=tuple(range(7)))
    net = agw_checkpoints.to_published(method.state_dict())
    torch.save({"net": net, "mAP": np.float64(0.4)}, tmp_path / "x_best.t")
    encoder = build_encoder(str(tmp_path / "x_best.t"), BackboneConfig(), (256, 128), 0, torch.device("cpu"))
    assert (encoder.input_size, encoder.headline) == ((288, 144), "after_bn")
    images = torch.randint(0, 256, (1, 3, 64, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    before, _ = plain_features(net, (images / 255 - mean) / std, visible=False)
    torch.testing.assert_close(encoder.encode(images, Modality.INFRARED)["before_bn"], before, atol=1e-5, rtol=0)


# ---- switches -------------------------------------------------------------------------------------------------------


def step_logs(config: AGW.Config) -> dict[str, float]:
    result = build(config).train()(batch_of(), draws())
    return {name: float(value) for name, value in {"loss": result.loss.detach(), **result.logs}.items()}


@pytest.mark.parametrize("switch", ["include_self", "legacy_weights"])
def test_each_triplet_switch_changes_the_triplet_and_nothing_else(switch: str) -> None:
    change: dict[str, Any] = {switch: True}
    plain, changed = step_logs(AGW.Config()), step_logs(replace(AGW.Config(), **change))
    assert plain["identity"] == changed["identity"]
    assert plain["triplet"] != changed["triplet"]


def test_paper_differs_from_recommended_in_exactly_the_listed_switches() -> None:
    config, paper = AGW.Config(), AGW.paper()
    different = {name for name in vars(config) if getattr(config, name) != getattr(paper, name)}
    assert different == {"network", "include_self", "legacy_weights"}
    network = {name for name in vars(config.network) if getattr(config.network, name) != getattr(paper.network, name)}
    assert network == {"learn_power", "non_local_channels"}


def test_network_switches_change_the_network() -> None:
    wide, narrow = build(AGW.Config()), build()
    assert wide.two_stream.non_local["layer3"][0].theta.out_channels == 64  # type: ignore[index]
    assert narrow.two_stream.non_local["layer3"][0].theta.out_channels == 1  # type: ignore[index]
    assert isinstance(wide.two_stream.power, torch.nn.Parameter)
    assert "two_stream.power" not in narrow.state_dict()
    none = build(replace(AGW.Config(), network=TwoStreamConfig(non_local=(0, 0, 0, 0))))
    assert not list(none.two_stream.non_local)


def test_flip_test_makes_mirror_images_equal() -> None:
    images = torch.randn(2, 3, 64, 32)
    for flip in (False, True):
        method = build(replace(AGW.Config(), flip_test=flip)).eval()
        plain, mirrored = (method.encode(x, Modality.INFRARED)["after_bn"] for x in (images, images.flip(-1)))
        assert torch.allclose(plain, mirrored, atol=1e-6) == flip


def test_rates_of_the_two_groups_and_decay_on_everything() -> None:
    method = build()
    trunk, head = method.parameter_groups(0.1, 5e-4)
    assert (trunk["lr"], head["lr"]) == pytest.approx((0.01, 0.1))
    assert {group["weight_decay"] for group in (trunk, head)} == {5e-4}
    assert {id(p) for p in head["params"]} == {id(method.neck.weight), id(method.classifier.weight)}
    assert not method.neck.bias.requires_grad
    assert {id(p) for p in method.two_stream.parameters()} < {id(p) for p in trunk["params"]}


def test_classes_are_the_rank_of_the_person() -> None:
    assert build()._classes(torch.tensor([9, 3, 5, 8, 3])).tolist() == [3, 0, 1, 2, 0]


def test_losses_are_those_of_the_views_visible_first() -> None:
    """Worked out beside the method: views, both stems, features before the neck, cross entropy of all images."""
    from dapg.losses.triplet import weighted_regularised_triplet

    method = build(AGW.Config()).train()
    batch = batch_of()
    result = method(batch, draws())
    again = build(AGW.Config()).train()
    views = padded_view(batch.images, SMALL, draws(), again.backbone.mean, again.backbone.std)
    visible, infrared = (views[batch.modalities == modality] for modality in (1, 2))
    pooled = again.two_stream.pool(again.two_stream(again.backbone, visible, infrared))
    labels = torch.cat([batch.persons[batch.modalities == modality] for modality in (1, 2)])
    classes = torch.tensor([PERSONS.index(label) for label in labels.tolist()])
    identity = functional.cross_entropy(again.classifier(again.neck(pooled)), classes)
    expected = identity + weighted_regularised_triplet(pooled, classes)
    torch.testing.assert_close(result.loss, expected)


def test_a_batch_without_as_many_infrared_pictures_is_refused() -> None:
    batch = batch_of()
    batch.modalities[:] = 1
    with pytest.raises(UsageError, match="as many visible as infrared"):
        build()(batch, draws())


def test_one_person_is_too_few() -> None:
    with pytest.raises(UsageError, match="1 labelled"):
        build(persons=(4,))


def test_bfloat16_autocast_gives_a_finite_loss_near_that_of_single_precision() -> None:
    single = step_logs(AGW.Config())
    with torch.autocast("cpu", torch.bfloat16):
        half = step_logs(AGW.Config())
    assert half["identity"] == pytest.approx(single["identity"], rel=0.02)
    assert half["triplet"] == pytest.approx(single["triplet"], rel=0.2)


def test_base_method_is_average_pooling_without_non_local_blocks() -> None:
    backbone = ResNet50(ResNet50.Config(width=0.125), generator_from("backbone"))
    method = Baseline(replace(Baseline.Config(), views=SMALL), backbone, DataFacts(9, PERSONS), generator_from("head"))
    images = torch.randn(2, 3, 64, 32)
    method.eval()
    expected = functional.normalize(method.backbone(images).mean((2, 3)))
    torch.testing.assert_close(method.encode(images, Modality.VISIBLE)["before_bn"], expected)
