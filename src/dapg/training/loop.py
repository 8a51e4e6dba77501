"""The one training loop: batches in, checkpoints and numbers out. It knows ``methods/base.py`` and no method.

Accelerate carries devices, mixed precision and data parallelism (several processes are launched by torchrun). What
makes a run exactly resumable is not there but in three habits: the images of step t and all draws for them are
functions of (seed, t), nothing else has memory than the method and the optimiser, and both are in the checkpoint.
"""

import copy
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, NoReturn

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from dapg.core import distributed
from dapg.core.batch import Batch, StepResult, spread
from dapg.core.device import faster_precision, keep_freed_memory, place, resolve_device
from dapg.core.errors import DapgError, TrainingError, UsageError, killed_loader
from dapg.core.metrics_log import MetricsLog
from dapg.core.progress import Bar, progress_bar
from dapg.core.rng import SampleGenerator
from dapg.core.seeds import derive_seed
from dapg.core.settings import flat, from_dict, to_dict
from dapg.core.train_config import TrainConfig
from dapg.core.types import JsonObject, Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, training_batches
from dapg.data.samplers import LocalBatches, Sampler
from dapg.methods.base import Method
from dapg.training import checkpoint
from dapg.training.optimizers import build_optimizer, learning_rate
from dapg.training.trackers import require_tracker, start_trackers

Validate = Callable[[Method], dict[str, float]]
"""Scores of a method, the first of which chooses the best checkpoint (higher is better)."""

MakeValidate = Callable[[Dataset, str, Sequence[int]], Validate]
"""Scores of a data set's mode for the loop, on trials without the given training persons."""

COLLAPSED_STD = 0.05
"""Below this share of an even spread (see ``core/batch.py: spread``) features count as collapsed."""


@dataclass
class Progress:
    """What the loop remembers beside method and optimiser; in every checkpoint."""

    step: int = 0
    precision: str = ""
    """fp32, bf16 or fp16; what ``auto`` means here."""
    seconds: float = 0.0
    waited: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    worse_validations: int = 0
    stopped_of: int = 0
    """Steps asked for when early stopping ended the run; only more of them begin it again."""
    collapsed_logs: int = 0
    bad_images: dict[str, list[str]] = field(default_factory=dict)
    logs: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


class Terminated(DapgError):
    """SIGTERM arrived; the work is saved and can be resumed."""

    exit_code = 143


class Cancelled(Terminated):
    """Ctrl-C was pressed; the work is saved and can be resumed."""

    exit_code = 130


