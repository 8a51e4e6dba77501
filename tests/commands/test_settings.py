"""From defaults, a file and options to settings: precedence, near misses, round trips."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from dapg.commands._settings import parse, take_option, take_positional, take_words
from dapg.core.errors import UsageError
from dapg.core.settings import run_only, to_dict
from dapg.core.train_config import DataConfig


@dataclass(frozen=True)
class Optimizer:
    """How weights move."""

    name: Literal["sgd", "adam"] = "sgd"
    """Kind."""
    lr: float = 0.1
    """Learning rate,
    per 256 images."""


@dataclass(frozen=True)
class Train:
    """How long."""

    steps: int = 10
    """Number of steps."""
    size: tuple[int, int] = (4, 2)
    """Height and width."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Moves."""


@dataclass(frozen=True)
class Settings:
    name: str
    """By place."""
    method: Any = field(default_factory=Optimizer)
    """The plug-in's own."""
    data: DataConfig = field(default_factory=DataConfig)
    """Pictures."""
    train: Train = field(default_factory=Train)
    """Length."""
    seed: int = 0
    """Of every draw."""
    note: str | None = None
    """Anything."""
    quiet: bool = False
    """Says nothing."""
    device: str = run_only("auto")
    """Where."""


PRESET = Settings("mine", method=Optimizer(lr=7.0), train=Train(steps=50, optimizer=Optimizer("adam")))


def read(*words: str) -> Settings:
    return parse("dapg test", PRESET, list(words), "About.", positionals=("name",))


def test_nothing_said_leaves_the_preset() -> None:
    assert read() == PRESET


def test_options_reach_every_depth_and_leave_the_rest() -> None:
    settings = read("--train.optimizer.lr", "1e-4", "--seed=3", "--method.lr", "2", "--train.size", "[8, 9]")
    assert settings.train.optimizer == Optimizer("adam", 1e-4)
    assert settings.train.steps == 50
    assert settings.train.size == (8, 9)
    assert settings.seed == 3
    assert settings.method == Optimizer(lr=2.0)
    assert isinstance(settings.method.lr, float)


def test_file_beats_preset_and_option_beats_file_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("stage: pretrain\nseed: 5\ntrain:\n  steps: 7\n  optimizer: {lr: 1e-3}\n")
    settings = read("--seed", "6", "--config", str(path))
    assert settings.seed == 6
    assert settings.train.steps == 7
    assert settings.train.optimizer == Optimizer("adam", 1e-3)
    assert settings.method == Optimizer(lr=7.0)
    assert read(f"--config={path}").seed == 5


