"""How hard the synthetic people are for features that were not trained on them: histogram, random and ImageNet.

    python benchmarks/synthetic_thresholds.py [--test FOLDER]

Prints a table in Markdown, by galleries of 100 persons.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Protocol, Trial
from dapg.data.sets.synthetic import Synthetic
from dapg.features.encoders import BackboneEncoder, HistogramEncoder
from dapg.features.extract import trial_features
from dapg.features.table import FeatureTable
from dapg.models.weights.backbone_weights import init_backbone
from dapg.scoring.metrics import mean_scores, score_trials

MODES = ("visible-100", "all-100")


def same_camera_trial(dataset: Synthetic) -> Trial:
    """First image of each person in a visible camera against the last of all persons in the same camera."""
    records = [r for r in dataset.records("test") if r.modality == Modality.VISIBLE]
    query = tuple(r for r in records if Path(r.path).stem == "0001")
    gallery = tuple(r for r in records if Path(r.path).stem == "0002")
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
    trials = {mode: dataset.trials(mode) for mode in MODES}
    encoders = {
        "colour histogram": HistogramEncoder((192, 96), torch.device("cpu")),
        "random ResNet-18": BackboneEncoder(
            init_backbone("resnet18", {"last_stride": 1}, "random", 0)[0], (192, 96), torch.device("cpu")
        ),
        "ImageNet MobileNetV2": BackboneEncoder(
            init_backbone("mobilenet_v2", {"last_stride": 1}, "imagenet", 0)[0], (192, 96), torch.device("cpu")
        ),
    }
    lines = []
    for name, encoder in encoders.items():
        table = trial_features(encoder, dataset, [inside, *trials["visible-100"], *trials["all-100"]], Runtime())
        for kind in table.features:
            label = name + (", centred" if "centred" in kind else "")
            figures = [same_camera(table, kind, inside)]
            figures += [rank_one(table, kind, trials[mode]) for mode in MODES]
            lines.append(f"| {label} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", help="the tested set; default: the embedded one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| features | same camera | visible -> visible | infrared -> visible |\n|---|---|---|---|")
    untrained(Synthetic(arguments.test))


if __name__ == "__main__":
    main()
