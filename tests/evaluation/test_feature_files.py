"""Feature files of other programs: scored like tensors, and refused with the key that is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapg.core.errors import DataError, UsageError
from dapg.evaluation.comparison import compare_results
from dapg.evaluation.feature_files import PROTOCOLS, FileSettings, read_features, score_file, write_result
from dapg.scoring.bootstrap import read_query_scores
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import Scores, score
from dapg.scoring.ranking import similarity
from dapg.scoring.rerank import Rerank

REST = {"weight": 0.3, "neighbours": 10, "power": 3.0}


def scored(path: Path, name: str) -> tuple[dict[str, Any], list[Scores]]:
    """The result, and the trials of its one feature."""
    result, scores = score_file(path, FileSettings(name, device="cpu"))
    return result, scores["file"]


def arrays(queries: int = 40, gallery: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "query_features": generator.standard_normal((queries, 8)).astype(np.float32) * 5,
        "gallery_features": generator.standard_normal((gallery, 8)).astype(np.float32),
        "query_persons": generator.integers(0, 7, queries),
        "gallery_persons": generator.integers(-1, 7, gallery),
        "query_cameras": generator.choice([3, 6], queries),
        "gallery_cameras": generator.choice([1, 2, 4, 5], gallery),
    }


def saved(path: Path, **changes: np.ndarray | None) -> Path:
    values: dict[str, Any] = {key: value for key, value in {**arrays(), **changes}.items() if value is not None}
    np.savez(path, **values)
    return path


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_scores_are_those_of_the_tensors(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "features.npz")
    result, (scores,) = scored(path, name)
    tensors = {key: torch.from_numpy(value) for key, value in arrays().items()}
    columns = {key: tensors[key] for key in ("query_persons", "gallery_persons", "query_cameras", "gallery_cameras")}
    labels = Labels(**columns, protocol=PROTOCOLS[name])
    expected = score(-similarity(tensors["query_features"], tensors["gallery_features"]), labels)
    assert scores.cmc == expected.cmc
    assert scores.mAP == pytest.approx(expected.mAP, abs=1e-9)
    assert result["scores"]["file"]["mAP"] == scores.mAP
    assert result["intervals"]["mAP"]["low"] <= scores.mAP <= result["intervals"]["mAP"]["high"]
    assert (result["trials"][0]["queries"], result["trials"][0]["gallery"]) == (40, 60)
    assert (result["dimension"], result["rerank"]) == (8, None)


def test_cameras_are_optional_where_no_rule_needs_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "features.npz", query_cameras=None, gallery_cameras=None)
    assert scored(path, "regdb")[1][0].queries == 40
    with pytest.raises(DataError, match="has no query_cameras, gallery_cameras"):
        score_file(path, FileSettings("market"))


def test_the_json_compares_with_itself(tmp_path: Path) -> None:
    result, scores = score_file(saved(tmp_path / "features.npz"), FileSettings("sysu"))
    write_result(tmp_path / "result.json", result, scores)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["rules"]["camera_groups"] == {"2": 2, "3": 2}
    (found,) = compare_results([tmp_path / "result.json"], [tmp_path / "result.json"])
    expected = {"value": 0, "low": 0, "high": 0, "persons": 7, "seeds": 1, "partitions": 1, "p": 1.0, "p_holm": 1.0}
    assert found["differences"]["mAP"] == expected


def test_reranking_is_named_in_the_result(tmp_path: Path) -> None:
    path = saved(tmp_path / "features.npz")
    plain, _ = score_file(path, FileSettings("plain"))
    settings = FileSettings("plain", rerank=Rerank("k-reciprocal", k1=5, k2=2))
    again, scores = score_file(path, settings)
    assert again["rerank"] == {"method": "k-reciprocal", "k1": 5, "k2": 2, **REST}
    assert list(again["scores"]) == ["file", "file, k-reciprocal"], "with and without, side by side"
    assert again["scores"]["file"] == plain["scores"]["file"]
    assert again["scores"]["file, k-reciprocal"]["mAP"] != plain["scores"]["file"]["mAP"]
    write_result(tmp_path / "result.json", again, scores)
    assert list(read_query_scores(tmp_path / "result.queries.npz")) == list(again["scores"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_features": None}, "has no query_features"),
        ({"query_persons": np.zeros(3, int)}, "query_persons must have 40 entries"),
        ({"query_persons": np.full(40, 0.5)}, "query_persons must be whole numbers"),
        ({"query_persons": np.array(["a"] * 40)}, "query_persons must be whole numbers"),
        ({"gallery_features": np.zeros((60, 9), np.float32)}, "query features have 8 numbers, gallery features 9"),
        ({"gallery_features": np.zeros((60, 8), int)}, "gallery_features must be floating point"),
        ({"gallery_features": np.full((60, 8), np.nan)}, "gallery_features row 0 holds a NaN"),
        ({"gallery_cameras": np.array([{}] * 60)}, "without pickles"),
        ({"gallery_cameras": arrays()["gallery_cameras"] - 1}, "gallery_cameras has 0, but SYSU-MM01's cameras are"),
        ({"query_persons": np.full(40, np.inf)}, "query_persons holds a number that is no label"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_file(saved(tmp_path / "features.npz", **changes), FileSettings("sysu"))


@pytest.mark.parametrize("kind", ["<f8", ">f4", "<f2", "longdouble"])
def test_precisions_and_byte_orders_may_be_mixed(tmp_path: Path, kind: str) -> None:
    """Small whole numbers are exact in each of them, so the scores are those of float32."""
    whole = arrays()["query_features"].round()
    _, (expected,) = scored(saved(tmp_path / "plain.npz", query_features=whole), "sysu")
    _, (scores,) = scored(saved(tmp_path / "mixed.npz", query_features=whole.astype(kind)), "sysu")
    assert scores.cmc == expected.cmc
    assert scores.mAP == pytest.approx(expected.mAP, abs=1e-12)


@pytest.mark.parametrize("factor", [2.0**90, 2.0**-90])
def test_large_and_small_features_have_a_direction_too(tmp_path: Path, factor: float) -> None:
    """Their squares are beyond float32."""
    features = arrays()["query_features"]
    plain = read_features(saved(tmp_path / "plain.npz"), PROTOCOLS["plain"])
    path = saved(tmp_path / "scaled.npz", query_features=(features * factor).astype(np.float32))
    scaled = read_features(path, PROTOCOLS["plain"])
    torch.testing.assert_close(scaled.query_features, plain.query_features)


def test_exactly_zero_features_are_pointed_out_and_damage_is_named(tmp_path: Path) -> None:
    features = arrays()["query_features"]
    features[3:5] = 0
    result, _ = scored(saved(tmp_path / "zero.npz", query_features=features), "sysu")
    assert result["notes"] == ["query_features: 2 exactly zero, as near to one image as to any"]
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, **arrays())  # type: ignore[arg-type]
    data = path.read_bytes()
    path.write_bytes(data[:200] + b"\xff" * 4 + data[204:])
    with pytest.raises(DataError, match="or damaged"):
        read_features(path, PROTOCOLS["plain"])


def test_other_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, message in (("text.npz", "not an .npz file"), ("one.npy", "holds one array"), ("none.npz", "No such")):
        with pytest.raises(DataError, match=message):
            read_features(tmp_path / name, PROTOCOLS["plain"])
    with pytest.raises(UsageError, match="did you mean 'market'"):
        score_file(tmp_path / "text.npz", FileSettings("markt"))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_widths_are_read(tmp_path: Path, dtype: type[np.floating]) -> None:
    values = {key: arrays()[key].astype(dtype) for key in ("query_features", "gallery_features")}
    features = read_features(saved(tmp_path / "f.npz", **values), PROTOCOLS["plain"])
    lengths = features.query_features.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths))
