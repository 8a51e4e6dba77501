"""`dapg score`, `compare` and `combine`; `evaluate` on RegDB's partitions, with flip averaging and re-ranking."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import run
from dapg.data.sets.regdb import RegDB
from dapg.evaluation.feature_files import PROTOCOLS
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score
from dapg.scoring.ranking import similarity


def features(path: Path, seed: int = 0, noise: float = 1.0) -> Path:
    """Eight persons; query cameras 3 and 6, gallery cameras 1, 2, 4 and 5, some junk."""
    people = np.random.default_rng(0).standard_normal((9, 12))
    generator = np.random.default_rng([1, seed])
    query, gallery = np.arange(40) % 8, np.concatenate([np.arange(70) % 9 - 1])
    cameras = np.array([3, 6])[np.arange(40) // 8 % 2], np.array([1, 2, 4, 5])[np.arange(70) // 9 % 4]
    np.savez(
        path,
        query_features=people[query] + noise * generator.standard_normal((40, 12)),
        gallery_features=people[gallery] + noise * generator.standard_normal((70, 12)),
        query_persons=query,
        gallery_persons=gallery,
        query_cameras=cameras[0],
        gallery_cameras=cameras[1],
    )
    return path


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_features_of_any_program_by_each_protocol(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, protocol: str
) -> None:
    path = features(tmp_path / "f.npz")
    out = tmp_path / "scores.json"
    code, said, err = run(capsys, "score", path, "--protocol", protocol, "--out", out)
    assert code == 0, err
    stored = json.loads(out.read_text())
    with np.load(path) as arrays:
        found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    columns = {key: found[key] for key in ("query_persons", "gallery_persons", "query_cameras", "gallery_cameras")}
    labels = Labels(**columns, protocol=PROTOCOLS[protocol])
    expected = score(-similarity(found["query_features"], found["gallery_features"]), labels)
    assert stored["scores"]["file"]["cmc"] == list(expected.cmc)
    assert stored["scores"]["file"]["mAP"] == pytest.approx(expected.mAP, abs=1e-12)
    assert stored["protocol"] == PROTOCOLS[protocol].name
    for part in (f"{100 * expected.rank(1):5.1f}", f"{100 * expected.mAP:5.1f}", f"{100 * expected.mINP:5.1f}"):
        assert part in said
    assert f"{expected.valid_queries} of 40" in said
    assert (tmp_path / "scores.queries.npz").exists()


def test_reranking_of_a_file_stands_beside_the_plain_scores(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, out = features(tmp_path / "f.npz"), tmp_path / "s.json"
    words = ("score", path, "--protocol", "plain", "--out", out)
    code, said, err = run(capsys, *words, "--rerank", "query-expansion", "--rerank.neighbours", "3")
    assert code == 0, err
    assert "\nfile  " in said
    assert "\nfile, query-expansion  " in said
    stored = json.loads(out.read_text())
    assert stored["rerank"]["neighbours"] == 3
    assert stored["scores"]["file"]["mAP"] != stored["scores"]["file, query-expansion"]["mAP"]
    assert run(capsys, *words, "--rerank", "k-recip")[0] == 2
    assert "unknown option --rerang" in run(capsys, *words, "--rerang", "x")[2]


def test_groups_are_compared_and_several_are_adjusted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, noise in (("base", 2.0), ("ours", 0.5), ("same", 2.0)):
        for seed in range(2):
            path, out = features(tmp_path / f"{name}{seed}.npz", seed, noise), tmp_path / f"{name}{seed}.json"
            assert run(capsys, "score", path, "--protocol", "regdb", "--out", out)[0] == 0
    groups = {name: [tmp_path / f"{name}{seed}.json" for seed in range(2)] for name in ("base", "ours", "same")}
    out = tmp_path / "compared.json"
    words = ("compare", *groups["base"], "vs", *groups["ours"], "vs", *groups["same"], "--out", out)
    code, said, err = run(capsys, *words)
    assert code == 0, err
    better, same = json.loads(out.read_text())
    assert better["differences"]["mAP"]["low"] > 0
    assert better["differences"]["mAP"]["p_holm"] == pytest.approx(2 * better["differences"]["mAP"]["p"])
    assert same["differences"]["mAP"]["value"] == 0
    assert said.count("by Holm's rule") == 6
    assert run(capsys, "compare", *groups["base"], "vs")[0] == 2
    assert run(capsys, "compare", groups["base"][0])[0] == 2
    code, said, err = run(capsys, "combine", *groups["ours"])
    assert code == 0, err
    assert "standard deviation over 2 seeds" in said
    assert run(capsys, "combine")[0] == 2


@pytest.fixture(scope="module")
def regdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regdb")
    RegDB.write_example(root)
    return root


SMALL = (
    "--preset",
    "demo",
    "--train.steps",
    "1",
    "--train.batch_size",
    "8",
    "--loader.workers",
    "0",
    "--device",
    "cpu",
)
SCORED = ("--mode", "visible-to-thermal", "--workers", "0", "--device", "cpu", "--ranked_lists", "1")


def test_ten_partitions_are_ten_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, regdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is scored on partitions whose test persons it did not see, also where the same copy is named otherwise.

    The small copy has two halves of persons: its odd partitions are one and the same, and so are its even ones.
    """
    for number in (2, 7):
        data = ("--data", f"regdb={regdb}", "--data.split", f"train-{number}")
        code, _, err = run(capsys, "pretrain", "simclr", *SMALL, *data, "--out", tmp_path / f"run-{number}")
        assert code == 0, err
    monkeypatch.setenv("DAPG_DATA_REGDB", str(regdb))
    results = []
    for number in (2, 7):
        results.append(tmp_path / f"scores-{number}")
        words = ("evaluate", tmp_path / f"run-{number}", "--data", "regdb", *SCORED, "--out", results[-1])
        code, _, err = run(capsys, *words)
        assert code == 0, err
        stored = json.loads((results[-1] / "result.json").read_text())
        own = [each for each in range(1, 11) if (each - number) % 2 == 0]
        assert [trial["name"] for trial in stored["trials"]] == [f"partition {each}" for each in own]
        assert [trial["drawn"] for trial in stored["trials"]] == [f"idx lists {each}" for each in own]
        assert stored["model_seed"] == 0
    code, said, err = run(capsys, "combine", *results, "--out", tmp_path / "combined.json")
    assert code == 0, err
    assert "standard deviation over 10 partitions" in said
    combined = json.loads((tmp_path / "combined.json").read_text())
    assert combined["clean"]["spread"]["mAP"]["gallery"]["levels"] == 1
    code, _, err = run(capsys, "compare", *results)
    assert code == 2
    assert "different test lists" in err


