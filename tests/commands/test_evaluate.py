"""`dapg evaluate` from the command line, with the colour histogram, which needs no training."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from command_line import run
from figures import colour_at


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three persons of one colour each, seen by two cameras; two of the paths differ in a separator only."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["path,person,camera"]
    colours = {"anna": (200, 30, 30), "ben": (30, 200, 30), "cleo": (30, 30, 200)}
    paths = [("a/b.png", "anna", 1), ("a_b.png", "ben", 1), ("c.png", "cleo", 1)]
    paths += [("d.png", "anna", 2), ("e.png", "ben", 2), ("f.png", "cleo", 2)]
    for path, person, camera in paths:
        (folder / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 32), colours[person]).save(folder / path)
        rows.append(f"{path},{person},{camera}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def words(pictures: Path, out: Path, *more: str, model: str = "histogram") -> tuple[str, ...]:
    return ("evaluate", model, "--data", str(pictures), "--workers", "0", "--device", "cpu", "--out", str(out), *more)


def test_help_and_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "evaluate", "--help")
    assert code == 0
    assert "histogram" in out
    code, out, err = run(capsys, "evaluate")
    assert (code, out) == (2, "")
    assert "dapg evaluate needs MODEL" in err
    code, out, _ = run(capsys, "evaluate", "histogram", "--help")
    assert code == 0
    assert "Test mode of the data set" in out


def test_scores_are_printed_stored_and_reused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    """One colour a person: every first answer is right, so all scores are 100."""
    out = tmp_path / "scores"
    code, said, err = run(capsys, *words(pictures, out))
    assert code == 0, err
    assert said.count("100.0") >= 4
    assert "do not put the scores beside published ones" in said
    result = json.loads((out / "result.json").read_text())
    assert result["scores"]["histogram"]["mAP"] == 1.0
    assert result["data"]["mode"] == "cross-camera"
    before = (out / "result.json").stat().st_mtime_ns
    assert run(capsys, *words(pictures, out, "--batch_size", "2"))[0] == 0
    assert (out / "result.json").stat().st_mtime_ns == before
    _, said, _ = run(capsys, *words(pictures, tmp_path / "short", "--max_rank", "1"))
    assert "100.0      -  100.0" in said
    code, _, err = run(capsys, *words(pictures, out, "--max_rank", "3"))
    assert code == 2
    assert "max_rank: 20 there, 3 now" in err


def test_scores_on_other_labels_are_not_reused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "scores"
    shutil.copytree(pictures, copy)
    assert run(capsys, *words(copy, out))[0] == 0
    code, said, _ = run(capsys, *words(copy, out))
    assert (code, "already finished, reused" in said) == (0, True)
    labels = (copy / "labels.csv").read_text()
    (copy / "labels.csv").write_text(labels.replace("e.png,ben", "e.png,anna"))
    code, _, err = run(capsys, *words(copy, out))
    assert code == 2
    assert "its test images or their labels changed since" in err
    shutil.rmtree(copy)
    assert run(capsys, *words(copy, out))[0] == 0, "nothing contradicts"


def test_no_published_scores_are_spoken_of_where_there_are_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores"
    assert run(capsys, *words(pictures, out))[0] == 0
    result = json.loads((out / "result.json").read_text())
    monkeypatch.setattr("dapg.evaluation.evaluate.evaluate", lambda settings: result)
    code, said, err = run(capsys, "evaluate", "histogram", "--data", "synthetic", "--out", out)
    assert (code, "data: synthetic, embedded" in said, "published ones" in said) == (0, True, False), err


def test_every_ranked_picture_is_its_own_thumbnail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    """a/b.png is red and a_b.png is green; under one file name one of them would show the other's person."""
    out = tmp_path / "scores"
    assert run(capsys, *words(pictures, out))[0] == 0
    lists = json.loads((out / "result.json").read_text())["ranked_lists"]
    shown = {entry["path"]: entry["picture"] for one in lists for entry in (one["query"], *one["answers"])}
    assert len(set(shown.values())) == len(shown) == 6
    for path, place in shown.items():
        thumbnail = colour_at(Image.open(out / place).convert("RGB"), (10, 10))
        original = colour_at(Image.open(pictures / path).convert("RGB"), (3, 3))
        assert max(abs(a - b) for a, b in zip(thumbnail, original, strict=True)) < 12, path


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--mode", "cross-camra"), 2, "has no mode 'cross-camra'; did you mean 'cross-camera'?"),
        (("--feature", "projection"), 2, "there is no feature 'projection'; there are histogram"),
        (("--mod", "x"), 2, "unknown option --mod; did you mean '--mode'?"),
        (("--data.root", "/nowhere"), 1, "/nowhere is not a folder"),
        (("--device", "gpu"), 2, "no such device: 'gpu'"),
    ],
)
def test_wrong_use_and_failures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, more: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = run(capsys, *words(pictures, tmp_path / "scores", *more))
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_the_model_on_the_command_line_is_the_one_that_is_scored(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(capsys, *words(pictures, first))[0] == 0
    small = ("--backbone", "resnet18", "--backbone.width", "0.125", "--height", "32", "--width", "16")
    given = words(pictures, second, "--config", str(first / "config.yaml"), *small, model="random")
    code, _, err = run(capsys, *given)
    assert code == 0, err
    assert json.loads((second / "result.json").read_text())["model"] == "random"


def test_scores_of_weights_that_were_replaced_are_not_reused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    """The settings name a path; what lies there may have been trained on since."""
    import torch
    from safetensors.torch import load_file

    from dapg.core.train_config import BackboneConfig
    from dapg.methods.runs import backbone_settings
    from dapg.models.weights.backbone_weights import init_backbone, save_backbone

    weights = tmp_path / "weights.safetensors"
    small = ("--backbone", "resnet18", "--backbone.width", "0.125", "--height", "32", "--width", "16")
    network, _ = init_backbone("resnet18", backbone_settings(BackboneConfig("resnet18", width=0.125)), "random", 0)
    save_backbone(network, weights, {})
    given = words(pictures, tmp_path / "scores", *small, model=str(weights))
    code, _, err = run(capsys, *given)
    assert code == 0, err
    assert run(capsys, *given)[0] == 0
    with torch.no_grad():
        next(iter(network.parameters())).add_(0.5)
    save_backbone(network, weights, {})
    assert load_file(weights)
    code, _, err = run(capsys, *given)
    assert code == 2
    assert "holds scores of other weights" in err


def test_wrong_names_are_refused_before_a_picture_is_encoded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the end of a long bar to read of a slip."""
    monkeypatch.setattr("dapg.evaluation.evaluate.trial_features", lambda *_: pytest.fail("images were encoded"))
    for given, message in (
        (("--feature", "histogramm"), "there is no feature 'histogramm'; there are histogram"),
        (("--activations", "true"), "histogram is no network"),
        (("--data.split", "train"), "--data.split does nothing here: --mode says which images are tested"),
        (("--corruption.types", "fogg"), "no corruption is called 'fogg'; did you mean 'fog'"),
    ):
        code, _, err = run(capsys, *words(pictures, tmp_path / "scores", *given))
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert not (tmp_path / "scores").exists()


def test_a_damaged_picture_is_left_out_and_counted_or_ends_the_scoring(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    (copy / "f.png").write_bytes(b"")
    code, said, err = run(capsys, *words(copy, tmp_path / "scores"))
    assert code == 0, err
    assert "1 unreadable image left out" in said
    result = json.loads((tmp_path / "scores" / "result.json").read_text())
    assert list(result["unreadable"]) == ["f.png"]
    assert result["trials"][0]["queries"] == 5
    assert result["scores"]["histogram"]["valid_queries"] == 4, "cleo has no second image any more"
    assert result["comparable"] is False
    code, _, err = run(capsys, *words(copy, tmp_path / "other", "--on-bad-image", "fail"))
    assert code == 1
    assert "f.png: the file is empty" in err
    assert not (tmp_path / "other").exists(), "it made nothing"
    for path in copy.rglob("*.png"):
        path.write_bytes(b"")
    code, _, err = run(capsys, *words(copy, tmp_path / "other"))
    assert code == 1
    assert "none of 6 images can be read" in err
