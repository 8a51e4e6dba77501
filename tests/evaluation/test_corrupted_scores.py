"""Scores under corruption: the test sets, numbers against a slow loop, clean features reused, going on after a kill."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from dapg.core.images import decode
from dapg.core.runtime import Runtime
from dapg.core.types import Modality, Record
from dapg.corruptions import library
from dapg.data.sets.folder import Folder
from dapg.evaluation import corrupted_scores, corrupted_sets
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.evaluation.corrupted_sets import CorruptedDataset, CorruptionPolicy
from dapg.features.encoders import HistogramEncoder
from dapg.features.extract import extract
from dapg.scoring.bootstrap import read_query_scores, trial_means
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score

SMALL: dict[str, Any] = {"height": 64, "width": 32}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five persons of a colour each in two cameras: cross-camera search by colour is right on clean images."""
    folder = tmp_path_factory.mktemp("people")
    rows = ["path,person,camera"]
    colours = ((220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 40), (120, 120, 120))
    for person, colour in enumerate(colours):
        for camera in (1, 2):
            name = f"{person}-{camera}.png"
            Image.new("RGB", (32, 64), tuple(min(255, c + 8 * camera) for c in colour)).save(folder / name)
            rows.append(f"{name},{person},{camera}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


class MeanColour:
    """The mean colour of an image; counts how many it was asked for."""

    headline, input_size, device = "colour", (32, 16), torch.device("cpu")

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, images: torch.Tensor, modality: Modality) -> dict[str, torch.Tensor]:
        self.encoded += len(images)
        return {"colour": torch.nn.functional.normalize(images.float().mean(dim=(2, 3)) + 1)}


def test_test_sets_cover_lists_families_severities_and_the_grid() -> None:
    sets = {s.name: s for s in corrupted_scores.sets_to_score(CorruptionSettings(types=("all",), detail="grid"))}
    assert list(sets)[:3] == ["all", "seen", "unseen"]
    assert set(sets["seen"].policy.types) == set(library.IMAGENET_C)
    assert set(sets["unseen"].policy.types) == set(library.UNSEEN)
    assert set(sets["weather"].policy.types) == {"snow", "frost", "fog", "brightness"}
    assert sets["severity 4"].policy.severities == (4,)
    assert sets["severity 4"].policy.types == ("all",)
    cells = [s for s in sets.values() if s.group == "cell"]
    assert len(cells) == 100
    assert all(s.repeats == 1 for s in cells)
    assert len(sets) == 3 + 5 + 5 + 100
    names = [s.name for s in corrupted_scores.sets_to_score(CorruptionSettings(types=("fog",), severities=(3,)))]
    assert names == ["all"], "nothing to tell apart"
    lists = corrupted_scores.sets_to_score(CorruptionSettings(types=("fog", "rain"), detail="lists"))
    assert [s.policy.types for s in lists] == [("fog", "rain"), ("fog",), ("rain",)]


@pytest.mark.parametrize("side", ["both", "gallery"])
def test_scores_equal_a_slow_loop(root: Path, side: Literal["both", "gallery"]) -> None:
    """Each image corrupted, decoded and encoded alone; distances one by one; and clean ones are encoded only once."""
    dataset = Folder(root)
    settings = CorruptionSettings(types=("contrast", "rain"), repeats=2, detail="lists", side=side, **SMALL)
    encoder = MeanColour()
    found = clean_and_corrupted(encoder, dataset, ["cross-camera"], settings)["cross-camera"]
    assert list(found) == ["clean", "all", "seen", "unseen"]
    assert found["clean"].means("colour")["rank-1"] == 1.0
    (trial,) = dataset.trials("cross-camera")
    pictures = len({*trial.query, *trial.gallery})
    assert encoder.encoded == pictures * (1 + 2 * 3), "all sides are corrupted, or each image is in the gallery"
    for name, types in (("all", ("contrast", "rain")), ("seen", ("contrast",)), ("unseen", ("rain",))):
        policy = CorruptionPolicy(types=types, side=side, **SMALL)
        for repeat in range(2):
            view = CorruptedDataset(dataset, policy, repeat)
            (marked,) = view.trials("cross-camera")

            def feature(record: Record, view: CorruptedDataset = view) -> torch.Tensor:
                picture = decode(view.read(record), (32, 16), None, record.path)
                return MeanColour().encode(picture[None], Modality.VISIBLE)["colour"][0]

            features = {record: feature(record) for record in {*marked.query, *marked.gallery}}
            distances = torch.tensor(
                [[-float(features[q] @ features[g]) for g in marked.gallery] for q in marked.query]
            )
            expected = score(distances, Labels.of(marked))
            got = found[name].scores["colour"][repeat][0]
            assert trial_means(got)["mAP"] == pytest.approx(expected.mAP, abs=1e-6)
            assert trial_means(got)["rank-1"] == pytest.approx(expected.rank(1))
            assert trial_means(got)["mINP"] == pytest.approx(expected.mINP, abs=1e-6)
    means = [trial_means(trials[0])["mAP"] for trials in found["all"].scores["colour"]]
    assert found["all"].means("colour")["mAP"] == pytest.approx(sum(means) / 2)
    spread = found["all"].spread("colour")["mAP"]
    assert spread["repeat"] == {"levels": 2, "std": pytest.approx(abs(means[0] - means[1]) / 2**0.5)}
    assert spread["trial"] == {"levels": 1, "std": 0.0}


