"""`dapg pretrain` from the command line: help, near misses, settings of a file, and a run of two steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from command_line import run
from dapg.core import plugins
from dapg.core.files import sha256
from dapg.core.scales import PRESETS
from dapg.core.settings import field_docs, to_dict
from dapg.methods.runs import method_class
from dapg.recipes import pretraining

METHODS = plugins.names("methods.pretraining")


def test_help_lists_methods_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "pretrain", "--help")
    assert code == 0
    assert {"simclr", "mocov2"} <= set(METHODS)
    for word in (*METHODS, *PRESETS):
        assert word in out


@pytest.mark.parametrize("method", METHODS)
def test_help_fits_on_two_screens(capsys: pytest.CaptureFixture[str], method: str) -> None:
    code, out, _ = run(capsys, "pretrain", method, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 80
    assert max(map(len, out.splitlines())) <= 120
    for option in ("--init", "--data", "--backbone", "--preset", "--train.steps", "--out", "--help-all"):
        assert option in out


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_help_shows_the_docs_of_its_fields(capsys: pytest.CaptureFixture[str], method: str) -> None:
    code, out, err = run(capsys, "pretrain", method, "--preset", "small", "--help-all")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    config: Any = method_class("pretrain", method).Config
    docs = field_docs(config)
    defaults = pretraining(method, "small")
    nested = {name for name in docs if hasattr(getattr(defaults.method, name), "__dataclass_fields__")}
    assert docs, "every field has a docstring"
    for name, doc in docs.items():
        if name in nested:
            assert f"--method.{name}." in text
            continue
        assert f"--method.{name}" in text
        assert doc.replace("``", "") in text, f"{name}: {doc}"
    assert "--train.optimizer.lr" in text


@pytest.mark.parametrize(
    ("method", "preset"), [*(("simclr", preset) for preset in PRESETS), *((method, "small") for method in METHODS[:-1])]
)
def test_printed_settings_are_the_preset_and_can_be_given_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str, preset: str
) -> None:
    code, out, err = run(capsys, "pretrain", method, "--preset", preset, "--print_config")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out) == to_dict(pretraining(method, preset), whole=True)
    path = tmp_path / "c.yaml"
    path.write_text(out)
    place = (method,) if preset == "small" else ()
    assert run(capsys, "pretrain", *place, "--config", str(path), "--print_config") == (0, out, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), f"dapg pretrain needs method ({METHODS[0]}"),
        (("--seed", "3"), f"dapg pretrain needs method ({METHODS[0]}"),
        (("simclrr",), "no method is called 'simclrr'; did you mean 'simclr'?"),
        (("simclr", "--preset", "smal"), "no preset is called 'smal'; did you mean 'small'?"),
        (("simclr", "--preset"), "--preset needs a value"),
        (("simclr", "--train.stps", "3"), "unknown option --train.stps; did you mean '--train.steps'?"),
        (("simclr", "--train.step", "3"), "unknown option --train.step; did you mean '--train.steps'?"),
        (("simclr", "--method.temperatur", "3"), "did you mean '--method.temperature'?"),
        (("simclr", "--method.head.hidden", "3"), "did you mean '--method.head.hidden_dim'?"),
        (("simclr", "--backbone.naem", "x"), "did you mean '--backbone.name'?"),
        (("simclr", "mocov2"), "unexpected word 'mocov2'"),
        (("simclr", "--train.batch_size", "0"), "--train.batch_size must be a whole number from 1 to"),
        (("simclr", "--train.accumulation", "0"), "--train.accumulation must be a whole number from 1 to"),
        (("simclr", "--train.steps", "-5"), "--train.steps must be a whole number from 0 to 1,000,000,000, not -5"),
        (("simclr", "--train.optimizer.lr", "nan"), "--train.optimizer.lr must be a number from 0 to 1e+06, not 'nan'"),
        (("simclr", "--train.log_every", "0"), "--train.log_every must be"),
        (("simclr", "--loader.workers", "-1"), "--loader.workers must be a whole number from 0 to 256, not -1"),
        (("simclr", "--loader.prefetch", "0"), "--loader.prefetch must be"),
        (("simclr", "--loader.height", "1000000"), "--loader.height must be a whole number from 1 to 4,096, not 10000"),
        (("simclr", "--method.head.hidden_dim", "0"), "--method.head.hidden_dim must be"),
        (("simclr", "--method.views.blur_sigma", "[0,1]"), "--method.views.blur_sigma must be a list of 2, each a num"),
        (("simclr", "--method.views.crop_scale", "0.5"), "a number from 0 to 1, such as [0.2, 1.0], not [0.5]"),
        (("simclr", "--seed", "9" * 5000), "--seed must be a whole number from 0 to"),
    ],
)
def test_wrong_use(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    code, out, err = run(capsys, "pretrain", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_settings_of_another_method_or_stage_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("stage: pretrain\nname: simclr\n")
    code, _, err = run(capsys, "pretrain", "mocov2", "--config", str(path))
    assert code == 2
    assert "holds settings of simclr, not of mocov2" in err
    path.write_text("stage: evaluate\nmodel: x\n")
    code, _, err = run(capsys, "pretrain", "simclr", "--config", str(path))
    assert code == 2
    assert "not the settings of a pre-training run, but of `evaluate`" in err
    path.write_text("train: {stps: 3}\n")
    code, _, err = run(capsys, "pretrain", "simclr", "--config", str(path))
    assert code == 2
    assert f"{path}: train.stps is not a setting; did you mean 'steps'?" in err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for number in range(9):
        pixels = torch.randint(0, 256, (32, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"")
    return folder


SMALL = (
    *("--preset", "demo", "--train.batch_size", "4", "--train.steps", "2", "--backbone.width", "0.125"),
    *("--loader.workers", "0", "--loader.height", "32", "--loader.width", "16", "--device", "cpu"),
    *("--method.views.height", "32", "--method.views.width", "16", "--train.on_collapse", "warn"),
)


def test_two_steps_reused_extended_and_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "run"
    words = ("pretrain", "simclr", *SMALL, "--data", str(pictures), "--out", str(out))
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert "done: 2 steps" in said
    assert f"weights for the next stage: {out / 'backbone.safetensors'}" in said
    written = {path.name for path in out.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "metrics.csv",
        "result.json",
        "backbone.safetensors",
        "method.safetensors",
    } <= written
    result = json.loads((out / "result.json").read_text())
    assert result["steps"] == 2
    assert result["data"]["pictures"] == 10

    code, said, _ = run(capsys, *words, "--train.log_every", "1")
    assert code == 0
    assert "already finished, reused" in said

    code, _, err = run(capsys, *words, "--seed", "1")
    assert code == 2
    assert "seed: 0 there, 1 now" in err
    assert json.loads((out / "result.json").read_text()) == result

    code, said, err = run(capsys, *words, "--train.steps", "9")
    assert code == 0, err
    assert "this run was extended; before: [{'train.steps': 2}]" in said
    assert "replaced: 1 unreadable image, listed in" in said
    assert json.loads((out / "result.json").read_text())["bad_images"].keys() == {"broken.png"}


def test_a_finished_run_is_not_reused_where_its_first_weights_were_replaced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    """Its settings name only the place of those weights."""
    first, second = tmp_path / "first", tmp_path / "second"
    common = ("pretrain", "simclr", *SMALL, "--data", str(pictures))
    words = (*common, "--backbone.init", str(first), "--out", str(second))
    for each in ((*common, "--out", str(first)), words):
        code, _, err = run(capsys, *each)
        assert code == 0, err
    code, said, _ = run(capsys, *words)
    assert (code, "already finished, reused" in said) == (0, True)

    old = sha256(first / "backbone.safetensors")
    first.rename(tmp_path / "moved")
    code, said, _ = run(capsys, *words)
    assert (code, "already finished, reused" in said) == (0, True), "the file is gone, so nothing contradicts"

    assert run(capsys, *common, "--seed", "1", "--out", str(first))[0] == 0
    new = sha256(first / "backbone.safetensors")
    code, _, err = run(capsys, *words)
    assert code == 2
    told = (
        f"{second} holds a training from other weights than {first} has now (SHA-256 {old[:12]} there, {new[:12]} now)"
    )
    assert f"{told}; give another --out, or delete the folder" in err


def test_a_failed_start_does_not_block_the_corrected_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "run"
    words = ("pretrain", "simclr", *SMALL, "--out", str(out))
    code, _, err = run(capsys, *words, "--data", str(tmp_path / "typo"))
    assert code == 1
    assert "is not a folder" in err
    code, _, err = run(capsys, *words, "--data", str(pictures), "--train.batch_size", "64")
    assert code == 2
    assert "10 images are too few for a batch of 64" in err
    code, said, err = run(capsys, *words, "--data", str(pictures))
    assert code == 0, err
    assert "done: 2 steps" in said


@pytest.mark.parametrize("method", ["byol", "simclr", "dapg"])
def test_a_batch_of_one_is_refused_with_the_smallest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str
) -> None:
    """A contrast needs a second image, and so does a batch norm over rows."""
    words = (
        "pretrain",
        method,
        "--preset",
        "demo",
        "--train.steps",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    )
    code, _, err = run(capsys, *words, "--train.batch_size", "1")
    assert code == 2
    assert "a batch of 1 is too small" in err
    assert "give --train.batch_size 2 or more" in err
