"""The loop: accumulation, precision, stops with a reason, validation, bad images, length."""

import itertools
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_script import FrozenNorms, build, train_config

from dapg.core import device
from dapg.core.batch import Batch, StepResult
from dapg.core.errors import DataError, TrainingError, UsageError, killed_loader
from dapg.core.metrics_log import read_metrics
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import TrainConfig
from dapg.data.loading import LoaderConfig
from dapg.data.samplers import InfiniteSampler
from dapg.data.sets.folder import Folder
from dapg.methods.base import Method
from dapg.methods.pretraining.mocov2 import MoCoV2
from dapg.training import checkpoint, trackers
from dapg.training.loop import Cancelled, Interrupt, Job, Progress, train
from figures import make_figures

SMALL = LoaderConfig(height=32, width=16, workers=0)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_figures(tmp_path_factory.mktemp("figures"), persons=10, pictures=2)


def run(
    figures: Path, folder: Path, config: TrainConfig, method: Method | None = None, **options: Any
) -> tuple[Progress, Method]:
    dataset = Folder(figures)
    records = dataset.records("all")
    method = method or build(len(records))
    folder.mkdir(exist_ok=True)
    loader = options.pop("loader", SMALL)
    sampler = InfiniteSampler(len(records), config.batch_size, 0)
    progress = train(method, Job(dataset, records, sampler, config, loader, folder, device="cpu", **options))
    return progress, method


class InBatch(FrozenNorms):
    """A loss that is a mean over samples: what accumulation must leave equal (a contrastive one sees its part only)."""

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        features = self.project(self._view(batch, self.settings.views, generator))
        loss = (features - features.roll(1, dims=1)).pow(2).sum(dim=1).mean()
        return StepResult(loss, {})


def test_accumulation_gives_the_same_weights(figures: Path, tmp_path: Path) -> None:
    states = []
    for parts in (1, 4):
        _, method = run(figures, tmp_path / str(parts), train_config(4, parts), build(60, InBatch))
        states.append(method.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=1e-5, rtol=1e-4)