def test_what_is_given_by_place_does_not_come_from_the_file(tmp_path: Path) -> None:
    """Else ``evaluate B --config A/config.yaml`` would score A under the name of B."""
    path = tmp_path / "c.yaml"
    path.write_text("name: other\nseed: 5\n")
    assert read("--config", str(path)).name == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sed", "3"], "unknown option --sed; did you mean '--seed'?; see dapg test --help"),
        (["--see", "3"], "unknown option --see; did you mean '--seed'?"),
        (["--train.stpes", "3"], "unknown option --train.stpes; did you mean '--train.steps'?"),
        (["--train.optimizer.lrr=3"], "unknown option --train.optimizer.lrr; did you mean '--train.optimizer.lr'?"),
        (["--method.lrr", "3"], "unknown option --method.lrr; did you mean '--method.lr'?"),
        (["--train.optim.lr", "3"], "unknown option --train.optim.lr; did you mean '--train.optimizer.lr'?"),
        (["word"], "unexpected word 'word'; see dapg test --help"),
        (["--seed", "many"], "--seed must be a whole number, not 'many'"),
        (["--train.optimizer.lr", "fast"], "--train.optimizer.lr must be a number, not 'fast'"),
        (["--train.optimizer.name", "sdg"], "--train.optimizer.name must be one of sgd, adam, not 'sdg'"),
        (["--config"], "--config needs a value"),
        (["--data"], "--data needs a value"),
        (["--data", "--seed", "3"], "--data needs a value"),
        (["--data", "foldr=/x"], "'foldr' is neither a data set nor a folder; did you mean 'folder'?"),
        (["--name", "x"], "unknown option --name"),
    ],
)
def test_wrong_words_are_answered_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 3", "mine.yaml: sed is not a setting; did you mean 'seed'?"),
        ("train: {stps: 3}", "mine.yaml: train.stps is not a setting; did you mean 'steps'?"),
        ("train: {optimizer: {lrr: 3}}", "mine.yaml: train.optimizer.lrr is not a setting; did you mean 'lr'?"),
        ("method: {lrr: 3}", "mine.yaml: method.lrr is not a setting; did you mean 'lr'?"),
        ("train: {steps: many}", "mine.yaml: train.steps must be a whole number, not 'many'"),
        ("- 3", "must hold a mapping"),
    ],
)
def test_wrong_files_are_answered_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read("--config", str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        read("--config", str(tmp_path / "missing.yaml"))


def test_data_in_short(tmp_path: Path) -> None:
    assert read("--data", "folder=/a b").data == DataConfig("folder", "/a b")
    assert read(f"--data={tmp_path}").data == DataConfig("folder", str(tmp_path))
    both = read("--data", str(tmp_path), "--data.subset", "5")
    assert both.data == DataConfig("folder", str(tmp_path), subset=5)


def test_print_config_can_be_given_back_and_prints_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--train.optimizer.lr", "1e-5", "--note", "a: b", "--method.lr", "3", "--data", "folder=/x"]
    with pytest.raises(SystemExit) as stopped:
        read(*words, "--print_config")
    assert not stopped.value.code
    first = capsys.readouterr().out
    assert yaml.safe_load(first) == to_dict(read(*words), whole=True)
    path = tmp_path / "c.yaml"
    path.write_text(first)
    with pytest.raises(SystemExit):
        read("--config", str(path), "--print_config")
    assert capsys.readouterr().out == first
    assert read("--config", str(path)) == read(*words)


def shown(capsys: pytest.CaptureFixture[str], *words: str, common: str = "") -> str:
    with pytest.raises(SystemExit) as stopped:
        parse("dapg test", PRESET, list(words), "About.", positionals=("name",), common=common)
    assert not stopped.value.code
    return capsys.readouterr().out


def test_short_help_shows_shorthands_and_one_line_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ".join(line.split()) for line in shown(capsys, "--seed", "3", "--help").splitlines()]
    assert lines[0] == "About."
    assert any(line.startswith("--data SOURCE a data set") for line in lines)
    assert "--train.steps 50 Number of steps." in lines, "the preset's value"
    assert "--train.optimizer.lr 0.1 Learning rate, per 256 images." in lines
    assert "--note null Anything." in lines
    assert not any(line.startswith(("--name", "--init")) for line in lines), "neither is an option here"
    assert lines[-1] == "every setting (18), with kinds and ranges: dapg test --help-all"


def test_short_help_may_show_the_common_ones_only(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "-h", common="train. seed")
    options = re.findall(r"^  --([a-z._]+) ", text.split("settings most often changed:")[1], re.MULTILINE)
    assert options == ["train.steps", "train.size", "seed"]


def test_full_help_shows_docs_kinds_and_sections(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "--help-all").split())
    for part in (
        "train: How long. --train.steps 50 Number of steps. (a whole number)",
        "train.optimizer: How weights move. --train.optimizer.name adam Kind. (one of sgd, adam)",
        "--method.lr 7.0 Learning rate, per 256 images. (a number)",
        "--note null Anything. (text or null)",
    ):
        assert part in text


def test_lists_need_no_brackets_and_switches_no_value() -> None:
    assert read("--train.size", "8,9").train.size == (8, 9)
    assert read("--train.size=[8, 9]").train.size == (8, 9)
    assert read("--note", "null").note is None
    assert read("--note", "2020-01-01").note == "2020-01-01"
    assert read("--quiet").quiet
    assert read("--quiet", "--seed", "4").quiet
    assert not read("--quiet", "false").quiet


def test_several_words_before_the_first_option() -> None:
    assert take_words(["a", "b", "--out", "c"]) == (["a", "b"], ["--out", "c"])
    assert take_words([]) == ([], [])


def test_positionals_and_deciding_options() -> None:
    assert take_positional(["a", "b"], "thing", ["a"], "dapg x") == ("a", ["b"])
    with pytest.raises(UsageError, match=r"dapg x needs thing \(a, b\); see dapg x --help"):
        take_positional(["--seed"], "thing", ["a", "b"], "dapg x")
    with pytest.raises(UsageError, match="no thing is called 'tinny'; did you mean 'tiny'"):
        take_positional(["tinny"], "thing", ["tiny"], "dapg x")
    assert take_option(["a", "--preset", "x", "b"], "--preset", "y") == ("x", ["a", "b"])
    assert take_option(["--preset=x"], "--preset", "y") == ("x", [])
    assert take_option(["a"], "--preset", "y") == ("y", ["a"])
