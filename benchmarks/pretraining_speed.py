"""Where the time of a pre-training step goes, and what views made on the training device are worth.

    OMP_NUM_THREADS=1 python benchmarks/pretraining_speed.py --arm dapg-1 --batch 64 --warmup 20 --steps 10
    python benchmarks/pretraining_speed.py [--method dapg] [--backbone resnet18] [--batch 32] [--steps 3]
        [--device auto] [--precision fp32] [--compile]
        [--peer FOLDER --workers 2 8 16] [--out FILE.json]

Full size: 256 x 128 images, full width, embedded people; ``--arm`` takes an arm of the experiment at scale ``small``
from ImageNet. Printed are the parts of a step, each waited for (decode in this process, views, forward, backward, the
rest: optimiser, momentum, queue); then images per second of whole steps without waiting in between, with the views made
in the step and with ready-made ones; and the peak of memory. On one thread of a processor its own seconds are counted,
which suffer less from whatever else runs.

``--peer`` is the folder for the environment of imagecorruptions-imaug (made on first use, 600 MB): as many processes as
``--workers`` says make the same chain image by image, with nothing beside them. What a training with such a loader
could reach at most is the smaller of their rate and of the step on ready-made tensors.
"""

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from reference_environment import Worker, reference_python

from dapg.core.batch import Batch
from dapg.core.device import place, resolve_device
from dapg.core.rng import SampleGenerator, generator_from
from dapg.corruptions import library
from dapg.data.loading import LoaderConfig, training_batches
from dapg.data.samplers import InfiniteSampler, LocalBatches
from dapg.data.sets.synthetic import Synthetic
from dapg.experiment.matrix import ARMS, pretraining_settings
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import backbone_settings, method_class
from dapg.models.weights.backbone_weights import init_backbone
from dapg.recipes import pretraining
from dapg.training.optimizers import build_optimizer

CORRUPTING = "of the views, corruptions"
PARTS = ("decode", "views", "forward", "backward", "rest")