class Interrupt:
    """Remembers SIGTERM and SIGINT (Ctrl-C) until the current step is done; a second Ctrl-C ends at once."""

    same_press = 1.0
    """Seconds in which a further SIGINT is the same one: torchrun sends on what the terminal has sent already."""

    def __init__(self) -> None:
        self.received = False
        self._pressed: float | None = None
        main = threading.current_thread() is threading.main_thread()
        caught = (signal.SIGTERM, signal.SIGINT) if main else ()
        self._before = {number: signal.signal(number, self._note) for number in caught}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._pressed is None:
            self._pressed = now
            if distributed.rank() == 0:
                os.write(2, b"\nstopping after this step; Ctrl-C again ends at once\n")
        elif now - self._pressed > self.same_press:
            self.restore()
            raise KeyboardInterrupt

    def stopped(self, where: str) -> Terminated:
        """The error to raise once the work is saved; ``where`` names the step and the checkpoint."""
        if self._pressed is None:
            return Terminated(f"stopped by SIGTERM {where}. Run it again to go on.")
        return Cancelled(f"stopped by Ctrl-C {where}. Run it again to go on.")

    def restore(self) -> None:
        """Give both signals back to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Job:
    """What a method is trained on, for how long, and where."""

    dataset: Dataset
    """Opens the records."""
    records: Sequence[Record]
    """What the sampler's numbers stand for."""
    sampler: Sampler
    """The images of each step."""
    config: TrainConfig
    loader: LoaderConfig
    run: Path
    """Folder for checkpoints and metrics."""
    seed: int = 0
    """Of every draw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    validate: Validate | None = None
    """Called on rank 0 every ``config.validate_every`` steps and at the end."""


class FiniteCheck:
    """Whether all losses were finite: looked at in each step on a CPU, gathered on a GPU until somebody asks."""

    def __init__(self, records: Sequence[Record], run: Path, at_once: bool) -> None:
        """``records`` are what batches are made of, ``run`` the folder of the checkpoints."""
        self.records, self.run, self.at_once = records, run, at_once
        self.failed: Tensor | None = None
        """Set on the device where a loss was not finite; None where each is looked at."""

    def add(self, step: int, losses: list[Tensor], indices: list[Tensor], logs: dict[str, Tensor]) -> None:
        """Take the losses of one step.

        Raises:
            TrainingError: one is NaN or infinite, and they are looked at; names step, terms, images and checkpoint.
        """
        broken = ~torch.stack(losses).isfinite().all()
        if not self.at_once:
            self.failed = broken if self.failed is None else self.failed | broken
            return
        if not bool(broken):
            return
        numbers = torch.cat(indices).tolist()
        files = ", ".join(self.records[number].path for number in numbers[:8])
        more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in logs.items())
        raise TrainingError(
            f"the loss is not finite at step {step + 1} ({terms}); images of this process: {files}{more}"
            f"{checkpoint.last_good(self.run)}. {_REMEDY}"
        )


_REMEDY = "Try a lower learning rate, clipping or fp32."


@dataclass
class Trainer:
    """Everything one call of ``train`` works with; built by ``train``, not by hand."""

    method: Method
    job: Job
    total_steps: int
    accelerator: Accelerator
    model: nn.Module
    """The method, wrapped where there are several processes."""
    optimizer: AcceleratedOptimizer
    batches: LocalBatches
    metrics: MetricsLog | None
    progress: Progress
    window: "_Window"
    beginning: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    """States of method and optimiser at the first step, on the host, until there is a checkpoint; a GPU's only."""

    @property
    def config(self) -> TrainConfig:
        """Length, optimiser, precision."""
        return self.job.config

    @property
    def device(self) -> torch.device:
        """Where the method lives."""
        return torch.device(self.accelerator.device)


def train(method: Method, job: Job) -> Progress:
    """Train a method, which is moved to the job's device, to the last step; go on from its newest whole checkpoint.

    Raises:
        TrainingError: NaN, infinity, collapse or a full disk.
        Terminated: SIGTERM or Ctrl-C; the checkpoint is named.
    """
    config = job.config
    if job.validate is None and (config.validate_every or config.early_stop):
        raise UsageError(
            "--train.validate_every and --train.early_stop need --validation MODE: there is nothing to score"
        )
    trainer = _set_up(method, job)
    pin_memory = trainer.device.type == "cuda"
    source = training_batches(job.dataset, job.records, trainer.batches, job.loader, pin_memory)
    total, step = trainer.total_steps, trainer.progress.step
    interrupt = Interrupt()
    try:
        with progress_bar("training", "step", total, step, trainer.accelerator.is_main_process) as bar:
            _run(trainer, iter(source), interrupt, bar)
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU is out of memory at step {trainer.progress.step + 1}; lower --train.batch_size, raise "
            f"--train.accumulation or use --train.precision bf16{checkpoint.last_good(job.run)}"
        ) from error
    except RuntimeError as error:
        # Whoever stops a whole job sends SIGTERM to the loader's processes as well, and they may be the first to end.
        if not interrupt.received:
            if said := killed_loader(error):
                step = trainer.progress.step + 1
                raise TrainingError(f"{said}. This was in step {step}{checkpoint.last_good(job.run)}") from error
            raise
        raise interrupt.stopped(f"in step {trainer.progress.step + 1}{checkpoint.last_good(job.run)}") from error
    finally:
        interrupt.restore()
        if trainer.metrics is not None:
            trainer.metrics.close()
    return trainer.progress


