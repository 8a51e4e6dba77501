"""A trained two-stream network needs to know which light an image was taken in: the wrong stem lowers the score."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Protocol, Trial
from dapg.data.sets.synthetic import Synthetic
from dapg.features.encoders import MethodEncoder
from dapg.features.extract import trial_features
from dapg.methods.runs import load_method
from dapg.recipes import finetuning
from dapg.scoring.metrics import mean_scores, score_trials
from dapg.training.finetune import finetune


class WrongStem(MethodEncoder):
    """Tells the network the other modality."""

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        other = Modality.INFRARED if modality == Modality.VISIBLE else Modality.VISIBLE
        return super().encode(images, other)


@pytest.mark.slow
def test_the_wrong_modality_lowers_the_score(tmp_path: Path) -> None:
    """Scored on the training persons, whom a minute of training is enough to know."""
    plan = finetuning("agw", "demo")
    plan = replace(plan, out=str(tmp_path), device="cpu", loader=replace(plan.loader, workers=0))
    finetune(plan)
    people = Synthetic()
    records = people.records("train")
    query, gallery = (
        tuple(record for record in records if record.modality == modality)
        for modality in (Modality.INFRARED, Modality.VISIBLE)
    )
    trials = [Trial("0", "train", query, gallery, Protocol("cross-modal"), comparable=False)]
    method = load_method(tmp_path)
    scores = []
    for kind in (MethodEncoder, WrongStem):
        table = trial_features(kind(method, torch.device("cpu")), people, trials, Runtime())
        scores.append(mean_scores(score_trials(table["after_bn"], table.trials(trials))).mAP)
    right, wrong = scores
    chance = 8 / len(gallery)
    assert right > 5 * chance, scores
    assert wrong < 0.8 * right, scores
