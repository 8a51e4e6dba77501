"""How hard the synthetic people are: histogram, random and ImageNet networks, and a supervised network that learns.

    dapg data synth --persons 500 --validation_persons 0 --test_persons 0 --seed 1 --archive true --out train500
    python benchmarks/synthetic_thresholds.py --train train500 [--test FOLDER] [--steps 1200]

Prints a table in Markdown. The supervised network (identity + triplet loss, one core, some minutes) is trained on the
persons of ``--train`` and tested on the embedded test persons, whom it never saw; the control is trained and tested
with the infrared pictures dealt out to other persons.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.images import decode, normalise, to_float
from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.sets.synthetic import Synthetic
from dapg.features.encoders import BackboneEncoder, HistogramEncoder
from dapg.features.extract import trial_features
from dapg.features.table import FeatureTable
from dapg.models.weights.backbone_weights import init_backbone
from dapg.scoring.metrics import mean_scores, score_trials

SIZE = (96, 48)


def same_camera_trial(dataset: Synthetic) -> Trial:
    """First picture of each person in a visible camera against the last of all persons in the same camera."""
    records = [r for r in dataset.records("test") if r.modality == Modality.VISIBLE]
    query = tuple(r for r in records if r.path.endswith("0001.jpg"))
    gallery = tuple(r for r in records if r.path.endswith("0002.jpg"))
    return Trial("same camera", "visible", query, gallery, Protocol("same camera"))


def rank_one(table: FeatureTable, feature: str, trials: list[Trial]) -> float:
    return 100 * mean_scores(score_trials(table[feature], table.trials(trials))).rank(1)


def same_camera(table: FeatureTable, feature: str, trial: Trial) -> float:
    """Mean over cameras of rank-1 inside the camera."""
    values = []
    for camera in (1, 2, 4, 5):
        query = tuple(r for r in trial.query if r.camera == camera)
        gallery = tuple(r for r in trial.gallery if r.camera == camera)
        values.append(rank_one(table, feature, [Trial("", "", query, gallery, trial.protocol)]))
    return float(np.mean(values))


def untrained(dataset: Synthetic) -> list[str]:
    """Rows of the table: encoder, same camera, visible -> visible, infrared -> visible."""
    inside = same_camera_trial(dataset)
    trials = {mode: dataset.trials(mode) for mode in ("visible", "all")}
    encoders = {
        "colour histogram": HistogramEncoder((192, 96), torch.device("cpu")),
        "random ResNet-18": BackboneEncoder(
            init_backbone("resnet18", None, "random", 0)[0], (192, 96), torch.device("cpu")
        ),
        "ImageNet MobileNetV2": BackboneEncoder(
            init_backbone("mobilenet_v2", None, "imagenet", 0)[0], (192, 96), torch.device("cpu")
        ),
    }
    lines = []
    for name, encoder in encoders.items():
        table = trial_features(encoder, dataset, [inside, *trials["visible"], *trials["all"]], Runtime())
        for kind in table.features:
            label = name + (", centred" if "centred" in kind else "")
            figures = [same_camera(table, kind, inside)]
            figures += [rank_one(table, kind, trials[mode]) for mode in ("visible", "all")]
            lines.append(f"| {label} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
            print(lines[-1], flush=True)
    return lines


# ---- supervised ----------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """MobileNetV2 up to stride 16, from ImageNet; features of six stripes joined to the maximum, then a batch norm.

    Its first four layers, which cost most, stay as they are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        backbone = init_backbone("mobilenet_v2", None, "imagenet", 0)[0]
        layers = list(backbone.features.children())  # type: ignore[union-attr,operator]
        self.fixed = nn.Sequential(*layers[:4]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers = nn.Sequential(*layers[4:14]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.reduce = nn.Conv2d(96, 64, 1)
        self.neck = nn.BatchNorm1d(64 * 6 + 96)
        self.classify = nn.Linear(64 * 6 + 96, classes, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.fixed.eval()
        with torch.no_grad():
            y = self.fixed(x.contiguous(memory_format=torch.channels_last))
        y = self.layers(y)
        stripes = functional.adaptive_avg_pool2d(self.reduce(y), (6, 1)).flatten(1)
        feature = torch.cat([stripes, y.amax((2, 3))], dim=1)
        return feature, self.neck(feature)


def load(dataset: Dataset, records: list[Record]) -> Tensor:
    return torch.stack([decode(dataset.read(record), SIZE) for record in records])


def augment(images: Tensor, visible: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift, brightness, erasing; visible pictures often lose their colour (channel augmentation)."""
    count, _, height, width = images.shape
    x = to_float(images)
    draw = torch.rand(count, 12, generator=generator)
    x = torch.where((draw[:, 0] < 0.5)[:, None, None, None], x.flip(3), x)
    padded = functional.pad(x, (4, 4, 8, 8), mode="replicate")
    top, left = (draw[:, 1] * 17).long(), (draw[:, 2] * 9).long()
    x = torch.stack([padded[i, :, top[i] : top[i] + height, left[i] : left[i] + width] for i in range(count)])
    mix = torch.softmax(3 * torch.randn(count, 3, generator=generator), dim=1)
    grey = (x * mix[:, :, None, None]).sum(1, keepdim=True).expand_as(x)
    x = torch.where((visible & (draw[:, 3] < 0.6))[:, None, None, None], grey, x)
    x = (x ** (2 ** (draw[:, 4] - 0.5))[:, None, None, None]) * (0.75 + 0.5 * draw[:, 5])[:, None, None, None]
    for i in torch.nonzero(draw[:, 6] < 0.25)[:, 0].tolist():
        h, w = int(10 + 25 * draw[i, 7]), int(8 + 16 * draw[i, 8])
        r, c = int(draw[i, 9] * (height - h)), int(draw[i, 10] * (width - w))
        x[i, :, r : r + h, c : c + w] = draw[i, 11]
    return normalise(x.clamp(0, 1))


def batch_hard(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    distances = torch.cdist(features, features)
    same = labels[:, None] == labels[None]
    farthest = distances.masked_fill(~same, -1).amax(1)
    nearest = distances.masked_fill(same, 1e9).amin(1)
    return functional.relu(farthest - nearest + margin).mean()


class NetworkEncoder:
    headline, input_size, device = "feature", SIZE, torch.device("cpu")

    def __init__(self, network: Network) -> None:
        self.network = network.eval()

    def encode(self, images: Tensor, modality: Modality) -> dict[str, Tensor]:
        pictures = normalise(to_float(images))
        both = self.network(pictures)[1] + self.network(pictures.flip(3))[1]
        return {"feature": functional.normalize(both)}


def train(
    dataset: Synthetic,
    steps: int,
    shuffled: bool,
    limit: int,
    check: Callable[[Network], object],
    log: int = 100,
    checks: int = 500,
) -> Network:
    """Identity and triplet loss over both modalities; ``shuffled`` gives each person another's infrared pictures."""
    records = dataset.records("train")
    persons = sorted({record.person for record in records})[:limit]
    records = [record for record in records if record.person in set(persons)]
    images = load(dataset, records)
    label_of = {person: i for i, person in enumerate(persons)}
    generator = torch.Generator().manual_seed(0)
    dealt = torch.randperm(len(persons), generator=generator).tolist() if shuffled else list(range(len(persons)))
    shots: dict[tuple[int, bool], list[int]] = {}
    for index, record in enumerate(records):
        infrared = record.modality == Modality.INFRARED
        label = label_of[record.person]
        shots.setdefault((dealt[label] if infrared else label, infrared), []).append(index)
    torch.manual_seed(0)
    network = Network(len(persons)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    start, total = time.time(), 0.0
    for step in range(1, steps + 1):
        chosen = torch.randperm(len(persons), generator=generator)[:16].tolist()
        rows, labels, visible = [], [], []
        for label in chosen:
            for infrared in (False, True):
                mine = shots[label, infrared]
                rows += [mine[i] for i in torch.randperm(len(mine), generator=generator)[:2].tolist()]
                labels += [label] * 2
                visible += [not infrared] * 2
        target = torch.tensor(labels)
        feature, neck = network(augment(images[rows], torch.tensor(visible), generator))
        logits = network.classify(neck)
        loss = functional.cross_entropy(logits, target, label_smoothing=0.1)
        loss = loss + batch_hard(functional.normalize(feature), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % log == 0:
            print(f"step {step} loss {total / log:.3f} {(time.time() - start) / step:.2f} s/step", flush=True)
            total = 0.0
        if step % checks == 0 and step < steps:
            check(network)
            network.train()
    return network


def supervised(dataset: Synthetic, network: Network, name: str, shuffled: bool) -> list[str]:
    """Rows of the table; the control also deals out the infrared test pictures to other persons."""
    trials = {mode: dataset.trials(mode) for mode in ("visible", "all")}
    if shuffled:
        people = dataset.persons("test")
        order = torch.randperm(len(people), generator=torch.Generator().manual_seed(1)).tolist()
        other = {person: people[order[i]] for i, person in enumerate(people)}
        trials["all"] = [
            Trial(
                t.name,
                t.mode,
                tuple(Record(r.path, other[r.person], r.camera, r.modality) for r in t.query),
                t.gallery,
                t.protocol,
            )
            for t in trials["all"]
        ]
    every = [*trials["visible"], *trials["all"]]
    table = trial_features(NetworkEncoder(network), dataset, every, Runtime())
    lines = []
    for kind in table.features:
        figures = [rank_one(table, kind, trials[mode]) for mode in ("visible", "all")]
        label = name + (", centred" if "centred" in kind else "")
        lines.append(f"| {label} | - | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", help="a rendered set of other persons; without it only untrained rows are printed")
    parser.add_argument("--test", help="the tested set; default: the embedded one")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--persons", type=int, default=9999, help="train on the first so many persons")
    parser.add_argument("--only", choices=["untrained", "supervised", "control"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Synthetic(arguments.test)
    print("| features | same camera | visible -> visible | infrared -> visible |\n|---|---|---|---|")
    if arguments.only in (None, "untrained"):
        untrained(dataset)
    if not arguments.train:
        return
    for shuffled, key, name in (
        (False, "supervised", "supervised, other persons"),
        (True, "control", "the same, infrared shuffled"),
    ):
        if arguments.only not in (None, key):
            continue

        def check(network: Network, name: str = name, shuffled: bool = shuffled) -> None:
            supervised(dataset, network, name, shuffled)

        check(train(Synthetic(arguments.train), arguments.steps, shuffled, arguments.persons, check))


if __name__ == "__main__":
    main()
