"""The main job end to end through the command line: images, pre-training, scores, page."""

import json
import multiprocessing
import re
import signal
from pathlib import Path

import pytest

import process_jobs
import warm_processes
from dapg.cli import main
from figures import make_figures

SMALL = [
    "--preset",
    "demo",
    "--train.steps",
    "4",
    "--train.batch_size",
    "16",
    "--loader.workers",
    "0",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_figures(tmp_path_factory.mktemp("figures"), persons=8, pictures=2)


def pretrain(method: str, figures: Path, out: Path, *options: str) -> int:
    return main(["pretrain", method, *SMALL, "--data", str(figures), "--out", str(out), *options])


def test_pretrain_evaluate_report(figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, scores, page = tmp_path / "run", tmp_path / "scores", tmp_path / "page.html"
    assert pretrain("mocov2", figures, run) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 4
    assert result["pictures_seen"] == 64
    assert result["bad_images"] == {}
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "metrics.csv", "backbone.safetensors"):
        assert (run / name).exists(), name

    data = ["--data", str(figures), "--workers", "0", "--device", "cpu"]
    assert main(["evaluate", str(run), *data, "--mode", "cross-modal", "--out", str(scores)]) == 0
    assert main(["evaluate", "histogram", *data, "--out", str(tmp_path / "colours")]) == 0
    scored = json.loads((scores / "result.json").read_text())
    values = scored["scores"][scored["feature"]]
    assert 0 <= values["mAP"] <= 1
    assert values["queries"] == 8  # the test half: 4 persons x 1 infrared camera x 2 images
    assert scored["comparable"] is False
    assert scored["weights"] == result["weights"]["method.safetensors"]

    assert main(["report", str(tmp_path), "--out", str(page)]) == 0
    text = page.read_text()
    assert f"{100 * values['mAP']:.1f}" in text
    assert 'class="right"' in text or 'class="wrong"' in text
    assert "data:image/jpeg;base64," in text
    assert page.with_suffix(".md").read_text().startswith("| model |")
    capsys.readouterr()


def test_same_command_again_reuses_other_settings_are_named_more_steps_extend(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain("mocov2", figures, tmp_path / "run") == 0
    weights = (tmp_path / "run" / "backbone.safetensors").read_bytes()
    capsys.readouterr()
    assert pretrain("mocov2", figures, tmp_path / "run", "--loader.workers", "1", "--train.log_every", "1") == 0
    assert "reused" in capsys.readouterr().out
    assert pretrain("mocov2", figures, tmp_path / "run", "--method.temperature", "0.3") == 2
    message = capsys.readouterr().err
    assert "method.temperature: 0.1 there, 0.3 now" in message
    assert "Traceback" not in message
    assert (tmp_path / "run" / "backbone.safetensors").read_bytes() == weights
    assert pretrain("mocov2", figures, tmp_path / "run", "--train.steps", "6") == 0
    assert "extended" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 6
    assert result["extended_from"] == [{"train.steps": 4}]
    assert (tmp_path / "run" / "backbone.safetensors").read_bytes() != weights


def test_a_run_can_be_repeated_from_its_config(figures: Path, tmp_path: Path) -> None:
    assert pretrain("simclr", figures, tmp_path / "first", "--seed", "5") == 0
    again = ["pretrain", "--config", str(tmp_path / "first" / "config.yaml"), "--out", str(tmp_path / "second")]
    assert main(again) == 0
    first, second = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_weights_of_a_run_start_the_next(figures: Path, tmp_path: Path) -> None:
    assert pretrain("mocov2", figures, tmp_path / "first") == 0
    assert pretrain("simclr", figures, tmp_path / "second", "--init", str(tmp_path / "first")) == 0
    stored = json.loads((tmp_path / "second" / "result.json").read_text())["init"]
    assert "backbone.safetensors" in json.dumps(stored)


def test_an_unfinished_run_is_not_scored(figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain("mocov2", figures, tmp_path / "run") == 0
    (tmp_path / "run" / "result.json").unlink()
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(figures), "--out", str(tmp_path / "scores")]) == 2
    assert "not finished" in capsys.readouterr().err


def test_compare_two_results_and_refuse_training_persons(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(figures), "--mode", "cross-modal", "--workers", "0", "--device", "cpu"]
    small = ["--backbone", "resnet18", "--backbone.width", "0.125", "--height", "64", "--width", "32"]
    for name, model in (("colours", ["histogram"]), ("random", ["random", *small])):
        assert main(["evaluate", *model, *data, "--out", str(tmp_path / name)]) == 0
    first, second = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("colours", "random"))
    capsys.readouterr()
    files = [str(tmp_path / name / "result.json") for name in ("colours", "random")]
    assert main(["compare", *files]) == 0
    printed = capsys.readouterr().out
    gain = second["scores"]["backbone"]["mAP"] - first["scores"]["histogram"]["mAP"]
    assert f"{'mAP':7} {100 * gain:+6.1f}" in printed
    assert (
        second["intervals"]["mAP"]["low"] <= second["scores"]["backbone"]["mAP"] <= second["intervals"]["mAP"]["high"]
    )

    assert pretrain("mocov2", figures, tmp_path / "leak", "--data.split", "all") == 0
    assert main(["evaluate", str(tmp_path / "leak"), *data, "--out", str(tmp_path / "scores")]) == 2
    assert "trained on 4" in capsys.readouterr().err


def test_sigterm_ends_with_143_and_names_the_checkpoint(figures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["pretrain", "mocov2", *SMALL, "--train.steps", "100000", "--train.log_every", "1"]
    ours, theirs = multiprocessing.Pipe()
    process = warm_processes.start(
        process_jobs.command_that_tells_of_its_first_log,
        [*words, "--data", str(figures), "--out", str(run)],
        theirs,
        log=tmp_path / "log",
    )
    process.hear(ours)
    process.send(signal.SIGTERM)
    code, message = process.end()
    assert code == 143
    assert "Traceback" not in message
    saved = re.search(r"checkpoint: (\S+)\. Run it again", message)
    assert saved
    assert (Path(saved.group(1)) / "manifest.json").exists()


def test_validation_scores_reach_the_loop_and_are_refused_without_a_mode(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = ["--train.validate_every", "2"]
    assert pretrain("mocov2", figures, tmp_path / "scored", *every, "--validation", "cross-camera") == 0
    lines = [json.loads(line) for line in (tmp_path / "scored" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [2, 4]
    assert json.loads((tmp_path / "scored" / "result.json").read_text())["best"]["score"] > 0
    assert pretrain("mocov2", figures, tmp_path / "blind", *every) == 2
    assert "--validation MODE" in capsys.readouterr().err