def _set_up(method: Method, job: Job) -> Trainer:
    config, run = job.config, job.run
    distributed.die_with_parent()
    target = resolve_device(job.device)
    if target.type == "cpu":
        keep_freed_memory()
    if config.precision == "fp16" and target.type == "cpu":
        raise UsageError("--train.precision fp16 needs a GPU; use bf16 or fp32")
    precision = faster_precision(method, target) if config.precision == "auto" else config.precision
    require_tracker(config.tracker)
    AcceleratorState._reset_state()  # a process may run several stages with different settings
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        cpu=target.type == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=run,
    )
    if target.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if accelerator.num_processes > 1:
            method = distributed.with_synchronised_batch_norms(method)
    place(method, accelerator.device)
    groups = method.parameter_groups(_base_rate(config), config.optimizer.weight_decay)
    optimizer = build_optimizer(config.optimizer, groups)
    if config.compile:
        method.compile_network()
    model, optimizer = accelerator.prepare(method, optimizer)
    progress, window = _restore(run, method, optimizer, accelerator)
    if progress.precision not in ("", precision):
        raise UsageError(
            f"{run} began in {progress.precision}, which is not what --train.precision auto means on this machine "
            f"({precision}); go on where it began, or give another --out"
        )
    progress.precision = precision
    total = config.total_steps(float(job.sampler.steps_per_epoch))
    if progress.step > total:
        raise UsageError(f"{run} has already trained {progress.step} steps, more than the {total} asked for")
    rank, count = accelerator.process_index, accelerator.num_processes
    batches = LocalBatches(job.sampler, progress.step, total, rank, count, config.accumulation)
    _refuse_small_batch(method.smallest_batch, batches)
    trackers = start_trackers(accelerator, run, progress.step, {"seed": job.seed, **flat(to_dict(config))})
    metrics = MetricsLog(run, progress.step, trackers) if accelerator.is_main_process else None
    beginning = None
    if target.type != "cpu" and not progress.step:
        state = {name: tensor.detach().cpu().clone() for name, tensor in method.state_dict().items()}
        beginning = state, optimizer.optimizer.state_dict()
    return Trainer(method, job, total, accelerator, model, optimizer, batches, metrics, progress, window, beginning)


def _refuse_small_batch(smallest: int, batches: LocalBatches) -> None:
    if batches.local_size >= smallest:
        return
    least = smallest * batches.world_size * batches.accumulation
    raise UsageError(
        f"a batch of {batches.sampler.batch_size} is too small: the method learns from {smallest} images or more at "
        f"a time, in each process and accumulated part; give --train.batch_size {least} or more"
    )


def _base_rate(config: TrainConfig) -> float:
    """Learning rate for this batch size: linear scaling (Goyal et al. 2017) from the batch it is given for."""
    reference = config.optimizer.lr_batch
    return config.optimizer.lr * (config.batch_size / reference if reference else 1.0)


def _restore(
    run: Path, method: Method, optimizer: AcceleratedOptimizer, accelerator: Accelerator
) -> tuple[Progress, "_Window"]:
    load = functools.partial(_load, method=method, optimizer=optimizer, accelerator=accelerator)
    return checkpoint.restore(run, torch.device(accelerator.device), load) or (Progress(), _Window())


def _load(
    candidate: checkpoint.Checkpoint, method: Method, optimizer: AcceleratedOptimizer, accelerator: Accelerator
) -> tuple[Progress, "_Window"]:
    state = checkpoint.load(candidate, method, optimizer.optimizer)
    if accelerator.scaler is not None and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    progress = from_dict(Progress, state.get("progress"), f"checkpoint {candidate.folder}: ")
    return progress, _Window(state.get("window"), accelerator.device)