def test_weights_move_and_lines_are_written(figures: Path, tmp_path: Path) -> None:
    before = build(60).state_dict()["backbone.conv1.weight"].clone()
    progress, method = run(figures, tmp_path, train_config(3))
    assert progress.step == 3
    assert not torch.equal(before, method.state_dict()["backbone.conv1.weight"])
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"loss", "positive_similarity", "feature_std", "effective_rank", "lr", "data_wait"} <= lines[0].keys()
    assert lines[0]["lr"] == pytest.approx(0.5e-3)  # first of two warm-up steps
    assert (tmp_path / "metrics.csv").read_text().startswith("step,kind,loss")


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_numbers(
    figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of a window of three steps."""
    config = replace(train_config(3), log_every=3)
    whole, _ = run(figures, tmp_path / "whole", config)
    after_step = MoCoV2.after_step

    def pressed(self: MoCoV2, step: int, total: int) -> None:
        after_step(self, step, total)
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(MoCoV2, "after_step", pressed)
    with pytest.raises(Cancelled, match=r"stopped by Ctrl-C at step 1; checkpoint: .*step_00000001") as caught:
        run(figures, tmp_path / "cut", config)
    assert caught.value.exit_code == 130
    monkeypatch.undo()
    assert run(figures, tmp_path / "cut", config)[0].logs == whole.logs


def test_a_killed_loader_process_is_named(figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_step = MoCoV2.after_step

    def killed(self: MoCoV2, step: int, total: int) -> None:
        after_step(self, step, total)
        if step == 3:
            for child in multiprocessing.active_children():  # one of them may be left from an earlier run
                child.kill()
            time.sleep(5)  # torch tells of the death from a signal handler: here, not within pytest or a shape check

    monkeypatch.setattr(MoCoV2, "after_step", killed)
    with pytest.raises((TrainingError, RuntimeError)) as error:
        run(figures, tmp_path, train_config(40), loader=replace(SMALL, workers=1, memory=0))
    # Torch tells of the death from a signal handler too, at any moment; the command line then says the same sentence.
    raised = error.value
    said = killed_loader(raised) if isinstance(raised, RuntimeError) else str(raised)
    assert re.match(r"a loader process was killed \(DataLoader worker ", said)
    assert isinstance(raised, RuntimeError) or "last good checkpoint: " in said
    assert "\n" not in said


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not the copy of the first that a launcher sends on."""
    interrupt = Interrupt()
    try:
        monkeypatch.setattr(Interrupt, "same_press", 3600.0)
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.received
        monkeypatch.setattr(Interrupt, "same_press", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        interrupt.restore()


def test_tensorboard_gets_the_logged_numbers_once_also_after_a_resume(figures: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in (2, 4):  # the second run goes on from the checkpoint of step 2
        run(figures, tmp_path / "run", replace(train_config(steps), tracker="tensorboard"))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [(line["step"], line["loss"]) for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (step, pytest.approx(loss)) for step, loss in logged
    ]


def test_a_tracker_that_is_missing_or_does_not_start_is_named(
    figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(train_config(1), tracker="tensorboard")
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    with pytest.raises(UsageError, match=r"--train\.tracker tensorboard is not installed: pip install tensorboard"):
        run(figures, tmp_path / "missing", config)
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file in its place")
    with pytest.raises(UsageError, match=r"--train\.tracker tensorboard does not start: .*tensorboard"):
        run(figures, tmp_path / "run", config)


def test_epochs_become_steps(figures: Path, tmp_path: Path) -> None:
    assert TrainConfig(epochs=2.0).total_steps(60 / 16) == 8  # 120 / 16 = 7.5
    progress, _ = run(figures, tmp_path, replace(train_config(0), epochs=0.5))
    assert progress.step == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_pictures_and_checkpoint(
    value: float, figures: Path, tmp_path: Path
) -> None:
    class Breaks(MoCoV2):
        calls = 0

        def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
            result = super().training_step(batch, generator)
            self.calls += 1
            return StepResult(result.loss * value, result.logs) if self.calls == 4 else result

    with pytest.raises(TrainingError) as caught:
        run(figures, tmp_path, train_config(6), build(60, Breaks))
    message = str(caught.value)
    assert "step 4" in message
    assert "camera" in message  # paths of the batch's images
    assert "step_00000002" in message  # the last checkpoint before it
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == [2]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """A loss may be finite where its gradient is not."""
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    checkpoint.save(tmp_path, 1, layer, optimizer, {})
    (layer.weight[0, 0] * 0).sqrt().backward()
    optimizer.step()
    said = r"step_00000002: not finite: weight; last good checkpoint: .*step_00000001\. Try a lower learning rate"
    with pytest.raises(TrainingError, match=said):
        checkpoint.save(tmp_path, 2, layer, optimizer, {})
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == [1]


class Counting(MoCoV2):
    """Gives the number of the step as a log and as a diagnostic, and notes when it is asked for the latter."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.step, self.asked = 0, list[int]()

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        self.step += 1

        def diagnostics() -> dict[str, torch.Tensor]:
            self.asked.append(self.step)
            return {"latest": torch.tensor(float(self.step))}

        loss = super().training_step(batch, generator).loss
        return StepResult(loss, {"mean": torch.tensor(float(self.step))}, diagnostics)


def test_logs_are_means_over_the_steps_of_a_line_and_diagnostics_those_of_its_last_step(
    figures: Path, tmp_path: Path
) -> None:
    _, method = run(figures, tmp_path, replace(train_config(5), log_every=3), build(60, Counting))
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert [(line["step"], line["mean"], line["latest"]) for line in lines] == [(3, 2.0, 3.0), (5, 4.5, 5.0)]
    assert isinstance(method, Counting)
    assert method.asked == [3, 5]


class Spreads(MoCoV2):
    """Four orthogonal features in the first part of a step, four equal ones in the second."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows = itertools.cycle((torch.eye(4), torch.ones(4, 4) / 2))

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        rows = next(self.rows)
        return replace(super().training_step(batch, generator), features=lambda: rows)


def test_the_spread_of_features_is_the_mean_over_accumulated_parts(figures: Path, tmp_path: Path) -> None:
    """Alone they have ranks 4 and 1, and spreads of √4 times √(1/4 - 1/16) and of 0."""
    run(figures, tmp_path, train_config(2, accumulation=2), build(60, Spreads))
    for line in read_metrics(tmp_path):
        assert line["effective_rank"] == pytest.approx((4 + 1) / 2)
        assert line["feature_std"] == pytest.approx((2 * math.sqrt(3 / 16) + 0) / 2)


class Collapsing(MoCoV2):
    """All features alike from the first step on."""

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        result = super().training_step(batch, generator)
        return StepResult(result.loss, {**result.logs, "feature_std": torch.tensor(0.001)})


def test_a_collapse_stops_the_run_or_is_said(figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match="collapsed at step 3"):
        run(figures, tmp_path / "stop", train_config(6), build(60, Collapsing))
    progress, _ = run(figures, tmp_path / "warn", replace(train_config(6), on_collapse="warn"), build(60, Collapsing))
    assert progress.step == 6
    assert "collapsed" in "".join(capsys.readouterr())


def test_identical_features_really_lower_the_logged_spread(figures: Path, tmp_path: Path) -> None:
    method = build(60)
    for parameter in method.head.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(TrainingError, match="collapsed"):
        run(figures, tmp_path, replace(train_config(6), optimizer=replace(train_config(6).optimizer, lr=0.0)), method)


def scores_of(values: list[float]) -> Callable[[Method], dict[str, float]]:
    remaining = iter(values)
    return lambda method: {"mAP": next(remaining)}


def test_early_stop_and_the_best_checkpoint_is_kept(figures: Path, tmp_path: Path) -> None:
    config = replace(train_config(12), validate_every=2, early_stop=2, keep_last=1)
    progress, _ = run(figures, tmp_path, config, validate=scores_of([0.1, 0.5, 0.3, 0.2, 0.9, 0.9]))
    assert (progress.step, progress.best_step, progress.best_score) == (8, 4, 0.5)
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == [4, 8]
    validations = [line for line in read_metrics(tmp_path) if line["kind"] == "validation"]
    assert [line["mAP"] for line in validations] == [0.1, 0.5, 0.3, 0.2]
    again, _ = run(figures, tmp_path, config, validate=scores_of([]))  # killed before its result was written
    assert again.step == 8
    extended, _ = run(figures, tmp_path, replace(config, steps=16), validate=scores_of([0.1, 0.1]))
    assert extended.step == 12


def test_validation_leaves_training_mode_and_randomness_alone(figures: Path, tmp_path: Path) -> None:
    def noisy(method: Method) -> dict[str, float]:
        assert not method.training
        return {"mAP": float(torch.rand(100).sum())}

    _, plain = run(figures, tmp_path / "plain", train_config(4))
    _, validated = run(figures, tmp_path / "validated", replace(train_config(4), validate_every=1), validate=noisy)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(validated.state_dict()[name], tensor), name


def test_an_unreadable_picture_is_replaced_listed_and_survives_a_resume(tmp_path: Path) -> None:
    root = make_figures(tmp_path / "figures", persons=10, pictures=2)
    broken = root / "camera1" / "003_0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    progress, _ = run(root, tmp_path / "run", train_config(12))
    assert list(progress.bad_images) == ["camera1/003_0.png"]
    reason, replacement = progress.bad_images["camera1/003_0.png"]
    assert "003_0.png" in reason
    assert replacement == "camera1/003_1.png"  # the same person in the same modality
    again, _ = run(root, tmp_path / "run", train_config(13))
    assert "camera1/003_0.png" in again.bad_images
    with pytest.raises(DataError, match=r"003_0\.png"):
        run(root, tmp_path / "strict", train_config(12), loader=replace(SMALL, on_bad_image="fail"))


def test_a_full_disk_keeps_the_earlier_checkpoint(
    figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(value: object, path: Path) -> None:
        if "step_00000004" in str(path):
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"No space left.*step_00000002"):
        run(figures, tmp_path, train_config(6))
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == [2]
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_a_truncated_checkpoint_is_passed_over(figures: Path, tmp_path: Path) -> None:
    run(figures, tmp_path, train_config(4))
    newest = checkpoint.whole_checkpoints(tmp_path)[-1]
    weights = newest.folder / "method.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert [whole.step for whole in checkpoint.whole_checkpoints(tmp_path)] == [2]


@pytest.mark.parametrize("victim", ["method.safetensors", "rank0.pt", "manifest.json"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_is_named(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], victim: str
) -> None:
    """A bit that turned on the disk changes no length; only the hash tells."""
    run(figures, tmp_path / "whole", train_config(4))
    run(figures, tmp_path / "run", train_config(4))
    file = tmp_path / "run" / "checkpoints" / "step_00000004" / victim
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 128
    file.write_bytes(content)
    run(figures, tmp_path / "run", train_config(4))
    assert f"{file.parent} is damaged; going on from step 2" in capsys.readouterr().err
    files = [tmp_path / name / "checkpoints" / "step_00000004" / "method.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes(), "its steps were done again"


def test_no_readable_checkpoint_is_an_error(figures: Path, tmp_path: Path) -> None:
    run(figures, tmp_path, train_config(2))
    for manifest in tmp_path.glob("checkpoints/*/manifest.json"):
        manifest.write_text("[]")
    with pytest.raises(DataError, match=r"no checkpoint below .* can be read; delete .* to begin again"):
        run(figures, tmp_path, train_config(2))


def test_bf16_trains(figures: Path, tmp_path: Path) -> None:
    progress, method = run(figures, tmp_path, replace(train_config(3), precision="bf16"))
    assert math.isfinite(progress.logs["loss"])
    assert {parameter.dtype for parameter in method.backbone.parameters()} == {torch.float32}


def test_auto_precision_is_said_and_kept(figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What auto means is the machine's; a run does not change it on its way."""
    weights = {}
    for precision in ("bf16", "fp32"):
        monkeypatch.setattr(device, "has_amx", lambda precision=precision: precision == "bf16")
        progress, method = run(figures, tmp_path / precision, replace(train_config(2), precision="auto"))
        assert progress.precision == precision
        _, plain = run(figures, tmp_path / f"{precision} asked", replace(train_config(2), precision=precision))
        weights[precision] = method.state_dict()
        assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in weights[precision].items())
    assert not all(torch.equal(tensor, weights["fp32"][name]) for name, tensor in weights["bf16"].items())
    with pytest.raises(UsageError, match=r"began in bf16, which is not what .*auto means on this machine \(fp32\)"):
        run(figures, tmp_path / "bf16", replace(train_config(4), precision="auto"))


def test_wrong_use_is_refused(figures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        run(figures, tmp_path / "a", replace(train_config(3), precision="fp16"))
    with pytest.raises(UsageError, match="split evenly"):
        run(figures, tmp_path / "b", train_config(3, accumulation=3))
    run(figures, tmp_path / "c", train_config(4))
    with pytest.raises(UsageError, match="already trained 4 steps"):
        run(figures, tmp_path / "c", train_config(2))
    if torch.cuda.is_available():
        return
    dataset = Folder(figures)
    records, sampler = dataset.records("all"), InfiniteSampler(60, 16, 0)
    with pytest.raises(UsageError, match="no GPU"):
        train(build(60), Job(dataset, records, sampler, train_config(1), SMALL, tmp_path, device="cuda"))


def test_clipping_is_logged(figures: Path, tmp_path: Path) -> None:
    progress, _ = run(figures, tmp_path, replace(train_config(3), clip_norm=0.01))
    assert progress.logs["gradient_norm"] > 0
