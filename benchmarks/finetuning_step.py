"""Seconds of a fine-tuning step by method, and what CIL's augmentation adds to it.

usage: python benchmarks/finetuning_step.py [--preset small] [--methods agw cil ...] [--device cpu] [--repeats 10]
                                            [--batch N] [--precision fp32]

Images are random and already on the device: the loader is not measured. On a CPU the seconds are those of this
process on the CPU (minimum of the repeats), which other programs on the machine hardly change; on a GPU wall clock.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dapg.core import plugins
from dapg.core.batch import Batch
from dapg.core.device import place
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.train_config import TrainConfig
from dapg.methods.base import DataFacts
from dapg.methods.runs import backbone_settings, method_class
from dapg.models.weights.backbone_weights import init_backbone
from dapg.recipes import finetuning

PERSONS = 8
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def random_batch(height: int, width: int, config: TrainConfig, device: torch.device) -> Batch:
    """AGW's 8 persons x (4 visible + 4 infrared)."""
    count = config.batch_size
    images = torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator_from("pictures"))
    numbers = torch.arange(count)
    persons, modalities = numbers % PERSONS, 1 + numbers * 2 // count
    return Batch(images, persons, modalities, modalities, numbers).to(device)


def least_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter() if device.type == "cuda" else time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() if device.type == "cuda" else time.process_time()) - start)
    return min(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--methods", nargs="+", default=plugins.names("methods.finetuning"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, help="images a step; the preset's by default")
    parser.add_argument("--precision", choices=list(_TYPES), help="the preset's by default")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{options.preset}, {device}, {torch.get_num_threads()} threads")
    print("| method | seconds of a step | of which views | views beyond AGW's |\n|---|---|---|---|")
    agw_views = 0.0
    for name in ("agw", *(name for name in options.methods if name != "agw")):
        recipe = finetuning(name, options.preset)
        given = {"batch_size": options.batch, "precision": options.precision}
        train = replace(recipe.train, **{key: value for key, value in given.items() if value})
        recipe = replace(recipe, train=train)
        backbone, _ = init_backbone(recipe.backbone.name, backbone_settings(recipe.backbone), "random", 0)
        kind = method_class("finetune", name)
        method = kind(recipe.method, backbone, DataFacts(1000, tuple(range(100))), generator_from("heads"))
        method = place(method, device).train()
        optimizer = torch.optim.SGD(method.parameter_groups(1e-4, 0.0))
        batch = random_batch(recipe.loader.height, recipe.loader.width, recipe.train, device)
        streams = SampleGenerator.for_step(0, 0, batch.indices.cpu(), device)
        precision = _TYPES[recipe.train.precision]
        embed = method._embed

        def step(method=method, optimizer=optimizer, batch=batch, streams=streams, precision=precision):  # type: ignore
            with torch.autocast(batch.images.device.type, precision, enabled=precision != torch.float32):
                loss = method(batch, streams).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        whole = least_seconds(step, device, options.repeats)

        class ViewsMade(Exception):
            pass

        def stop(visible: Tensor | None, infrared: Tensor | None) -> None:
            raise ViewsMade

        def views(method=method, batch=batch, streams=streams, made=ViewsMade):  # type: ignore
            try:
                method(batch, streams)
            except made:
                return

        method._embed = stop
        of_views = least_seconds(views, device, options.repeats)
        method._embed = embed
        agw_views = agw_views or of_views
        extra = f"{100 * (of_views - agw_views) / whole:.0f} %"
        print(f"| {name} | {whole:.4f} | {100 * of_views / whole:.0f} % | {extra} |", flush=True)


if __name__ == "__main__":
    main()