def _run(trainer: Trainer, source: Iterator[Batch], interrupt: Interrupt, bar: Bar) -> None:
    config, progress = trainer.config, trainer.progress
    check = FiniteCheck(trainer.job.records, trainer.job.run, at_once=trainer.device.type == "cpu")
    window = trainer.window
    window.open()
    if progress.stopped_of == trainer.total_steps:  # ended before its result was written
        return
    if progress.stopped_of:  # extended: its patience begins anew
        progress.stopped_of = progress.worse_validations = 0
    while progress.step < trainer.total_steps:
        last = progress.step + 1 == trainer.total_steps
        logging = (progress.step + 1) % config.log_every == 0 or last
        _one_step(trainer, source, logging, window, check)
        bar.update(1)
        if logging:
            window.close(progress)
            _log(trainer, window, check, bar)
        stop, best = _validate_if_due(trainer, last)
        if stop:
            progress.stopped_of = trainer.total_steps
        stopping = _asked_to_stop(trainer, interrupt)
        if progress.step % config.checkpoint_every == 0 or last or stop or best or stopping:
            if check.failed is not None and distributed.any_process(bool(check.failed), trainer.device):
                _find_broken_step(trainer)
            window.close(progress)
            saved = _save(trainer)
            trainer.beginning = None
            if stopping and not last:
                raise interrupt.stopped(f"at step {progress.step}; checkpoint: {saved}")
        if stop:
            return


def _one_step(trainer: Trainer, source: Iterator[Batch], logging: bool, window: "_Window", check: FiniteCheck) -> None:
    """Forward and backward of every part, then one optimiser step; ``window`` takes the logs, averaged over parts."""
    config, accelerator, step = trainer.config, trainer.accelerator, trainer.progress.step
    steps_per_epoch = float(trainer.batches.sampler.steps_per_epoch)
    factor = learning_rate(step, trainer.total_steps, 1.0, config.schedule, steps_per_epoch)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    torch.manual_seed(derive_seed("torch", trainer.job.seed, step, distributed.rank()))  # for dropout inside networks
    trainer.model.train()
    trainer.optimizer.zero_grad(set_to_none=True)
    logs, diagnostics = dict[str, Tensor](), dict[str, Tensor]()
    losses: list[Tensor] = []
    indices: list[Tensor] = []
    features: list[Tensor] = []
    for part in range(config.accumulation):
        waiting = time.perf_counter()
        batch = next(source)
        window.waited += time.perf_counter() - waiting
        window.pictures += len(batch)
        for bad in batch.bad_images:
            trainer.progress.bad_images[bad.name] = [bad.reason, bad.replacement]
        first = trainer.batches.first_position(part)
        positions = torch.arange(first, first + len(batch))
        indices.append(batch.indices)
        batch = batch.to(trainer.device)
        generator = SampleGenerator.for_step(trainer.job.seed, step, positions, trainer.device)
        if part + 1 < config.accumulation:
            with accelerator.no_sync(trainer.model):
                result, numbers, rows = _forward_backward(trainer, batch, generator, logging)
        else:
            result, numbers, rows = _forward_backward(trainer, batch, generator, logging)
        losses.append(result.loss.detach())
        _add(logs, {"loss": result.loss, **result.logs}, 1 / config.accumulation)
        _add(diagnostics, numbers, 1 / config.accumulation)
        features += rows
    check.add(step, losses, indices, logs)
    if config.clip_norm > 0:
        logs["gradient_norm"] = accelerator.clip_grad_norm_(trainer.model.parameters(), config.clip_norm).detach()
    trainer.optimizer.step()
    window.add(logs, diagnostics, features)
    trainer.progress.step = step + 1
    trainer.method.after_step(step + 1, trainer.total_steps)


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor], share: float) -> None:
    for name, value in values.items():
        term = value.detach().float() * share
        sums[name] = sums[name] + term if name in sums else term


