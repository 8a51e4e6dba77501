"""Images per second of a fine-tuning, beside a plain single-precision loop whose loader makes views one by one.

usage: python benchmarks/finetuning_speed.py [--preset gpu] [--data NAME[=PATH]] [--device cuda] [--steps 60]

Both sides train AGW's network with the same losses, optimiser and batches of persons on the same images. Ours is
the run that `dapg finetune agw` does: decoding in workers, views in batches on the device, autocast as the preset says.
The plain loop opens, resizes, pads, crops, mirrors and normalises each image with Pillow and NumPy in its workers (as
many), moves float views to the device and works in float32, as the published code does. The first fifth of the steps is
not counted.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dapg.core.images import open_rgb
from dapg.core.rng import generator_from
from dapg.core.types import Record
from dapg.data.base import Dataset as People
from dapg.data.identity_sampler import CrossModalSampler
from dapg.data.samplers import LocalBatches
from dapg.data.source import open_dataset, parse_source
from dapg.losses.identity import identity_loss
from dapg.losses.triplet import weighted_regularised_triplet
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.agw import AGW
from dapg.methods.runs import backbone_settings
from dapg.models.weights.backbone_weights import init_backbone
from dapg.recipes import finetuning
from dapg.training.finetune import finetune
from dapg.training.training_settings import FinetuneSettings

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class PlainPictures(Dataset[tuple[Tensor, int, int]]):
    """One view at a time, as torchvision's transforms would make it."""

    def __init__(self, people: People, records: list[Record], recipe: FinetuneSettings) -> None:
        self.people, self.records, self.views = people, records, recipe.method.views

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        record, pad = self.records[index], self.views.padding
        height, width = self.views.size
        picture = open_rgb(self.people.read(record), record.path).resize((width, height), Image.Resampling.LANCZOS)
        padded = Image.new("RGB", (width + 2 * pad, height + 2 * pad))
        padded.paste(picture, (pad, pad))
        top, left, mirror = torch.randint(2 * pad + 1, (3,)).tolist()
        view = padded.crop((left, top, left + width, top + height))
        if mirror > pad:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(view, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels).permute(2, 0, 1), record.person, int(record.modality)


def ours(recipe: FinetuneSettings, folder: Path) -> float:
    """Images per second over the log lines after the first fifth of the steps."""
    finetune(replace(recipe, out=str(folder)))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counted = [line["pictures_per_second"] for line in lines if line["step"] > recipe.train.steps // 5]
    return len(counted) / sum(1 / rate for rate in counted)


def plain(recipe: FinetuneSettings, device: torch.device) -> float:
    people = open_dataset(recipe.data)
    records = people.records(recipe.data.split or people.labelled_split())
    persons = tuple(sorted({record.person for record in records}))
    sampler = CrossModalSampler(records, recipe.train.batch_size // (2 * recipe.pictures), recipe.pictures)
    backbone, _ = init_backbone(recipe.backbone.name, backbone_settings(recipe.backbone), "random", 0)
    method = AGW(recipe.method, backbone, DataFacts(len(records), persons), generator_from("heads")).to(device).train()
    groups = method.parameter_groups(1e-3, 5e-4)
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    loader: Iterator[list[Tensor]] = iter(
        DataLoader(
            PlainPictures(people, records, recipe),
            batch_sampler=LocalBatches(sampler, 0, recipe.train.steps),
            num_workers=recipe.loader.workers,
            pin_memory=device.type == "cuda",
        )
    )
    warm = recipe.train.steps // 5
    start = 0.0
    for step, (views, labels, modalities) in enumerate(loader):
        if step == warm:
            start = time.perf_counter()
        visible, infrared = (
            (views[modalities == modality].to(device), labels[modalities == modality]) for modality in (1, 2)
        )
        classes = method._classes(torch.cat([visible[1], infrared[1]]).to(device))
        pooled, logits = method._embed(visible[0], infrared[0])
        loss = identity_loss(logits, classes) + weighted_regularised_triplet(pooled, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as loops that print do
    return (recipe.train.steps - warm) * recipe.train.batch_size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpu")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    recipe = finetuning("agw", options.preset)
    train = replace(recipe.train, steps=options.steps, log_every=5, checkpoint_every=10**9)
    data = parse_source(options.data)
    recipe = replace(recipe, train=train, data=data, device=options.device)
    folder = Path(tempfile.mkdtemp())
    try:
        rates = {"dapg": ours(recipe, folder / "run"), "plain loop, fp32": plain(recipe, torch.device(options.device))}
    finally:
        shutil.rmtree(folder)
    height, width = recipe.method.views.size
    print(f"{recipe.backbone.name}, {height} x {width}, {train.batch_size} images a step, {options.device}, ours in")
    print(f"{train.precision}, {recipe.loader.workers} workers\n\n| loop | pictures/s | ratio |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / rates['plain loop, fp32']:.2f} |")


if __name__ == "__main__":
    main()
