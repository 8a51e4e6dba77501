"""The benchmark: features made and given, sides, numbers by hand, going on after a kill, picture cache, page."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from dapg import cli
from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode
from dapg.core.runtime import Runtime
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record, Trial
from dapg.corruptions import library
from dapg.data.sets.folder import Folder
from dapg.evaluation import benchmark_sets
from dapg.evaluation.benchmark import BenchmarkSettings, benchmark, cells_csv
from dapg.evaluation.benchmark_scores import Test, grid_of, relative_errors, score_protocols
from dapg.evaluation.benchmark_sets import FeatureFolder, Maker, damaged_by, sets_of
from dapg.evaluation.corrupted_sets import CorruptedDataset, CorruptionPolicy, policy
from dapg.evaluation.image_cache import ImageCache
from dapg.features.encoders import HistogramEncoder
from dapg.report.benchmark_page import number_rows, open_set_rows, write_benchmark_page
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score

PERSONS = 80
VISIBLE = policy("vi-c-1.0/visible")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty persons, one visible and one infrared picture each; nobody looks at most of the pictures."""
    folder = tmp_path_factory.mktemp("people")
    rows = ["path,person,camera,modality"]
    generator = np.random.default_rng(0)
    for person in range(PERSONS):
        for camera, modality in ((1, "visible"), (2, "infrared")):
            name = f"{person}-{camera}.png"
            Image.fromarray(generator.integers(0, 255, (64, 32, 3), dtype=np.uint8)).save(folder / name)
            rows.append(f"{name},{person},{camera},{modality}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def everyone(root: Path, repeats: int) -> Test:
    dataset = Folder(root)
    return Test(dataset, dataset.trials("cross-modal"), repeats)


def features_of(folder: Path, test: Test, policies: list[CorruptionPolicy], noise: float) -> FeatureFolder:
    """A direction for each person; noise on every picture, more the more severe the corruption is."""
    records, store = test.records(), FeatureFolder(folder)
    directions = torch.randn(PERSONS, 16, generator=torch.Generator().manual_seed(1))

    def write(name: str, chosen: list[Record], level: float) -> None:
        generator = torch.Generator().manual_seed(len(name) + int(10 * level))
        own = torch.stack([directions[record.person] for record in chosen])
        store.write(name, chosen, own + level * torch.randn(own.shape, generator=generator))

    write("clean", records, noise)
    for test_set in sets_of(policies, test.repeats):
        damaged = [record for record, _ in damaged_by(test_set, test.dataset, records)]
        if damaged:
            write(test_set.name, damaged, noise + 0.2 * max(test_set.policy.severities))
    return store


def stored(folder: FeatureFolder, name: str) -> dict[str, Any]:
    with np.load(folder.path / f"{name}.npz") as arrays:
        return dict(zip(arrays["paths"].tolist(), arrays["features"], strict=True))


def test_sides_mix_clean_and_corrupted_features(root: Path, tmp_path: Path) -> None:
    """One cell of each side, written as the definition: which features the queries have, and which the gallery."""
    test = everyone(root, 1)
    names = ["visible", "both", "both-query", "both-gallery"]
    policies = {
        name: dataclasses.replace(policy(f"vi-c-1.0/{name}"), types=("fog", "saturate"), severities=(3,))
        for name in names
    }
    store = features_of(tmp_path, test, list(policies.values()), 0.5)
    result = score_protocols(store, test, policies)
    clean, fog, fog_infrared = (stored(store, name) for name in ("clean", "fog-3", "fog-3.infrared"))
    assert not store.has("saturate-3.infrared")  # nothing to saturate in infrared light
    trial = test.trials[0]

    def looked_up(records: tuple[Record, ...], corrupted: bool, infrared: bool) -> torch.Tensor:
        sources = [
            clean if not corrupted else fog if r.modality == Modality.VISIBLE else fog_infrared if infrared else clean
            for r in records
        ]
        rows = [source[record.path] for source, record in zip(sources, records, strict=True)]
        return functional.normalize(torch.from_numpy(np.stack(rows)))

    for name, query, gallery, infrared in (
        ("visible", True, True, False),
        ("both", True, True, True),
        ("both-query", True, False, True),
        ("both-gallery", False, True, True),
    ):
        distances = -looked_up(trial.query, query, infrared) @ looked_up(trial.gallery, gallery, infrared).T
        cell = next(cell for cell in result["protocols"][name]["cells"] if cell["type"] == "fog")
        assert cell["mAP"] == pytest.approx(score(distances, Labels.of(trial)).mAP)
    scores = [result["protocols"][name]["cells"][0]["mAP"] for name in names]
    assert scores[0] == scores[3], "all queries are infrared"
    assert len(set(scores)) == 3


@pytest.fixture(scope="module")
def result(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Scores of made-up features, with a reference of noisier ones."""
    folder = tmp_path_factory.mktemp("features")
    ours, theirs = (
        score_protocols(features_of(folder / str(noise), test, [VISIBLE], noise), test, {"visible": VISIBLE})
        for noise, test in ((0.3, everyone(root, 2)), (0.6, everyone(root, 1)))
    )
    relative_errors(ours, theirs, "")
    return ours


def test_the_numbers_of_the_grid_are_those_of_its_cells(result: dict[str, Any]) -> None:
    protocol = result["protocols"]["visible"]
    types, severities, table = grid_of(protocol, "mAP")
    summary, clean = protocol["summary"], result["clean"]["mAP"]
    assert (table.shape, severities) == ((20, 5), [1, 2, 3, 4, 5])
    assert summary["mean"]["mAP"] == pytest.approx(table.mean())
    assert summary["retention"]["mAP"] == pytest.approx(table.mean() / clean)
    assert summary["worst_tenth"]["mAP"] == pytest.approx(np.sort(table, axis=None)[:10].mean())
    assert summary["worst_type"]["type"] == types[int(table.mean(axis=1).argmin())]
    noise = [types.index(name) for name in library.families()["noise"]]
    assert summary["families"]["noise"] == pytest.approx(table[noise].mean())
    unseen = [types.index(name) for name in library.UNSEEN]
    assert summary["lists"]["unseen"] == pytest.approx(table[unseen].mean())
    assert 0 < summary["mCE"] < 1, "less noise than the reference"
    assert -1 <= summary["overlap_beyond_clean"] <= summary["overlap"] <= 1
    interval = summary["intervals"]["mAP"]
    assert interval["low"] < summary["mean"]["mAP"] < interval["high"]
    assert interval["persons"] == PERSONS
    assert protocol["mixture"]["spread"]["mAP"]["repeat"]["levels"] == 2


def test_a_threshold_set_on_clean_pictures_drifts(result: dict[str, Any]) -> None:
    """Noisier features are less alike: fewer strangers pass, more of the known are missed."""
    cells = result["protocols"]["visible"]["cells"]
    clean = result["clean"]["open_set"]
    assert (clean["splits"], clean["known_persons"], clean["enrolled_persons"]) == (10, 40, PERSONS)
    assert clean["FNIR at FPIR 0.01"]["value"] is None
    assert "300 non-mated persons, there are 40" in clean["FNIR at FPIR 0.01"]["text"]
    mild, severe = ([cell for cell in cells if cell["severity"] == level] for level in (1, 5))
    mean = {
        rate: [np.mean([cell[rate]["value"] for cell in chosen]) for chosen in (mild, severe)]
        for rate in ("FPIR", "FNIR", "FNIR_own_threshold")
    }
    assert mean["FNIR"][0] < mean["FNIR"][1]
    assert mean["FNIR_own_threshold"][0] < mean["FNIR_own_threshold"][1]
    assert all(cell["FPIR"]["low"] <= cell["FPIR"]["value"] <= cell["FPIR"]["high"] for cell in cells)


def test_the_page_has_every_part_and_the_same_bytes(result: dict[str, Any], tmp_path: Path) -> None:
    about = {"name": "ours & <theirs>", "weights": None, "feature": "f", "source": "s"}
    data = {"name": "people", "mode": "cross-modal", "comparable": False}
    whole = {**result, "model": about, "data": data, "list": {"list": "vi-c 1.0", "sha256": "0" * 64}}
    whole |= {"features": "1" * 64, "reference": {"features": "2" * 64}}
    for name in ("a.html", "b.html"):
        write_benchmark_page(tmp_path / name, [whole])
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "ours &amp; &lt;theirs&gt;" in text
    assert text.count("<svg") == 3
    assert "not the published ones" in text
    (row,) = number_rows([whole])
    assert row["mCE"] == f"{100 * result['protocols']['visible']['summary']['mCE']:.1f}"
    assert len(open_set_rows([whole])) == 2
    assert len(cells_csv(whole).splitlines()) == 1 + 1 + 100
    assert "the highest of" not in text
    write_benchmark_page(tmp_path / "c.html", [whole, {**whole, "model": {**about, "name": "theirs"}}])
    assert "the highest of 2 models, though its interval overlaps that of 1 other" in (tmp_path / "c.html").read_text()
    empty = {
        **result["protocols"]["visible"]["summary"],
        "mCE": None,
        "relative_mCE": None,
        "mCE_missing": "none given",
    }
    protocols = {"visible": {**result["protocols"]["visible"], "summary": empty}}
    reference = {**whole, "features": "2" * 64, "reference": None, "protocols": protocols}
    (without,), (row, _) = number_rows([reference]), number_rows([reference, whole])
    assert (without["mCE"], row["mCE"], row["relative mCE"]) == ("", "100.0", "100.0")
    others = [{**whole, "model": {**about, "name": name}} for name in "abc"]
    write_benchmark_page(tmp_path / "d.html", [reference, *others])
    page = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "<title>vi-c 1.0: 4 models</title>" in page
    assert "mCE is empty" not in page
    assert '<th scope="col">protocol</th>' in text
    assert '<th scope="col">protocol</th>' not in page.partition("</table>")[0], "it is the same in all rows"


def test_no_reference_says_why(root: Path, tmp_path: Path) -> None:
    test, few = everyone(root, 1), dataclasses.replace(VISIBLE, types=("fog",), severities=(1, 2))
    result = score_protocols(features_of(tmp_path, test, [few], 0.3), test, {"visible": few})
    relative_errors(result, None, "no reference given")
    summary = result["protocols"]["visible"]["summary"]
    assert (summary["mCE"], summary["relative_mCE"]) == (None, None)
    assert summary["mCE_missing"] == "no reference given"


@pytest.fixture(scope="module")
def few(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six of the persons."""
    folder = tmp_path_factory.mktemp("few")
    lines = (root / "labels.csv").read_text().splitlines()[:13]
    (folder / "labels.csv").write_text("\n".join(lines))
    for line in lines[1:]:
        shutil.copy(root / line.split(",")[0], folder)
    return folder


def test_made_features_are_those_of_single_pictures_with_and_without_cache(few: Path, tmp_path: Path) -> None:
    """Corrupted together from decoded originals: to the last bit what the data set of single pictures gives."""
    dataset, encoder = Folder(few), HistogramEncoder((64, 32), torch.device("cpu"))
    test = Test(dataset, dataset.trials("cross-modal"), 1)
    chosen = dataclasses.replace(policy("vi-c-1.0/both"), types=("fog", "gaussian_noise", "rain"), severities=(2, 5))
    sets, records = sets_of([chosen], 1), test.records()
    cache = ImageCache(tmp_path / "cache", 10**8)
    folders = [FeatureFolder(tmp_path / name) for name in ("first", "second", "third")]
    for folder, runtime in zip(folders, (Runtime(), Runtime(workers=1), Runtime()), strict=True):
        kept = cache if folder != folders[2] else ImageCache(tmp_path / "none", 0)
        Maker(encoder, "histogram", dataset, records, runtime, kept).make(sets, folder)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == len(sets)
    assert not (tmp_path / "none").exists()
    names = ["clean", *(test_set.name for test_set in sets)]
    assert len({folder.digest(names) for folder in folders}) == 1
    for test_set in sets:
        view = CorruptedDataset(dataset, test_set.policy, test_set.repeat)
        values = stored(folders[0], test_set.name)
        damaged = [record for record, _ in damaged_by(test_set, dataset, records)]
        assert len(values) == len(damaged)
        for record in damaged[:2]:
            image = decode(view.read(record), (64, 32), None, record.path)
            expected = encoder.encode(image[None], record.modality)["histogram"][0]
            np.testing.assert_array_equal(values[record.path], expected.numpy())


def test_the_cache_is_bounded_and_drops_what_was_not_used(tmp_path: Path) -> None:
    images = np.zeros((10, 3, 4, 4), dtype=np.uint8)
    earlier = ImageCache(tmp_path, 2924, started=0.0)
    paths = [earlier.path({"n": number}) for number in range(5)]
    for path in paths[:3]:
        earlier.put(path, images)
    assert all(path.exists() for path in paths[:3])
    for number, path in enumerate(paths[:3]):
        os.utime(path, (100 + number, 100 + number))
    later = ImageCache(tmp_path, earlier.limit, started=1000.0)
    assert later.get(paths[0]) is not None  # used now, so the next one goes first
    later.put(paths[3], images)
    assert [path.exists() for path in paths[:4]] == [True, False, True, True]
    later.put(paths[4], images)
    assert [path.exists() for path in paths] == [True, False, False, True, True]
    later.put(paths[1], images)
    assert not paths[1].exists(), "what this run used stays"
    paths[0].write_bytes(b"no array")
    assert later.get(paths[0]) is None
    assert later.clear() > 0
    assert not list(tmp_path.glob("*.npy"))


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of one type at two severities, so that a whole benchmark takes no time."""
    protocol = dataclasses.replace(VISIBLE, types=("contrast",), severities=(1, 5))
    monkeypatch.setattr("dapg.evaluation.benchmark.chosen_policies", lambda settings: {"visible": protocol})


def test_features_give_the_same_bytes_as_the_model_and_a_killed_run_goes_on(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch)
    monkeypatch.setenv("DAPG_CACHE", str(tmp_path / "cache"))
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["--data", f"folder={few}", "--height", "64", "--width", "32", "--repeats", "1", "--mode", "cross-modal"]
    made: list[str] = []
    write = FeatureFolder.write

    def dies(self: FeatureFolder, name: str, *rest: Any) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(name)
        write(self, name, *rest)

    monkeypatch.setattr(FeatureFolder, "write", dies)
    assert cli.main(["benchmark", "histogram", *words, "--out", str(first)]) == 130
    assert made == ["clean", "contrast-1"]
    made.append("")
    assert cli.main(["benchmark", "histogram", *words, "--out", str(first)]) == 0
    assert made[3:] == ["contrast-5", "mixture-0"]
    assert cli.main(["benchmark", str(first / "features"), *words, "--out", str(second)]) == 0
    for name in ("result.json", "cells.csv", "benchmark.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    page = (first / "benchmark.html").read_bytes()
    assert cli.main(["benchmark", "histogram", *words, "--out", str(first)]) == 0
    assert (first / "benchmark.html").read_bytes() == page, "made again from what is stored"
    assert cli.main(["benchmark", "--clear_cache"]) == 0
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_an_unreadable_image_is_left_out_and_counted_or_ends_the_benchmark(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch)
    monkeypatch.setenv("DAPG_CACHE", str(tmp_path / "cache"))
    copy, first, second = tmp_path / "copy", tmp_path / "first", tmp_path / "second"
    shutil.copytree(few, copy)
    (copy / "0-1.png").write_bytes(b"")
    words = ["--data", f"folder={copy}", "--height", "64", "--width", "32", "--repeats", "1", "--mode", "cross-modal"]
    assert cli.main(["benchmark", "histogram", *words, "--on-bad-image", "fail", "--out", str(first)]) == 1
    assert "0-1.png: the file is empty" in capsys.readouterr().err
    assert cli.main(["benchmark", "histogram", *words, "--feature", "colour", "--out", str(first)]) == 2
    assert "there is no feature 'colour'; there are histogram" in capsys.readouterr().err
    assert cli.main(["benchmark", "histogram", *words, "--out", str(first)]) == 0
    assert "1 unreadable image left out" in capsys.readouterr().out
    result = json.loads((first / "result.json").read_text())
    assert list(result["unreadable"]) == ["0-1.png"]
    assert result["data"]["comparable"] is False
    (trial,) = result["data"]["trials"]
    assert trial["queries"] + trial["gallery"] == 11
    assert cli.main(["benchmark", str(first / "features"), *words, "--out", str(second)]) == 0
    assert (first / "result.json").read_bytes() == (second / "result.json").read_bytes()


def test_a_reference_must_be_of_the_same_test(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch)
    monkeypatch.setenv("DAPG_CACHE", str(tmp_path / "cache"))
    settings = BenchmarkSettings(
        "histogram", height=64, width=32, repeats=1, mode="cross-modal", out=str(tmp_path / "base")
    )
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, name="folder", root=str(few)))
    benchmark(settings)
    again = dataclasses.replace(settings, out=str(tmp_path / "again"), reference=str(tmp_path / "base"))
    by_result = benchmark(again)["protocols"]["visible"]["summary"]
    features = str(tmp_path / "base" / "features")
    by_features = benchmark(dataclasses.replace(again, out=str(tmp_path / "third"), reference=features))
    assert by_result["mCE"] == by_features["protocols"]["visible"]["summary"]["mCE"] == 1
    assert benchmark(again)["reused"]
    with np.load(Path(features) / "clean.npz") as clean:
        arrays = dict(clean)
    np.savez(Path(features) / "clean.npz", **{**arrays, "features": -arrays["features"]})
    with pytest.raises(UsageError, match="features holds changed since"):
        benchmark(dataclasses.replace(again, out=str(tmp_path / "third"), reference=features))
    given = dataclasses.replace(settings, model=features, out=str(tmp_path / "given"))
    benchmark(given)
    np.savez(Path(features) / "clean.npz", **arrays)
    with pytest.raises(UsageError, match="features holds changed since"):
        benchmark(given)
    stored = json.loads((tmp_path / "base" / "result.json").read_text())
    stored["data"]["hash"] = "another"
    (tmp_path / "base" / "result.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="another test"):
        benchmark(dataclasses.replace(again, out=str(tmp_path / "fourth")))
    with pytest.raises(UsageError, match="neither features"):
        benchmark(dataclasses.replace(again, out=str(tmp_path / "fifth"), reference=str(few)))


def test_foreign_features_are_checked(few: Path, tmp_path: Path) -> None:
    records, store = Folder(few).trials("cross-modal")[0].query, FeatureFolder(tmp_path)
    with pytest.raises(DataError, match=r"clean.npz does not exist"):
        store.read("clean", records)
    store.write("clean", records[1:], torch.rand(len(records) - 1, 4))
    with pytest.raises(DataError, match=f"no features of 1 of {len(records)} images, such as {records[0].path}"):
        store.read("clean", records)
    store.write("clean", records, torch.full((len(records), 4), torch.nan))
    with pytest.raises(DataError, match="NaN"):
        store.read("clean", records)
    whole = (tmp_path / "clean.npz").read_bytes()
    for damage in (whole[: len(whole) // 2], whole.replace(b"features.npy", b"vectors_.npy")):
        (tmp_path / "clean.npz").write_bytes(damage)
        for use in (lambda: store.read("clean", records), lambda: store.digest(["clean"])):
            with pytest.raises(DataError, match=r"clean.npz cannot be read"):
                use()
    shuffled = list(reversed(records))
    values = torch.rand(len(records), 4)
    store.write("clean", shuffled, values)
    assert torch.equal(store.read("clean", records), functional.normalize(values.flip(0)))


def test_unknown_protocols_are_named() -> None:
    from dapg.evaluation.benchmark import chosen_policies

    with pytest.raises(UsageError, match="no protocol is called 'visibel'; did you mean 'visible'"):
        chosen_policies(BenchmarkSettings("histogram", protocols=("visibel",)))
    every = chosen_policies(BenchmarkSettings("histogram", protocols=("all",)))
    assert next(iter(every)) == "visible"
    assert {"both-places", "both-cameras", "visible-query"} <= set(every)
    names = [test_set.name for test_set in sets_of(list(every.values()), 10)]
    assert len(names) == len(set(names)) == 2 * (100 + 3 * 10)
    assert benchmark_sets.mixture_name(every["both-places"], 3) == "places-3"


def test_the_list_of_images_is_what_features_are_asked_for(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--images", "--data", f"folder={few}", "--mode", "cross-modal"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "path,modality,person,camera"
    assert len(lines) == 12
    assert "0-2.png,infrared,0,2" in lines


def test_single_trials_are_scored_where_they_are_named(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dapg.evaluation.benchmark import _chosen

    (trial,) = Folder(few).trials("cross-modal")
    trials = [dataclasses.replace(trial, name=name) for name in ("first", "second")]
    assert _chosen(trials, ()) == trials
    assert _chosen(trials, (1,)) == trials[1:]
    with pytest.raises(UsageError, match="2 trials are counted from 0"):
        _chosen(trials, (2,))

    def stop(model: str, data: DataConfig, dataset: Folder, chosen: list[Trial]) -> list[Trial]:
        raise UsageError(f"asked for {[trial.name for trial in chosen]}")

    monkeypatch.setattr(Folder, "trials", lambda *_: trials)
    monkeypatch.setattr("dapg.evaluation.benchmark.untrained_trials", stop)
    settings = BenchmarkSettings("histogram", DataConfig("folder", str(few)), trials=(1,), out=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="asked for \\['second'\\]"):  # counted before a run's own partition is kept
        benchmark(settings)