def _forward_backward(
    trainer: Trainer, batch: Batch, generator: SampleGenerator, logging: bool
) -> tuple[StepResult, dict[str, Tensor], list[Tensor]]:
    """The step's result; where they are logged, its diagnostics and (in a list of one, if it has any) its features."""
    result: StepResult = trainer.model(batch, generator)
    diagnostics, features = dict[str, Tensor](), list[Tensor]()
    if logging:
        with trainer.accelerator.autocast():
            diagnostics = result.diagnostics()
            if result.features is not None:
                features = [result.features().detach().float()]
    trainer.accelerator.backward(result.loss / trainer.config.accumulation)
    return result, diagnostics, features


class _Window:
    """Numbers, time and images since the last log line."""

    def __init__(self, stored: JsonObject | None = None, device: torch.device | None = None) -> None:
        """Empty, or with the numbers that a checkpoint holds."""
        self.open()
        self.rate, self.wait_share = 0.0, 0.0
        self._steps: int = stored["steps"] if stored else 0
        self._sums: dict[str, Tensor] = {k: v.to(device) for k, v in stored["sums"].items()} if stored else {}
        self._diagnostics = dict[str, Tensor]()
        self.features = list[Tensor]()
        """Of the last step's parts, each (B, D), if it was logged and its method has them."""

    def open(self) -> None:
        """Count time and images from now."""
        self.waited, self.pictures, self._opened = 0.0, 0, time.perf_counter()

    def state(self) -> JsonObject:
        """The numbers since the last log line, for a checkpoint."""
        return {"steps": self._steps, "sums": {name: total.cpu() for name, total in self._sums.items()}}

    def add(self, logs: Mapping[str, Tensor], diagnostics: dict[str, Tensor], features: list[Tensor]) -> None:
        """Take the numbers of one step."""
        self._steps += 1
        _add(self._sums, logs, 1.0)
        self._diagnostics, self.features = diagnostics, features

    def take_numbers(self) -> dict[str, Tensor]:
        """Means of the logs over the steps since the last call, and the diagnostics of the last step."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        self._steps, self._sums = 0, {}
        return means | self._diagnostics

    def close(self, progress: Progress) -> None:
        """Book the window into the run's totals and open the next one."""
        seconds = time.perf_counter() - self._opened
        progress.seconds += seconds
        progress.waited += self.waited
        if self.pictures:
            self.rate = self.pictures * distributed.world_size() / max(seconds, 1e-9)
            self.wait_share = self.waited / max(seconds, 1e-9)
        self.open()


def _log(trainer: Trainer, window: _Window, check: FiniteCheck, bar: Bar) -> None:
    """Average over processes, write, and look for a collapse."""
    progress, numbers = trainer.progress, window.take_numbers()
    failed = torch.zeros_like(next(iter(numbers.values()))) if check.failed is None else check.failed.float()
    values = torch.stack([*numbers.values(), failed])
    features = torch.stack(window.features) if window.features else values.new_zeros(0, 0, 0)  # (parts, B, D)
    if distributed.active():
        values = trainer.accelerator.reduce(values, reduction="mean")
        features = distributed.gather_without_gradient(features)
    # Everything comes from the device at once. The spread needs singular values, which a device would wait for as well.
    arrived = torch.cat([values, features.flatten()]).cpu()
    *means, share_failed = arrived[: len(values)].tolist()
    if share_failed > 0:
        _find_broken_step(trainer)
    progress.logs = dict(zip(numbers, means, strict=True))
    spreads = [spread(part) for part in arrived[len(values) :].view(features.shape)]
    for name in spreads[0] if spreads else ():
        progress.logs[name] = fmean(float(part[name]) for part in spreads)
    feature_std = progress.logs.get("feature_std", 1.0)
    progress.collapsed_logs = progress.collapsed_logs + 1 if feature_std < COLLAPSED_STD else 0
    if trainer.metrics is not None:
        line = {
            **progress.logs,
            "lr": trainer.optimizer.param_groups[0]["lr"],
            "pictures_per_second": window.rate,
            "data_wait": window.wait_share,
        }
        trainer.metrics.write(progress.step, "train", line)
    bar.set_postfix_str(f"loss {progress.logs['loss']:.3f}, {window.rate:.0f} images/s", refresh=False)
    if progress.collapsed_logs == 3:
        message = (
            f"the features have collapsed at step {progress.step}: their spread is {feature_std:.3g} of an even one"
            f"{checkpoint.last_good(trainer.job.run)}. Try a lower learning rate or temperature."
        )
        if trainer.config.on_collapse == "stop":
            raise TrainingError(message)
        tqdm.write(f"warning: {message}")