class Bench:
    """A method with its optimiser and an endless source of batches, outside the loop of the package."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, resolve_device(options.device)
        self.corrupting = 0.0
        recipe = pretraining(options.method, "recommended")
        if options.arm:
            recipe = pretraining_settings(ARMS[options.arm], "small", "imagenet", 0, Path("outputs"))
            options.method = recipe.name
        config, network = recipe.method, recipe.backbone if options.arm else None
        if options.pair != "standard":
            config = replace(config, pair=options.pair)
        dataset = Synthetic()
        records = dataset.records("train" if options.method == "supervised" else "unlabelled")
        persons = tuple(sorted({record.person for record in records}))
        if network is None:
            backbone, _ = init_backbone(options.backbone, {"last_stride": 1}, "random", 0)
        else:
            backbone, _ = init_backbone(network.name, backbone_settings(network), network.init, 0)
        kind = method_class("pretrain", options.method)
        self.method: Method = kind(config, backbone, DataFacts(len(records), persons), generator_from("heads"))
        place(self.method, self.device).train()
        if options.compile:
            self.method.compile_network()
        self.optimizer = build_optimizer(recipe.train.optimizer, self.method.parameter_groups(0.01, 1e-4))
        sampler = InfiniteSampler(len(records), options.batch, 0)
        loader = replace(recipe.loader, workers=0) if options.arm else LoaderConfig(height=256, width=128, workers=0)
        batches = LocalBatches(sampler, 0, 10**6, 0, 1, 1)
        self.source: Iterator[Batch] = iter(training_batches(dataset, records, batches, loader, pin_memory=False))
        self.views = "_views" if hasattr(self.method, "_views") else "_pair"
        self.make_views: Callable[..., Any] = getattr(self.method, self.views)

    def generator(self, step: int) -> SampleGenerator:
        return SampleGenerator.for_step(0, step, torch.arange(self.options.batch), self.device)

    def wait(self) -> float:
        """The clock, once all work given to the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif torch.get_num_threads() == 1:
            return time.process_time()
        return time.perf_counter()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its seconds added to ``corrupting``."""

        def call(*arguments: Any, **named: Any) -> Any:
            start = self.wait()
            result = function(*arguments, **named)
            self.corrupting += self.wait() - start
            return result

        return call

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.options.precision)
        return torch.autocast(self.device.type, dtype=half) if half else contextlib.nullcontext()

    def ready_made(self, views: Any) -> None:
        """From now on a step finds these views; None: it makes them."""
        setattr(self.method, self.views, self.make_views if views is None else lambda *_: views)

    def forward(self, batch: Batch, step: int) -> torch.Tensor:
        with self.autocast():
            loss: torch.Tensor = self.method(batch, self.generator(step)).loss
        return loss

    def finish(self, step: int) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(step + 1, 10**6)

    def parts(self, step: int) -> dict[str, float]:
        """Seconds of each part of one step, waiting for the device between them."""
        marks = [self.wait()]
        batch = next(self.source).to(self.device)
        marks.append(self.wait())
        self.corrupting = 0.0
        with patch.multiple(library, draw=self.timed(library.draw), apply=self.timed(library.apply)):
            views = self.make_views(batch, self.generator(step))
        marks.append(self.wait())
        self.ready_made(views)
        loss = self.forward(batch, step)
        marks.append(self.wait())
        loss.backward()
        marks.append(self.wait())
        self.finish(step)
        marks.append(self.wait())
        self.ready_made(None)
        return {name: marks[i + 1] - marks[i] for i, name in enumerate(PARTS)} | {CORRUPTING: self.corrupting}

    def rate(self, ready: bool) -> float:
        """Images per second of whole steps on one decoded batch, waiting at the end only."""
        batch = next(self.source).to(self.device)
        if ready:
            self.ready_made(self.make_views(batch, self.generator(0)))
        for step in range(self.options.warmup):
            self.forward(batch, step).backward()
            self.finish(step)
        start = self.wait()
        for step in range(self.options.steps):
            self.forward(batch, step).backward()
            self.finish(step)
        seconds = self.wait() - start
        self.ready_made(None)
        return float(self.options.batch * self.options.steps / seconds)

    def peak_gigabytes(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peer_rate(folder: Path, workers: int, count: int) -> float:
    """Samples of the chain per second that so many NumPy processes make."""
    processes = [Worker(reference_python(folder), "imagecorruptions_worker.py") for _ in range(workers)]
    for process in processes:
        process.ask(do="chain", count=count, severities=[1, 3])
    slowest = max(process.answer()["wall"] for process in processes)
    for process in processes:
        process.close()
    return workers * count / slowest


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="dapg")
    parser.add_argument("--arm", default="", help="of the experiment, at scale small from ImageNet")
    parser.add_argument("--pair", default="standard", help="standard or corrupted, for the two-view methods")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peer", type=Path, default=None)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--count", type=int, default=60, help="samples that each of the peer's processes makes")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    bench = Bench(options)
    for step in range(options.warmup):
        bench.parts(step)
    measured = [bench.parts(step) for step in range(options.steps)]
    seconds = {name: sum(step[name] for step in measured) / len(measured) for name in measured[0]}
    step_seconds = sum(seconds[name] for name in PARTS) - seconds["decode"]
    network = f"{options.method} ({options.pair}), {options.backbone} at 256 x 128"
    print(
        f"{options.arm or network}, batch {options.batch}, {options.precision}, {bench.device}, "
        f"{torch.get_num_threads()} threads"
    )
    print("| part | ms an image | share of the step |\n|---|---|---|")
    for name, value in seconds.items():
        share = "beside it" if name == "decode" else f"{100 * value / step_seconds:.1f} %"
        print(f"| {name} | {1000 * value / options.batch:.2f} | {share} |", flush=True)
    whole, ready = bench.rate(ready=False), bench.rate(ready=True)
    print(
        f"\n{whole:.1f} pictures/s with the views made in the step, {ready:.1f} on ready-made ones: "
        f"{100 * whole / ready:.1f} %; peak memory {bench.peak_gigabytes():.2f} GiB",
        flush=True,
    )
    peers = {}
    for workers in options.workers if options.peer else ():
        made = peers[workers] = peer_rate(options.peer, workers, options.count)
        bound = min(made, ready)
        print(
            f"{workers} loader processes with imagecorruptions make {made:.1f} samples/s: {bound:.1f} pictures/s at "
            f"most, ours is {whole / bound:.2f} times that",
            flush=True,
        )
    if options.out is not None:
        result = {"options": vars(options), "seconds": seconds, "whole": whole, "ready": ready, "peers": peers}
        options.out.write_text(json.dumps(result, indent=2, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()
