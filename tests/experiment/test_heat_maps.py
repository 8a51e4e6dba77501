"""Which networks are compared in images, and the queries they disagree on, counted by hand."""

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Protocol, Record, Trial
from dapg.data.sets.folder import Folder
from dapg.evaluation.corrupted_scores import CorruptionSettings, score_corrupted
from dapg.experiment import heat_maps
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult
from dapg.features.encoders import HistogramEncoder
from dapg.features.extract import trial_features
from figures import make_figures
from made_up_cells import made_up


def test_the_middle_seed_of_ours_and_of_the_strongest_other(tmp_path: Path) -> None:
    """Of our three seeds the middle one; SimCLR is ahead by its mean, our own ablation does not count."""
    experiment = Experiment(("beyond",), starts=("random",), seeds=3, only="*+agw-*", results=tmp_path)
    strength = {
        "dapg-1": (0.3, 0.1, 0.2),
        "dapg-1-single": (0.9, 0.9, 0.9),
        "simclr": (0.6, 0.0),
        "none": (0.25, 0.29, 0.27),
    }
    stored: dict[str, CellResult] = {}
    for cell in experiment.cells():
        values = strength.get(cell.arm, ())
        if cell.seed < len(values):
            scores = {"all-100/all": {"mAP": values[cell.seed]}, "all-100/clean": {"mAP": 1 - values[cell.seed]}}
            stored[cell.name] = replace(made_up(cell, 0.5, ()), scores=scores)
    (group, chosen), *more = heat_maps.pairs(experiment, stored).items()
    assert not more
    assert group == ("synthetic", "random", "agw")
    assert {who: cell.name for who, cell in chosen.items()} == {
        "ours": "dapg-1+agw-synthetic-random-2",
        "other": "simclr+agw-synthetic-random-1",
    }
    only_ours = {name: result for name, result in stored.items() if name.startswith("dapg")}
    assert heat_maps.pairs(experiment, only_ours) == {}


class Fixed:
    """Features that say which person it takes an image for: a table by path, otherwise the picture's own person."""

    headline, input_size, device = "feature", (32, 16), torch.device("cpu")

    def __init__(self, taken_for: Mapping[str, int]) -> None:
        self.taken_for = taken_for

    def encode(self, images: torch.Tensor, modality: Modality) -> dict[str, torch.Tensor]:
        """Never asked: the test hands the features in."""
        raise NotImplementedError


def test_heat_maps_have_the_scores_of_single_test_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's cells against evaluation's way, which corrupts image by image."""
    monkeypatch.setattr(heat_maps, "NAMES", ("contrast",))
    monkeypatch.setattr(heat_maps, "LEVELS", (1, 5))
    dataset = Folder(make_figures(tmp_path, persons=4, pictures=1))
    (trial,) = dataset.trials("cross-modal")
    encoder = HistogramEncoder((64, 32), torch.device("cpu"))
    measured = heat_maps.severities({"ours": encoder, "other": encoder}, dataset, trial, (96, 48))
    clean = trial_features(encoder, dataset, [trial], Runtime())
    expected = []
    for level in (1, 5):
        settings = CorruptionSettings(("contrast",), severities=(level,), repeats=1, height=96, width=48)
        scored = score_corrupted(encoder, dataset, [trial], settings, clean)["all"]
        expected.append(round(100 * scored.means("histogram")["mAP"], 2))
    assert measured["mAP"] == {"ours": [expected], "other": [expected]}
    assert [cell["severity"] for cell in measured["cells"]["ours"]] == [1, 5]


def test_disagreements_are_counted_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four infrared queries of persons 0 to 3: both right, neither, ours alone, the other alone."""
    dataset = Folder(make_figures(tmp_path, persons=4, pictures=1))
    records = {
        (person, camera): Record(f"camera{camera}/{person:03d}_0.png", person, camera, modality)
        for person in range(4)
        for camera, modality in ((1, Modality.VISIBLE), (3, Modality.INFRARED))
    }
    query = tuple(records[person, 3] for person in range(4))
    gallery = tuple(records[person, 1] for person in range(4))
    trial = Trial("0", "all", query, gallery, Protocol("plain"), comparable=False)
    wrong = {"ours": {1: 0, 3: 0}, "other": {1: 2, 2: 3}}
    encoders = {
        who: Fixed({query[person].path: other for person, other in table.items()}) for who, table in wrong.items()
    }

    def features(encoder: Fixed, _: Any, asked: list[Record], runtime: Runtime) -> dict[str, torch.Tensor]:
        persons = torch.tensor([encoder.taken_for.get(record.path, record.person) for record in asked])
        return {"feature": torch.nn.functional.one_hot(persons, 4).float()}

    monkeypatch.setattr(heat_maps, "extract", features)
    found = heat_maps.disagreements(encoders, dataset, trial, (64, 32))
    assert found["counts"] == {"both": 1, "neither": 1, "ours": 1, "other": 1}
    ours, other = found["lists"]
    assert ours["query"]["person"] == 2
    assert [answer["match"] for answer in ours["ours"]] == [True, False, False, False]
    assert (ours["other"][0]["person"], ours["other"][0]["match"]) == (3, False)
    assert other["query"]["person"] == 3
    assert (other["ours"][0]["person"], other["other"][0]["match"]) == (0, True)
    assert set(found["pictures"]) == {
        entry["picture"] for each in found["lists"] for entry in (each["query"], *each["ours"], *each["other"])
    }
    opened = Image.open(io.BytesIO(base64.b64decode(found["pictures"][ours["query"]["picture"]])))
    assert opened.size == (48, 96)
