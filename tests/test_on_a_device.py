"""The package on a simulated CUDA device: nothing meets a tensor of the host, and no training step waits."""

import contextlib
import importlib
import inspect
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from dapg.augment.augmix import augmix
from dapg.augment.noise_chain import noise_chain
from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses
from dapg.contracts.methods import COUNT, built, some_batch
from dapg.core import plugins
from dapg.core.batch import Batch, StepResult
from dapg.core.device import constant, send
from dapg.core.errors import TrainingError
from dapg.core.metrics_log import read_metrics
from dapg.core.rng import SampleGenerator
from dapg.core.runtime import Runtime
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality, Protocol, Record
from dapg.corruptions import library
from dapg.data.loading import LoaderConfig
from dapg.data.samplers import InfiniteSampler
from dapg.data.sets import market1501, regdb, sysu
from dapg.data.sets.folder import Folder
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.features.encoders import FlipAveraged, HistogramEncoder, MethodEncoder
from dapg.features.extract import encode_batches, extract
from dapg.features.networks import NetworkSettings
from dapg.gallery.gallery import Gallery
from dapg.methods.base import Method
from dapg.methods.pretraining.mocov2 import MoCoV2
from dapg.methods.runs import FOLDERS, method_class
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.pose import train_gan
from dapg.pose.recipe import settings as pose_settings
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score_features
from dapg.scoring.ranking import rank, similarity
from dapg.scoring.rerank import Rerank, reranked_distances
from dapg.training import checkpoint, loop
from dapg.training.loop import Job
from dapg.training.optimizers import LARS
from figures import make_figures
from simulated_cuda import DEVICE, DeviceTensor, MixedDevices, SimulatedCuda

sys.path[:0] = [str(Path(__file__).parent / "train"), str(Path(__file__).parents[1] / "benchmarks")]
training_script = importlib.import_module("training_script")
gpu_run = importlib.import_module("gpu_run")
METHODS = [(stage, name) for stage, folder in FOLDERS.items() for name in plugins.names(folder)]


def small_agw() -> Method:
    with built("finetune", "agw") as method:
        return method.eval()


def on_device(tensor: Tensor) -> Tensor:
    return tensor.pin_memory().to(DEVICE, non_blocking=True)


def numbers(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


# The simulation itself


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: (x > 0.5).nonzero(),
        lambda x: x[x > 0.5],
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: torch.linalg.svdvals(x),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[:, [0, 1]],
        lambda x: x + torch.ones(3, 4).to(DEVICE),
        lambda x: x + torch.ones(3, 4).to(DEVICE, non_blocking=True),
        lambda x: x * x.new_tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0], device=DEVICE),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_what_waits_is_counted(waits: Callable[[Tensor], Any]) -> None:
    with SimulatedCuda() as gpu:
        x = on_device(numbers(3, 4))
        assert not gpu.waits
        waits(x)
        assert sum(gpu.waits.values()) == 1
        with pytest.raises(AssertionError, match="waits for the device"), gpu.no_wait():
            waits(x)


