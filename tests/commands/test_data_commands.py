"""Commands around data sets, through the command line: verify, shard, corrupt, and scores of foreign features."""

import json
from pathlib import Path

import numpy as np
import pytest

from dapg.cli import main
from figures import make_figures


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    return make_figures(tmp_path / "figures", persons=4, pictures=1)


def test_verify_passes_and_names_a_broken_picture(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", str(figures), "--out", str(tmp_path / "verified.json")]) == 0
    stored = json.loads((tmp_path / "verified.json").read_text())
    assert stored["passed"] is True
    assert 12 in stored["counts"].values()
    (figures / "camera2" / "001_0.png").write_bytes(b"not a picture")
    assert main(["data", "verify", str(figures)]) == 1
    captured = capsys.readouterr()
    assert "camera2/001_0.png" in captured.out
    assert "1 error," in captured.err


def test_shards_train_like_the_folder(figures: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    assert main(["data", "shard", str(figures), "--out", str(shards), "--per_shard", "5", "--splits", "[all]"]) == 0
    assert len(list(shards.glob("*.tar"))) == 3
    common = ["--preset", "demo", "--train.steps", "2", "--train.batch_size", "8", "--loader.workers", "0"]
    common += ["--device", "cpu", "--data.split", "all"]
    for name, source in (("files", str(figures)), ("tars", f"shards={shards}")):
        assert main(["pretrain", "mocov2", *common, "--data", source, "--out", str(tmp_path / name)]) == 0
    files, tars = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("files", "tars"))
    assert files["weights"]["backbone.safetensors"] == tars["weights"]["backbone.safetensors"]


def test_corrupt_writes_a_copy_with_a_manifest(figures: Path, tmp_path: Path) -> None:
    words = ["corrupt", str(figures), "--corruption", "brightness-3", "--engine", "local"]
    assert main([*words, "--out", str(tmp_path / "copy")]) == 0
    lines = [json.loads(line) for path in (tmp_path / "copy").glob("manifest*.jsonl") for line in path.open()]
    assert len(lines) == 6  # the test half: two persons in three cameras
    assert {line["corruption"] for line in lines} == {"brightness", "none"}
    assert all((tmp_path / "copy" / line["path"]).exists() for line in lines)
    assert main(["corrupt", str(figures), "--engine", "three", "--out", str(tmp_path / "x")]) == 2


def test_scores_of_foreign_features_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two queries, three gallery images; the first has matches at ranks 1 and 3, the second at rank 3."""
    np.savez(
        tmp_path / "features.npz",
        query_features=np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
        query_persons=np.array([1, 2]),
        gallery_features=np.array([[1.0, 0.1], [0.6, 0.8], [1.0, -0.2]], np.float32),
        gallery_persons=np.array([1, 1, 2]),
    )
    out = tmp_path / "scores.json"
    words = ["score", str(tmp_path / "features.npz"), "--protocol", "plain", "--out", str(out)]
    assert main(words) == 0
    stored = json.loads(out.read_text())
    scores = stored["scores"][stored["feature"]]
    assert scores["cmc"][:3] == [0.5, 0.5, 1.0]
    first = (1 + 2 / 3) / 2
    assert scores["mAP"] == pytest.approx((first + 1 / 3) / 2)
    assert main(["score", "x.npz"]) == 2
    assert "--protocol" in capsys.readouterr().err
