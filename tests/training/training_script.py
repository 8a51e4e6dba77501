"""Trains a small MoCo v2 in a process of its own, so that tests can kill it or run two of it.

usage: training_script.py PICTURES RUN STEPS [--accumulation A] [--workers W] [--frozen-norms] [--crash WHERE:STEP]
    [--crash-rank R] [--stop STEP]

``--crash`` kills the process with SIGKILL at an exact place: ``step`` (mid-epoch, after the backward pass),
``write`` (while rank files are being written), ``rename`` (all files written, folder not renamed yet),
``renamed`` (checkpoint published, old ones not pruned yet). With ``--crash-rank`` only that rank, and only before
torchrun has restarted the processes. ``--stop`` says so and waits in the middle of a step.
"""

import argparse
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from dapg.augment.views import ViewConfig
from dapg.core import distributed
from dapg.core.rng import generator_from
from dapg.core.train_config import OptimizerConfig, ScheduleConfig, TrainConfig
from dapg.data.loading import LoaderConfig
from dapg.data.samplers import InfiniteSampler
from dapg.data.sets.folder import Folder
from dapg.methods.base import DataFacts
from dapg.methods.pretraining.mocov2 import MoCoV2
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.heads.moco_head import MoCoHead
from dapg.training import checkpoint, loop


class FrozenNorms(MoCoV2):
    """Batch norms stay in evaluation mode: the only part of a step that sees just its own process's images."""

    def train(self, mode: bool = True) -> "FrozenNorms":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.eval()
        return self


def build(pictures: int, kind: type[MoCoV2] = MoCoV2) -> MoCoV2:
    """An eighth-width ResNet-18 on images of 32 x 16."""
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    head = MoCoHead.Config(hidden_dim=32, output_dim=16)
    config = MoCoV2.Config(momentum=0.9, head=head, views=ViewConfig(height=32, width=16))
    return kind(config, backbone, DataFacts(pictures), generator_from("head"))


def train_config(steps: int, accumulation: int = 1) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=16,
        accumulation=accumulation,
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_batch=0),
        schedule=ScheduleConfig(unit="steps", warmup=2.0),
        checkpoint_every=2,
        log_every=1,
    )


def crash_at(place: str, step: int) -> None:
    """Replace one function by a version that kills this process when it is reached at the given step."""

    def patch(where: object, name: str, version: object) -> None:
        mock.patch.object(where, name, version).start()  # for as long as this process lives

    def die() -> None:
        os.write(1, f"rank {distributed.rank()} is killed\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "step":
        in_step(step, die)
    elif place == "write":
        save = torch.save

        def half(value: object, path: Path) -> None:
            save(value, path)
            if f"step_{step:08d}" in str(path):
                os.truncate(path, 100)
                die()

        patch(torch, "save", half)
    elif place == "rename":
        publish = checkpoint._publish
        patch(
            checkpoint,
            "_publish",
            lambda partial, final, facts: die() if facts["step"] == step else publish(partial, final, facts),
        )
    elif place == "renamed":
        save_all = checkpoint.save

        def save_and_die(run: Path, now: int, *rest: Any) -> Path:
            saved = save_all(run, now, *rest)
            if now == step:
                die()
            return saved

        patch(checkpoint, "save", save_and_die)
    else:
        raise ValueError(place)


def in_step(step: int, act: Callable[[], None]) -> None:
    after_step = MoCoV2.after_step

    def act_and_go_on(self: MoCoV2, now: int, total: int) -> None:
        if now == step:
            act()
        after_step(self, now, total)

    MoCoV2.after_step = act_and_go_on  # type: ignore[method-assign,assignment]


def stop(talk: Connection | None) -> None:
    """Say that this process has stopped; go on when an answer comes. With nobody to ask, wait to be killed."""
    os.write(1, f"rank {distributed.rank()} has stopped\n".encode())
    if talk is not None:
        talk.send("stopped")
        talk.recv()
        return
    while True:
        signal.pause()


def main(words: Sequence[str] | None = None, talk: Connection | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--frozen-norms", action="store_true")
    parser.add_argument("--crash", default="")
    parser.add_argument("--crash-rank", type=int, default=None)
    parser.add_argument("--stop", type=int, default=None)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    spared = options.crash_rank is not None and (restarted or distributed.rank() != options.crash_rank)
    if options.crash and not spared:
        place, step = options.crash.split(":")
        crash_at(place, int(step))
    if options.stop is not None:
        in_step(options.stop, lambda: stop(talk))
    dataset = Folder(options.pictures)
    records = dataset.records()
    options.run.mkdir(parents=True, exist_ok=True)
    method = build(len(records), FrozenNorms if options.frozen_norms else MoCoV2)
    sampler = InfiniteSampler(len(records), 16, seed=0)
    # Checkpoints every two steps and log lines every three: some are written in the middle of a log's window.
    config = replace(train_config(options.steps, options.accumulation), log_every=3)
    loader = LoaderConfig(height=32, width=16, workers=options.workers)
    loop.train(method, loop.Job(dataset, records, sampler, config, loader, options.run, device="cpu"))
    if distributed.active():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