def test_values_are_right_and_nothing_else_waits() -> None:
    host = numbers(3, 4)
    with SimulatedCuda() as gpu:
        x = on_device(host)
        weight = nn.Parameter(on_device(numbers(4, 2)))
        ((x @ weight).relu().softmax(dim=1) * torch.arange(2, device=DEVICE)).sum().backward()
        picked = x.index_select(0, send(torch.tensor([2, 0]), DEVICE)) + constant((1.0, 2.0, 3.0, 4.0), DEVICE)
        assert not gpu.waits
        assert torch.equal(x[1:, [2, 0]].cpu(), host[1:, [2, 0]])
        assert type(torch.empty_like(x, device="cpu")) is Tensor
        assert str(x.device) == "cuda:0"
        assert x.is_cuda
        assert weight.grad is not None
        ours, slope = picked.cpu(), weight.grad.cpu()
    plain = numbers(4, 2).requires_grad_()
    ((host @ plain).relu().softmax(dim=1) * torch.arange(2)).sum().backward()
    assert torch.equal(ours, host[[2, 0]] + torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert plain.grad is not None
    assert torch.equal(slope, plain.grad)


def test_tensors_of_two_devices_do_not_meet() -> None:
    with SimulatedCuda():
        x = on_device(numbers(3, 4))
        with pytest.raises(MixedDevices, match=r"aten::add.* shape \(3, 4\)"):
            x + numbers(3, 4)
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        layer = nn.Linear(4, 2)
        with pytest.raises(MixedDevices):
            layer(x)
        assert isinstance(layer.to(DEVICE)(x), DeviceTensor)
        assert not isinstance(layer.to("cpu").weight, DeviceTensor)


# Training


@pytest.mark.parametrize("stage, name", METHODS)
def test_no_step_of_any_method_waits(stage: Any, name: str) -> None:
    """Views, losses, logs, backward, optimiser and what follows; recommended and published settings; then features."""
    for config in (None, method_class(stage, name).paper()):
        with built(stage, name, config) as method, SimulatedCuda() as gpu:
            method.train().to(gpu.device)
            groups = method.parameter_groups(0.01, 1e-4)
            rates = [{"params": group["params"], "lr": group["lr"]} for group in groups]
            optimizer = LARS(rates, 0.01) if name == "simclr" else torch.optim.SGD(rates, momentum=0.9)
            for step in range(2):
                batch = some_batch().pin_memory().to(gpu.device)
                generator = SampleGenerator.for_step(0, step, torch.arange(COUNT), gpu.device)
                # The first step of a fresh method reads what a checkpoint may have left.
                gpu.forget()
                result = method(batch, generator)
                result.diagnostics()
                rows = None if result.features is None else result.features()
                result.loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                method.after_step(step + 1, 100)
                if step > 0:
                    assert gpu.waits == {}
            images = on_device(torch.randn(2, 3, *method.input_size))
            gpu.forget()
            with torch.no_grad():
                features = method.eval().encode(images, Modality.VISIBLE)
            assert gpu.waits == {}
            assert all(isinstance(value, DeviceTensor) for value in features.values())
            assert bool(result.loss.isfinite())
            assert rows is None or torch.allclose(rows.norm(dim=1).cpu(), torch.ones(COUNT))


# Corruptions and views


@pytest.mark.parametrize("name", library.names())
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_no_corruption_waits_and_each_equals_the_hosts(name: str, kind: torch.dtype) -> None:
    """All severities in one batch, drawn on the host and (noise) on the device."""
    smooth = nn.functional.interpolate(numbers(5, 3, 6, 4), size=(48, 32), mode="bilinear")
    images = smooth.mul(255).to(torch.uint8) if kind == torch.uint8 else smooth
    levels, seeds = torch.arange(1, 6), torch.arange(5)
    host = library.corrupt(images, name, levels, SampleGenerator(seeds))
    with SimulatedCuda() as gpu:
        there = on_device(images)
        with gpu.no_wait():
            damaged = library.corrupt(there, name, levels, SampleGenerator(seeds, gpu.device))
        ours = damaged.cpu()
    if name == "jpeg_compression":
        return  # the codec on the host, its transform on a device: compared in test_fixture.py
    step = 1 if kind == torch.uint8 else 1e-3
    difference = (ours.double() - host.double()).abs()
    assert float((difference > step).double().mean()) < 2e-3
    assert float(difference.mean()) < step


def test_chain_and_augmix_do_not_wait_and_equal_the_hosts() -> None:
    anchor = nn.functional.interpolate(numbers(6, 3, 6, 4), size=(48, 32), mode="bilinear")
    seeds, names = torch.arange(6), [name for name in library.IMAGENET_C if name != "jpeg_compression"]
    chain, mixed = noise_chain(anchor, SampleGenerator(seeds), names), augmix(anchor, SampleGenerator(seeds))
    with SimulatedCuda() as gpu:
        there, streams = on_device(anchor), SampleGenerator(seeds, gpu.device)
        with gpu.no_wait():
            ours, ours_mixed = noise_chain(there, streams, names), augmix(there, SampleGenerator(seeds, gpu.device))
        assert ours.names == chain.names
        for view in ("query", "first", "second", "mixed"):
            difference = (getattr(ours, view).cpu() - getattr(chain, view)).abs()
            assert float(difference.mean()) < 1e-3, view
        torch.testing.assert_close(ours_mixed.cpu(), mixed, atol=1 / 255 + 1e-6, rtol=0)


# The loop


class _Plain(AcceleratedOptimizer):  # type: ignore[misc]
    """The optimiser alone, behind the type that the loop expects."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Any = None) -> None:
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool | None = None) -> None:
        self.optimizer.zero_grad(set_to_none=bool(set_to_none))


class _OneDevice(Accelerator):  # type: ignore[misc]
    """What the loop asks of Accelerate, on the simulated device: no launcher, no mixed precision."""

    device, scaler, process_index, num_processes, is_main_process = DEVICE, None, 0, 1, True

    def __init__(self, **options: Any) -> None:
        pass

    def prepare(self, method: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        return method, _Plain(optimizer)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Breaks(MoCoV2):
    """Whose loss is no number for one image of one step, however often that step is done."""

    broken_step = 0
    seeds: tuple[int, ...] = ()

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        result = super().training_step(batch, generator)
        wanted = SampleGenerator.for_step(0, self.broken_step - 1, torch.arange(len(batch))).seeds
        return StepResult(result.loss * math.nan, result.logs) if torch.equal(wanted, generator.seeds) else result


def trained(
    figures: Path, folder: Path, steps: int, broken_step: int = 0, **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, Tensor], SimulatedCuda]:
    """Log lines, weights and waits of a training of ``steps`` steps."""
    dataset = Folder(figures)
    records = dataset.records("all")
    folder.mkdir(exist_ok=True)
    method = training_script.build(len(records), Breaks)
    method.broken_step = broken_step
    config = replace(training_script.train_config(steps), **settings)
    job = Job(
        dataset, records, InfiniteSampler(len(records), config.batch_size, 0), config,
        LoaderConfig(height=32, width=16, workers=0), folder, device="cuda:0",
    )  # fmt: skip
    ours = mock.patch.multiple(loop, Accelerator=_OneDevice, start_trackers=lambda *ignored: [])
    with SimulatedCuda() as gpu, ours:
        loop.train(method, job)
        weights = {name: tensor.cpu() for name, tensor in method.state_dict().items()}
    return read_metrics(folder), weights, gpu


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_figures(tmp_path_factory.mktemp("figures"), persons=10, pictures=2)


def test_the_loop_waits_for_lines_and_checkpoints_only_and_resumes(figures: Path, tmp_path: Path) -> None:
    seldom = {"checkpoint_every": 10, "log_every": 10}
    lines, weights, gpu = trained(figures, tmp_path / "once", 5, **seldom)
    assert [line["step"] for line in lines] == [5]
    places = {place.rpartition(" ")[2] for _, place in gpu.waits}
    allowed = {"place", "_restore", "_set_up", "<dictcomp>", "save", "_log", "_run", "__init__"}
    assert places <= allowed | {"package", "load"}, gpu.waits
    per_line = [count for (what, place), count in gpu.waits.items() if place.endswith("_log")]
    assert per_line == [1], "all numbers of a log line come at once"
    trained(figures, tmp_path / "twice", 3, **{**seldom, "checkpoint_every": 3})
    _, resumed, _ = trained(figures, tmp_path / "twice", 5, **seldom)
    for name, tensor in weights.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_logged_step_waits_once_for_all_numbers_together(figures: Path, tmp_path: Path) -> None:
    """Two steps with lines more cost two waits more; what is computed on the host is among the numbers."""
    every, seldom = (
        trained(figures, tmp_path / str(log_every), 3, checkpoint_every=10, log_every=log_every) for log_every in (1, 3)
    )
    assert [line["step"] for line in every[0]] == [1, 2, 3]
    more = Counter(what for what, _ in every[2].waits.elements())
    more.subtract(what for what, _ in seldom[2].waits.elements())
    assert +more == {"copy to the host": 2}
    assert [count for (_, place), count in every[2].waits.items() if place.endswith(" _log")] == [3]
    for line in every[0]:
        assert 0 < line["feature_std"] < 2
        assert 1 <= line["effective_rank"] <= 16


@pytest.mark.parametrize("first_checkpoint", [2, 100])
def test_a_loss_that_is_not_finite_is_found_by_doing_the_steps_again(
    figures: Path, tmp_path: Path, first_checkpoint: int
) -> None:
    """The flag is read at the line of step 5; step 4 broke. Nothing broken is saved."""
    with pytest.raises(TrainingError) as caught:
        trained(figures, tmp_path, 8, broken_step=4, log_every=5, checkpoint_every=first_checkpoint)
    message = str(caught.value)
    assert "not finite at step 4" in message
    assert "camera" in message
    saved = [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)]
    assert saved == ([2] if first_checkpoint == 2 else [])
    assert ("step_00000002" if saved else "no earlier checkpoint") in message


# The prepared run


@pytest.mark.parametrize(
    "part",
    ["parity", "corruptions", "search", *(pytest.param(name, marks=pytest.mark.slow) for name in ("steps", "growth"))],
)
def test_parts_of_the_prepared_run_reach_their_end_on_a_device(part: str, tmp_path: Path) -> None:
    """With the sizes of the smoke test; what they measure is no device's."""
    ours = mock.patch.multiple(loop, Accelerator=_OneDevice, start_trackers=lambda *ignored: [])
    options = gpu_run.Options(DEVICE, smoke=True, out=tmp_path)
    with SimulatedCuda(), ours:
        gpu_run.run_part(part, options)
    numbers = json.loads((tmp_path / f"{part}.json").read_text())
    if part == "parity":
        assert numbers["random bits that differ"] == 0
        assert max(numbers["relative difference of a step"].values()) < 1e-4
        assert numbers["difference of a score"] < 1e-6
    elif part == "corruptions":
        assert {*library.VISIBLE_20, "mixed", "chain groups"} <= numbers.keys()
    elif part == "steps":
        assert 0 < numbers["dapg"]["share of that"] < 1
        assert 0 <= numbers["loop"]["share of waiting"] < 1
    elif part == "growth":
        assert numbers["mAP, infrared to visible"].keys() == {"none, seed 0", "dapg, seed 0"}
    else:
        assert numbers["generated images/s"] > 0


# Features, scoring and poses


def test_features_and_clean_and_corrupted_scores_of_files_come_out_as_on_the_host(figures: Path) -> None:
    """The loader pins, images go to the device without waiting, and only features come back."""
    dataset, method = Folder(figures), small_agw()
    runtime = Runtime(batch_size=32, workers=0)
    settings = CorruptionSettings(types=("contrast",), repeats=1, detail="lists", height=64, width=32)
    mode = "cross-modal"

    def everything(device: torch.device) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
        encoder = FlipAveraged(MethodEncoder(method, device))
        colours = extract(HistogramEncoder((32, 16), device), dataset, dataset.records("all"), runtime)
        scores = clean_and_corrupted(encoder, dataset, [mode], settings, runtime)[mode]
        return {**colours.features}, {name: kind.means(encoder.headline) for name, kind in scores.items()}

    features, scores = everything(torch.device("cpu"))
    with SimulatedCuda() as gpu:
        there, there_scores = everything(gpu.device)
        assert {what for what, _ in gpu.waits} == {"copy to the host"}
        assert {place.rpartition(" ")[2] for _, place in gpu.waits} == {"encode_batches"}
    assert features.keys() == there.keys()
    for name, values in features.items():
        torch.testing.assert_close(there[name], values)
    assert list(scores) == ["clean", "all"]
    for name, means in scores.items():
        assert there_scores[name] == pytest.approx(means)


@pytest.mark.parametrize("protocol", [sysu.PROTOCOL, market1501.PROTOCOL, regdb.PROTOCOL], ids=lambda p: p.name)
def test_ranked_lists_and_scores_come_out_as_on_the_host(protocol: Protocol) -> None:
    query, gallery = numbers(12, 8) - 0.5, (numbers(40, 8) - 0.6).flip(0)
    gallery[5], gallery[7] = gallery[3], gallery[2]  # equally near ones keep the gallery's order
    many = torch.arange(40)
    labels = Labels(many[:12] % 4, many % 5 - 1, many[:12] % 2 * 3 + 3, many % 6 + 1, protocol)
    host, scores = rank(query, gallery, labels, 9), score_features(query, gallery, labels)
    with SimulatedCuda():
        there = rank(on_device(query), on_device(gallery), labels, 9)
        assert score_features(on_device(query), on_device(gallery), labels) == scores
    assert torch.equal(there.gallery, host.gallery)
    assert torch.equal(there.matches, host.matches)
    torch.testing.assert_close(there.similarity, host.similarity)


def test_features_similarities_and_re_ranking_come_out_as_on_the_host() -> None:
    method = small_agw()
    batch = some_batch()
    records = [Record(str(number)) for number in range(COUNT)]
    host = encode_batches(MethodEncoder(method, torch.device("cpu")), [batch], records)
    query, gallery = numbers(4, 8) - 0.5, numbers(30, 8) - 0.6
    similar = similarity(query, gallery)
    distances = reranked_distances(query, gallery, Rerank("k-reciprocal", k1=6, k2=3))
    with SimulatedCuda() as gpu:
        there = encode_batches(MethodEncoder(method, gpu.device), [batch], records)
        ours_similar = similarity(on_device(query), on_device(gallery))
        ours_distances = reranked_distances(on_device(query), on_device(gallery), Rerank("k-reciprocal", k1=6, k2=3))
        torch.testing.assert_close(ours_similar.cpu(), similar)
        torch.testing.assert_close(ours_distances.cpu(), distances)
    for name, values in host.features.items():
        torch.testing.assert_close(there.features[name], values)


class _Here(ThreadPoolExecutor):
    """Works in the thread that asks, the only one in which a device is simulated."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future


def test_a_gallery_is_filled_and_searched_as_on_the_host(figures: Path, tmp_path: Path) -> None:
    """Features come from the device; the search itself is the host's."""

    def answers(device: str) -> dict[int, float]:
        network = NetworkSettings("imagenet", BackboneConfig("mobilenet_v2"), height=64, width=32)
        with contextlib.closing(Gallery.create(tmp_path / device.replace(":", ""), network, device)) as gallery:
            assert gallery.index(figures).counts()["added"] == len(Folder(figures).records("all"))
            result = gallery.search(figures / "camera1" / "002_0.png", top=8)
        return {answer.picture.number: answer.score for answer in result.answers}

    host = answers("cpu")
    with SimulatedCuda() as gpu, mock.patch("dapg.gallery.indexing.ThreadPoolExecutor", _Here):
        assert answers("cuda:0") == pytest.approx(host, abs=2e-3)
        assert any(what == "copy to the host" for what, _ in gpu.waits)


def small_gan(preset: str, **changes: Any) -> train_gan.GanSettings:
    base = pose_settings(preset)
    return replace(
        base,
        generator=replace(base.generator, width=8, blocks=1),
        discriminator=replace(base.discriminator, width=4, halvings=2),
        loader=LoaderConfig(height=64, width=32),
        **changes,
    )


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("log_every, checkpoint_every, saved", [(100, 2, [2]), (5, 100, [])])
def test_a_pose_loss_that_is_not_finite_is_found_and_nothing_broken_is_saved(
    device: str, log_every: int, checkpoint_every: int, saved: list[int], tmp_path: Path
) -> None:
    """Step 4 breaks: at once on the host; on the device at the next checkpoint or line, by doing the steps again."""
    train = replace(
        pose_settings("demo").train, steps=6, batch_size=2, precision="fp32", log_every=log_every,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    settings = small_gan("demo", train=train, out=str(tmp_path), device=device)
    losses, steps = replace(settings.losses, features=0.0, identity=0.0), list[int]()
    real = train_gan._Step.__call__

    def breaks(step_of: train_gan._Step, batch: Batch, step: int, total: int) -> dict[str, Tensor]:
        steps.append(step + 1)
        terms = real(step_of, batch, step, total)
        return terms | {"reconstruction": terms["reconstruction"] * (math.nan if step == 3 else 1)}

    simulated = SimulatedCuda() if device != "cpu" else contextlib.nullcontext()
    with simulated, mock.patch.object(train_gan._Step, "__call__", breaks), pytest.raises(TrainingError) as caught:
        train_gan.train_gan(replace(settings, losses=losses))
    noticed = 4 if device == "cpu" else saved[0] + 2 if saved else 5
    again = [] if device == "cpu" else range(saved[0] + 1 if saved else 1, 5)
    assert steps == [*range(1, noticed + 1), *again]
    message = str(caught.value)
    assert "not finite at step 4 (reconstruction nan" in message
    assert "images of this process" in message
    assert ("step_00000002" if saved else "no earlier checkpoint") in message
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == saved


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_no_step_of_a_pose_generator_waits(preset: str) -> None:
    """Every term, mirrored, carried, there and back; and the published networks. The terms are those of the host."""
    base = pose_settings(preset)
    losses = (
        base.losses if preset == "paper" else replace(base.losses, features=1.0, identity=1.0, adversarial_from=0.0)
    )
    settings = small_gan(
        preset,
        losses=losses,
        pairs=base.pairs if preset == "paper" else replace(base.pairs, kind="self"),
        train=replace(base.train, precision="fp32"),
    )
    points = torch.rand(4, 18, 3, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.4
    images = nn.functional.interpolate(numbers(4, 3, 8, 4), size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)
    zeros = torch.zeros(4, dtype=torch.int64)
    batch = Batch(images, zeros, zeros, zeros, torch.arange(4))

    def terms(device: torch.device, pause: contextlib.AbstractContextManager[Any]) -> list[dict[str, Tensor]]:
        networks = train_gan.Networks(settings).to(device)
        step_of = train_gan._Step(settings, networks, train_gan._optimizer(networks, settings.train), points, device)
        there = (batch if device.type == "cpu" else batch.pin_memory()).to(device)
        first = step_of(there, 0, 10)  # which copies constants
        with pause:
            return [first, step_of(there, 1, 10)]

    host = terms(torch.device("cpu"), contextlib.nullcontext())
    with SimulatedCuda() as gpu:
        ours = [{name: float(value) for name, value in step.items()} for step in terms(gpu.device, gpu.no_wait())]
    assert host[0].keys() >= {"fools", "tells_apart", "reconstruction"} | ({"cycle"} if preset == "demo" else set())
    for here, there in zip(host, ours, strict=True):
        assert there == pytest.approx({name: float(value) for name, value in here.items()}, rel=1e-3, abs=1e-5)


def test_persons_are_posed_without_waiting() -> None:
    generator = build_generator(GeneratorConfig("attention", width=8, blocks=1, carry=True)).eval()
    points = torch.stack(list(canonical_poses().values()))
    pictures = numbers(2, 3, 64, 32).mul(255).to(torch.uint8)
    host = repose(generator, pictures, points, points[:2])
    with SimulatedCuda() as gpu:
        generator.to(gpu.device)
        there, poses = on_device(pictures), on_device(points)
        with gpu.no_wait(), torch.no_grad():  # the simulation has no inference mode
            posed = inspect.unwrap(repose)(generator, there, poses, poses[:2])
        assert int((posed.cpu().int() - host.int()).abs().max()) <= 1
