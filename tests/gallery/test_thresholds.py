"""Thresholds on made-up similarities, and their way into a gallery and onto its answers."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from dapg.core.errors import UsageError
from dapg.core.schema import read_json
from dapg.core.seeds import derive_seed
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject, Modality, Record
from dapg.data.sets.regdb import RegDB
from dapg.evaluation.thresholds import ThresholdSettings, _drawn, _pair, _table, measure
from dapg.features.encoders import HistogramEncoder
from dapg.features.networks import NetworkSettings
from dapg.gallery.gallery import Gallery
from dapg.gallery.verdicts import Threshold
from dapg.scoring.open_set import best_by_person, person_splits
from figures import make_figures

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


def test_a_verdict_is_read_off_a_table() -> None:
    threshold = Threshold(0.8, 0.4, (0.0, 0.4, 1.0), (0.0, 0.1, 0.7), "near", "")
    words = [threshold.judge(score).word for score in (0.39, 0.4, 0.79, 0.8, 1.0)]
    assert words == ["unknown", "ask", "ask", "same", "same"]
    assert [threshold.judge(score).probability for score in (-1.0, 0.2, 0.7, 1.0)] == pytest.approx([0, 0.05, 0.4, 0.7])


def test_what_a_query_is_compared_with() -> None:
    """Person 1 by camera 1 twice and by camera 2; person 2 by camera 1 only, whom nobody can find; person 3.

    A query of person 1 by camera 1 leaves out both images of its own camera, and person 2 is not in the table at all.
    """
    records = [Record(f"{place}", person, camera) for place, (person, camera) in enumerate(
        [(1, 1), (1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
    )]  # fmt: skip
    features = (np.eye(6) + np.arange(36).reshape(6, 6) / 100).astype(np.float32)
    similarity = features @ features.T
    table = _table(features, records, features, records, (VISIBLE, VISIBLE))
    assert table.queries.tolist() == [1, 1, 1, 3, 3]
    assert table.persons.tolist() == [1, 3]
    assert table.best[0].tolist() == [similarity[0, 2], max(similarity[0, 4], similarity[0, 5])]
    assert table.best[2].tolist() == [max(similarity[2, 0], similarity[2, 1]), max(similarity[2, 4], similarity[2, 5])]
    assert table.best[3, 1] == similarity[4, 5]


def test_thresholds_are_set_and_read_on_other_persons() -> None:
    """Sixty persons, four images each, features of 16 numbers that scatter around the person's own."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 16))
    features = (np.repeat(centres, 4, axis=0) + 0.7 * random.normal(size=(240, 16))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    records = [Record(str(place), place // 4, place % 4) for place in range(240)]
    table = _table(features, records, features, records, (VISIBLE, VISIBLE))
    pair = _pair(table, ThresholdSettings(splits=3, misses=0.2, replicates=200))
    assert (pair["enrolled"], pair["persons"], pair["queries"]) == (15, 60, 240)
    assert pair["aimed"]["FPIR"] == 3 / 15
    assert pair["ask"] <= pair["same"]
    # The first split by hand: strangers of the half that thresholds are set on, at their most similar enrolled person.
    half = person_splits(range(60), 3, 0.5, 0)[0]
    part = table.of(half)
    known = sorted(person_splits(sorted(half), 1, 0.5, derive_seed("enrolled", 0))[0])
    strangers = [
        max(float(part.best[row, part.persons.tolist().index(person)]) for person in known)
        for row, person in enumerate(part.queries.tolist())
        if person not in known
    ]
    assert len(strangers) == 60
    assert sum(score >= pair["splits"]["same"][0] for score in strangers) == 12  # a fifth
    assert pair["same"] == pytest.approx(np.mean(pair["splits"]["same"]))
    read = pair["read"]["strangers called same"]
    assert read["value"] is not None
    assert read["low"] <= read["value"] <= read["high"]
    assert pair["probabilities"] == sorted(pair["probabilities"])
    assert pair["scores"] == sorted(pair["scores"])
    assert 0 <= pair["probabilities"][0] <= pair["probabilities"][-1] <= 1
    assert "needs 300 non-mated persons" in pair["rates"]["FNIR at FPIR 1%"]["text"]
    assert all(line["low"] <= line["right"] <= line["high"] for line in pair["reliability"])


def test_too_few_persons_are_refused() -> None:
    features = np.eye(32, dtype=np.float32)
    records = [Record(str(place), place // 2, place % 2) for place in range(32)]
    few = _table(features[:30], records[:30], features[:30], records[:30], (VISIBLE, VISIBLE))
    with pytest.raises(UsageError, match=r"15 persons are too few to set a threshold on \(at least 16"):
        _pair(few, ThresholdSettings())
    enough = _pair(_table(features, records, features, records, (VISIBLE, VISIBLE)), ThresholdSettings(replicates=50))
    assert enough["aimed"]["FPIR"] == 3 / 4
    assert len(best_by_person(features[:4, :4], np.array([1, 1, 2, 2]))[0]) == 2


def test_a_thin_pair_of_lights_is_left_out_and_named(tmp_path: Path) -> None:
    """Twenty persons in visible light, six of them in infrared too; no split column; four queries for the drift."""
    lines = ["path,person,camera,modality"]
    for person in range(20):
        for camera in (1, 2) if person >= 6 else (1, 2, 3):
            Image.new("RGB", (32, 64), (12 * person, 255 - 12 * person, 60 * camera)).save(
                tmp_path / f"{person}-{camera}.png"
            )
            light = "infrared" if camera == 3 else "visible"
            lines.append(f"{person}-{camera}.png,{person},{camera},{light}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = DataConfig("folder", str(tmp_path))
    settings = ThresholdSettings(data, splits=2, drift=("brightness",), drift_queries=4, replicates=20, workers=0)
    result = measure(HistogramEncoder((16, 8), torch.device("cpu")), "unknown", settings)
    assert result["data"]["split"] == "all"
    assert [(pair["query"], pair["gallery"]) for pair in result["pairs"]] == [("visible", "visible")]
    assert result["too_few"][0].startswith("visible query, infrared gallery: 6 persons are too few")
    assert len(result["drift"]) == 5
    (tmp_path / "labels.csv").write_text("\n".join(line for line in lines if "-2." not in line))
    with pytest.raises(UsageError, match="infrared query, visible gallery: 6 persons are too few"):
        measure(HistogramEncoder((16, 8), torch.device("cpu")), "unknown", settings)


def test_drawn_queries_search_a_gallery_of_everybody() -> None:
    """Two queries of person 0; persons 1 and 2 are only in the gallery, where a stranger may resemble them."""
    records = [Record(f"{person}-{camera}.png", person, camera, VISIBLE) for person in range(3) for camera in (1, 2)]
    features = np.eye(6, 4, dtype=np.float32) + 0.1
    asked = [records[0], records[1]]
    pair = (VISIBLE, VISIBLE)
    assert _table(features[:2], asked, features, records, pair).persons.tolist() == [0]
    table = _table(features[:2], asked, features, records, pair, everybody=True)
    assert table.persons.tolist() == [0, 1, 2]
    assert table.best.shape == (2, 3)


def test_so_many_queries_of_each_light_are_drawn() -> None:
    """Of 599 records 300, where a step of one takes all and a step of two 300; of ten all ten."""
    records = [Record(f"{n}.png", n, 1, VISIBLE) for n in range(599)]
    records += [Record(f"{n}.png", n, 1, INFRARED) for n in range(10)]
    places = _drawn(records, 300)
    assert places[300:] == [*range(599, 609)]
    assert set(np.diff(places[:300])) == {1, 2}
    assert places[:2] == [0, 1]
    assert _drawn(records[:8], 4) == [0, 2, 4, 6]
    assert _drawn(records, 0) == [*range(609)]


@pytest.mark.parametrize("beside", [True, False])
def test_only_thresholds_beside_a_model_come_with_it_into_a_new_gallery(
    beside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {"data": {"name": "people", "split": "test"}, "persons": 20, "unreadable": 0, "pairs": [], "too_few": []}
    network = SimpleNamespace(card=SimpleNamespace(hash="", name="", infrared=""), encoder=None)
    monkeypatch.setattr("dapg.evaluation.thresholds.measure", lambda *_: result)
    monkeypatch.setattr("dapg.features.networks.Network", lambda *_: network)
    monkeypatch.setattr("dapg.features.networks.thresholds_file", lambda model: tmp_path / "thresholds.json")
    model = tmp_path if beside else "agw-imagenet-small"
    code, said, err = run(capsys, "threshold", model, "--data", "synthetic", "--out", tmp_path / "out.json")
    assert (code, "next: dapg index GALLERY IMAGES" in said) == (0, beside), err


def test_thresholds_without_a_place_are_refused_before_they_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapg.features.networks.Network", lambda *_: None)
    monkeypatch.setattr("dapg.evaluation.thresholds.measure", pytest.fail)
    code, _, err = run(capsys, "threshold", "agw-imagenet-small", "--data", "synthetic")
    assert (code, "agw-imagenet-small is no folder: give --out FILE.json" in err) == (2, True), err


def test_a_gallery_gets_thresholds_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = make_figures(tmp_path / "figures", persons=20, pictures=1)
    words = ("--model", "histogram", "--height", "32", "--width", "16")
    assert run(capsys, "index", tmp_path / "gallery", figures, *words)[0] == 0
    page, out = tmp_path / "page.html", tmp_path / "thresholds.json"
    (figures / "camera1" / "019_0.png").write_bytes(b"")
    code, said, err = run(
        capsys, "threshold", tmp_path / "gallery", "--data", figures, "--data.split", "all", "--workers", "0",
        "--splits", "2", "--replicates", "20", "--out", out, "--html", page,
        "--drift", "brightness", "--drift_queries", "20",
    )  # fmt: skip
    assert code == 0, err
    assert "visible query, visible gallery: same from" in said
    assert "infrared query, visible gallery" in said
    assert "1 unreadable image left out" in said
    assert page.read_text().count("<svg") == 2, "the store of images, and the curves"
    result = read_json(out)
    assert {line["severity"] for line in result["drift"]} == {1, 2, 3, 4, 5}
    gallery = Gallery(tmp_path / "gallery")
    answers = gallery.search(figures / "camera1" / "003_0.png").answers
    assert answers[0].verdict is not None
    pair = next(pair for pair in result["pairs"] if (pair["query"], pair["gallery"]) == ("visible", "visible"))
    visible = [answer for answer in answers if answer.picture.modality == VISIBLE]
    for answer in visible:
        word = "same" if answer.score >= pair["same"] else "ask" if answer.score >= pair["ask"] else "unknown"
        probability = np.interp(answer.score, pair["scores"], pair["probabilities"])
        assert answer.verdict is not None
        assert answer.verdict.word == word
        assert math.isclose(answer.verdict.probability, probability)
    assert "persons enrolled" in gallery.info()["thresholds"][0]["said"]
    _refused(gallery, {**result, "model": "another"}, "not of the gallery's histogram")
    gallery.database.execute("UPDATE models SET infrared = 'thermal'")
    _refused(gallery, {**result, "infrared": "near"}, "near infrared, but the gallery's network is for thermal")


def _refused(gallery: Gallery, result: JsonObject, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        gallery.set_thresholds(result)


def test_one_kind_of_infrared_is_refused_for_the_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    RegDB.write_example(tmp_path / "regdb")
    code, _, err = run(capsys, "threshold", "agw-imagenet-small", "--data", f"regdb={tmp_path / 'regdb'}", "--out", "x")
    assert (code, "RegDB is thermal infrared; the network has learnt near infrared" in err) == (2, True), err


def test_thresholds_beside_a_model_come_with_it(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "gallery", NetworkSettings("agw-imagenet-small"), "cpu")
    pairs = {(line["query"], line["gallery"]) for line in gallery.info()["thresholds"]}
    assert pairs == {(a, b) for a in ("visible", "infrared") for b in ("visible", "infrared")}