def test_a_model_is_refused_on_partitions_that_test_its_training_persons(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, regdb: Path
) -> None:
    data = ("--data", f"regdb={regdb}")
    code, _, err = run(capsys, "pretrain", "simclr", *SMALL, *data, "--data.split", "all", "--out", tmp_path / "run")
    assert code == 0, err
    code, _, err = run(capsys, "evaluate", tmp_path / "run", *data, *SCORED, "--out", tmp_path / "scores")
    assert code == 2
    assert "test it on the partition it was trained for" in err


def test_flip_averaging_and_reranking_add_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path, regdb: Path) -> None:
    """An untrained model may be tested on every partition; its persons are then drawn over all of them."""
    words = ("evaluate", "histogram", "--data", f"regdb={regdb}", *SCORED, "--out", tmp_path / "scores")
    code, said, err = run(capsys, *words, "--flip", "true", "--rerank", "k-reciprocal", "--rerank.k1", "3")
    assert code == 0, err
    stored = json.loads((tmp_path / "scores" / "result.json").read_text())
    centred = ("histogram, centred per camera", "histogram, flip-averaged, centred per camera")
    assert set(stored["scores"]) == {"histogram", "histogram, flip-averaged", "histogram, k-reciprocal", *centred}
    assert stored["feature"] == "histogram"
    assert (stored["flip"], stored["rerank"]["method"], stored["rerank"]["k1"]) == (True, "k-reciprocal", 3)
    assert "histogram, k-reciprocal" in said
    assert "standard deviation over 10 partitions" in said
    assert len(stored["trials"]) == 10
    assert stored["intervals"]["mAP"]["persons"] == 10