def test_kept_pictures_give_the_next_model_the_same_scores_without_corrupting_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Folder(root)
    settings = CorruptionSettings(types=("fog",), repeats=2, detail="lists", **SMALL)
    runtime = Runtime(cache={})
    first = clean_and_corrupted(MeanColour(), dataset, ["cross-camera"], settings, runtime)["cross-camera"]
    monkeypatch.setattr(CorruptedDataset, "read", lambda *_: pytest.fail("corrupted again"))
    second = clean_and_corrupted(MeanColour(), dataset, ["cross-camera"], settings, runtime)["cross-camera"]
    assert second["all"].means("colour") == first["all"].means("colour")


def test_command_writes_clean_beside_corrupted_and_resumes(
    capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores"
    words = ["evaluate", "histogram", "--data", str(root), "--workers", "0", "--device", "cpu", "--out", str(out)]
    words += ["--corruption", "cil", "--corruption.types", '["contrast","rain","fog"]', "--corruption.repeats", "2"]
    words += ["--corruption.severities=[2,4]", "--corruption.height=64", "--corruption.width=32"]
    made: list[tuple[str, ...]] = []
    done: set[str] = set()
    real = CorruptedDataset.read

    def read(self: CorruptedDataset, record: Record) -> bytes:
        made.append(self.policy.types)
        if len(made) > 35 and not done:  # two test sets of ten images, and ten thumbnails of the first
            raise KeyboardInterrupt
        return real(self, record)

    monkeypatch.setattr(CorruptedDataset, "read", read)
    assert run(capsys, *words)[0] != 0
    done = {path.name for path in out.rglob("corrupted/*/*.npz")}
    assert done == {"all-0.npz", "all-1.npz"}
    made.clear()
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert ("contrast", "rain", "fog") in made, "severities are of all types"
    assert len(made) == 10 * 2 * 7, "the two finished ones are not made again"
    result = json.loads((out / "result.json").read_text())
    rows = {row["name"]: row for row in result["corrupted"]}
    assert list(rows) == ["all", "seen", "unseen", "weather", "digital", "extra", "severity 2", "severity 4"]
    clean = result["scores"]["histogram"]
    for row in rows.values():
        scores = row["scores"]["histogram"]
        assert scores["relative"]["mAP"] == pytest.approx(scores["mAP"] / clean["mAP"])
        assert row["intervals"]["mAP"]["low"] <= scores["mAP"] <= row["intervals"]["mAP"]["high"]
        pooled = [read_query_scores(out / path)["histogram"][0] for path in row["per_query"]]
        assert sum(trial_means(t)["mAP"] for t in pooled) / 2 == pytest.approx(scores["mAP"])
    stated = corrupted_sets.policy("vi-c-1.0").provenance()
    assert all(row["list"] == {**stated, "changed": {"height": 64, "width": 32}} for row in rows.values())
    monkeypatch.setattr(library, "DRAWS", library.DRAWS + 1)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "version 2 of the draws, this is version 3; give another --out" in err
    for word in ("unseen", "severity 4", "relative"):
        assert word in said
    assert len(result["corrupted_lists"]) == 10, "drawn before the kill, kept after it"


def test_ranked_lists_of_corrupted_pictures(capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path) -> None:
    """The same queries as on clean images; similarities of corrupted images, and thumbnails of them."""
    out = tmp_path / "scores"
    words = ["evaluate", "histogram", "--data", str(root), "--workers", "0", "--device", "cpu", "--out", str(out)]
    words += ["--height", "64", "--width", "32", "--ranked_lists", "4", "--corruption", "cil"]
    words += ["--corruption.types", '["contrast","fog"]', "--corruption.repeats", "1", "--corruption.detail", "lists"]
    code, _, err = run(capsys, *words, "--corruption.height=64", "--corruption.width=32")
    assert code == 0, err
    result = json.loads((out / "result.json").read_text())
    lists = result["corrupted_lists"]
    assert [one["query"]["path"] for one in lists] == [one["query"]["path"] for one in result["ranked_lists"]]
    view = CorruptedDataset(Folder(root), CorruptionPolicy(types=("contrast", "fog"), **SMALL))
    records = {record.path: record for record in view.records("all")}
    encoder = HistogramEncoder((64, 32), torch.device("cpu"))
    found = extract(encoder, view, list(records.values()), Runtime(batch_size=10))["histogram"]
    features = dict(zip(records, found, strict=True))
    for one in lists:
        query = one["query"]["path"]
        similar = {path: float(features[query] @ values) for path, values in features.items() if path != query}
        assert [answer["similarity"] for answer in one["answers"]] == pytest.approx(
            sorted(similar.values(), reverse=True), abs=1e-5
        )
        for answer in one["answers"]:
            assert answer["similarity"] == pytest.approx(similar[answer["path"]], abs=1e-5)
            assert answer["match"] == (answer["path"][0] == query[0])
            happened = view.assignment(records[answer["path"]])
            assert answer["corruption"] == f"{happened.name} {happened.severity}"
            thumbnail = np.asarray(Image.open(out / answer["picture"])).astype(int)
            wanted = decode(view.read(records[answer["path"]]), (128, 64)).permute(1, 2, 0).numpy()
            assert abs(thumbnail - wanted).mean() < 6, "JPEG's loss at most"


def test_command_refuses_what_does_not_exist(capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path) -> None:
    words = ["evaluate", "histogram", "--data", str(root), "--workers", "0", "--device", "cpu", "--out", str(tmp_path)]
    code, _, err = run(capsys, *words, "--corruption", "cill")
    assert code == 2
    assert "did you mean 'cil'" in err
    code, _, err = run(capsys, *words, "--corruption", "fog", "--corruption.severities", "[7]")
    assert code == 2
    assert "--corruption.severities must be a list, each a whole number from 1 to 5" in err
