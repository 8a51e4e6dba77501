"""The whole chain on a real street video, where there is one: ``make real-video``, or DAPG_REAL_VIDEO=PATH."""

import csv
import json
import os
from pathlib import Path

import pytest

from dapg.cli import main

ROOT = Path(__file__).resolve().parents[1]
VIDEO = Path(os.environ.get("DAPG_REAL_VIDEO", ROOT / "outputs" / "real" / "vtest.avi"))
PEOPLE = ROOT / "benchmarks" / "vtest_people.csv"


@pytest.mark.slow
@pytest.mark.skipif(not VIDEO.exists(), reason=f"no {VIDEO}; make real-video fetches it")
def test_from_a_cut_off_street_video_to_scored_neighbours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = VIDEO.read_bytes()
    video = tmp_path / "vtest.avi"  # the name that the labels know
    video.write_bytes(data[: len(data) // 3])
    crops = tmp_path / "crops"
    assert main(["data", "crop", str(video), "--out", str(crops), "--sampling.segment_seconds", "10"]) == 0
    cropped = json.loads((crops / "result.json").read_text())
    assert cropped["missing"] > 400
    assert cropped["frames"] + cropped["missing"] == 795
    assert 150 < cropped["crops"] < 400
    with (crops / "manifest.csv").open() as handle:
        heights = sorted(int(row["bottom"]) - int(row["top"]) for row in csv.DictReader(handle))
    assert heights[len(heights) // 10] > 55
    assert heights[len(heights) * 9 // 10] < 150
    assert main(["data", "verify", str(crops)]) == 0
    run = tmp_path / "run"
    small = ["--preset", "demo", "--train.steps", "3", "--train.batch_size", "16", "--loader.workers", "0"]
    assert main(["pretrain", "mocov2", *small, "--device", "cpu", "--data", str(crops), "--out", str(run)]) == 0
    capsys.readouterr()
    for model in (str(run), "histogram"):
        out = tmp_path / Path(model).name
        words = ["neighbours", model, "--crops", str(crops), "--people", str(PEOPLE), "--out", str(out / "neighbours")]
        assert main([*words, "--workers", "0", "--device", "cpu"]) == 0
    result = json.loads((tmp_path / "histogram" / "neighbours" / "result.json").read_text())
    labels = sum(int(row["frame"]) < cropped["frames"] for row in csv.DictReader(PEOPLE.open()))
    assert result["crops"] > 0.8 * labels, "most hand-made labels fit a crop"
    assert result["scores"]["rank-1"] > result["chance"] + 0.2