def _find_broken_step(trainer: Trainer) -> NoReturn:
    """Do the steps since the last checkpoint again, which are functions of (seed, step), and look at each loss.

    Raises:
        TrainingError: names the step whose loss is not finite, or those among which it was, should it not come again.
    """
    reached, job = trainer.progress.step, trainer.job
    if trainer.beginning is None:
        trainer.progress, _ = _restore(job.run, trainer.method, trainer.optimizer, trainer.accelerator)
    else:
        trainer.progress = Progress()
        trainer.method.load_state_dict(trainer.beginning[0])
        trainer.optimizer.optimizer.load_state_dict(trainer.beginning[1])
    first = trainer.progress.step
    trainer.batches = copy.copy(trainer.batches)
    trainer.batches.start_step = first
    source = training_batches(job.dataset, job.records, trainer.batches, job.loader, pin_memory=False)
    check, window = FiniteCheck(job.records, job.run, at_once=True), _Window()
    while trainer.progress.step < reached:
        _one_step(trainer, source, False, window, check)
    raise not_found_again(first, reached, job.run)


def not_found_again(first: int, reached: int, run: Path) -> TrainingError:
    """For a loss of steps ``first`` + 1 to ``reached`` that was not finite, but is when they are done again."""
    return TrainingError(
        f"a loss of steps {first + 1} to {reached} was not finite, though none was when they were done again"
        f"{checkpoint.last_good(run)}. {_REMEDY}"
    )


def _validate_if_due(trainer: Trainer, last: bool) -> tuple[bool, bool]:
    """Scores of rank 0; whether early stopping ends the run, and whether this is the best score so far."""
    config, progress = trainer.config, trainer.progress
    due = last or (config.validate_every > 0 and progress.step % config.validate_every == 0)
    if trainer.job.validate is None or not due:
        return False, False
    if trainer.accelerator.is_main_process:
        trainer.method.eval()
        with torch.no_grad():
            progress.scores = trainer.job.validate(trainer.method)
        score = next(iter(progress.scores.values()))
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.best_step, progress.worse_validations = score, progress.step, 0
        else:
            progress.worse_validations += 1
        if trainer.metrics is not None:
            trainer.metrics.write(progress.step, "validation", progress.scores)
    stop = config.early_stop > 0 and progress.worse_validations >= config.early_stop
    best = progress.best_step == progress.step
    return distributed.any_process(stop, trainer.device), distributed.any_process(best, trainer.device)


def _asked_to_stop(trainer: Trainer, interrupt: Interrupt) -> bool:
    """Whether any process is to stop; asked every step on CPUs, every tenth on GPUs, where asking waits."""
    if distributed.active() and trainer.device.type == "cuda" and trainer.progress.step % 10:
        return False
    return distributed.any_process(interrupt.received, trainer.device)


def _save(trainer: Trainer) -> Path:
    progress, accelerator = trainer.progress, trainer.accelerator
    state: JsonObject = {"progress": asdict(progress), "window": trainer.window.state()}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    scored_now = progress.best_score is not None and progress.best_step == progress.step
    saved = checkpoint.save(
        trainer.job.run,
        progress.step,
        trainer.method,
        trainer.optimizer.optimizer,
        state,
        progress.best_score if scored_now else None,
    )
    checkpoint.prune(trainer.job.run, trainer.config.keep_last, keep_best=True)
    if trainer.metrics is not None:
        trainer.metrics.write_csv()
    return saved
