"""A stage's folder: taken, finished, reused, extended, resumed or refused."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dapg import __version__
from dapg.core.errors import DapgError, UsageError
from dapg.core.run_folder import RunFolder
from dapg.core.settings import run_only


@dataclass(frozen=True)
class Train:
    steps: int = 10


@dataclass(frozen=True)
class Settings:
    train: Train = field(default_factory=Train)
    rate: float = 0.1
    out: str = run_only("")


def stage(folder: Path, settings: Settings | None = None, kind: str = "pretrain", **more: Any) -> RunFolder:
    return RunFolder(folder, settings or Settings(), kind, extendable=("train.steps",), **more)


def work(folder: Path, settings: Settings | None = None) -> dict[str, Any]:
    """Open and finish, or reuse."""
    run = stage(folder, settings)
    found = run.open()
    if found is not None:
        run.close()
        return {**found, "reused": True}
    (folder / "metrics.jsonl").write_text("{}\n")
    return run.finish({"loss": 1.5, "extended_from": run.extended_from})


def test_config_first_result_last(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    run = stage(folder)
    assert run.open() is None
    assert {path.name for path in folder.iterdir()} == {".lock.0", "config.yaml", "environment.json"}
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {
        "stage": "pretrain",
        "train": {"steps": 10},
        "rate": 0.1,
        "out": "",
    }
    result = run.finish({"loss": 2.0})
    assert result == {"stage": "pretrain", "dapg_version": __version__, "loss": 2.0}
    assert json.loads((folder / "result.json").read_text()) == result


def test_environment_says_what_the_result_was_made_with(tmp_path: Path) -> None:
    import platform

    import torch

    run = stage(tmp_path)
    run.open()
    run.close()
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["python"] == platform.python_version()
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["dapg_version"] == __version__
    assert {"command", "commit", "machine", "device", "threads", "time"} <= set(environment)


def test_equal_settings_reuse_what_does_not_count_may_differ(tmp_path: Path) -> None:
    work(tmp_path)
    before = (tmp_path / "config.yaml").stat().st_mtime_ns
    again = work(tmp_path, Settings(out="elsewhere"))
    assert again["reused"]
    assert again["loss"] == 1.5
    assert (tmp_path / "config.yaml").stat().st_mtime_ns == before


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    work(tmp_path)
    with pytest.raises(UsageError) as caught:
        work(tmp_path, Settings(rate=0.5, train=Train(steps=5)))
    assert "rate: 0.1 there, 0.5 now; train.steps: 10 there, 5 now" in str(caught.value)
    assert "give another --out" in str(caught.value)
    assert json.loads((tmp_path / "result.json").read_text())["loss"] == 1.5, "the old result stays"
    assert work(tmp_path)["reused"], "and the folder is free again"


def test_more_steps_extend_and_drop_the_old_result(tmp_path: Path) -> None:
    work(tmp_path)
    run = stage(tmp_path, Settings(train=Train(steps=30)))
    assert run.open() is None
    assert run.extended_from == {"train.steps": (10, 30)}
    assert not (tmp_path / "result.json").exists(), "until it is done the folder is unfinished"
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]["steps"] == 30
    run.close()
    resumed = stage(tmp_path, Settings(train=Train(steps=30)))
    assert resumed.open() is None
    resumed.finish({})
    assert work(tmp_path, Settings(train=Train(steps=30)))["reused"]


def test_more_steps_and_another_rate_are_not_an_extension(tmp_path: Path) -> None:
    work(tmp_path)
    with pytest.raises(UsageError, match=r"rate: 0\.1 there, 0\.2 now"):
        work(tmp_path, Settings(rate=0.2, train=Train(steps=30)))
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("old", "new"), [(0, 50), (50, 0)])
def test_steps_that_were_or_become_zero_mean_epochs_and_do_not_grow(tmp_path: Path, old: int, new: int) -> None:
    work(tmp_path, Settings(train=Train(steps=old)))
    with pytest.raises(UsageError, match=f"train.steps: {old} there, {new} now"):
        work(tmp_path, Settings(train=Train(steps=new)))


def test_an_unfinished_run_is_resumed_with_its_files(tmp_path: Path) -> None:
    run = stage(tmp_path)
    run.open()
    (tmp_path / "checkpoint").write_text("x")
    (tmp_path / ".result.json.123.tmp").write_text("half")
    run.close()
    again = stage(tmp_path)
    assert again.open() is None
    assert (tmp_path / "checkpoint").read_text() == "x"
    assert not (tmp_path / ".result.json.123.tmp").exists(), "what a killed writer left is cleared"
    again.close()
    with pytest.raises(UsageError, match=r"rate: 0\.1 there, 0\.9 now"):
        stage(tmp_path, Settings(rate=0.9)).open()


def test_a_run_that_failed_before_it_made_anything_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """A misspelt data set fails after config.yaml is written; the corrected command must go through."""
    run = stage(tmp_path, Settings(rate=0.5))
    run.open()
    run.close()
    corrected = stage(tmp_path, Settings(rate=0.9))
    assert corrected.open() is None
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["rate"] == 0.9
    corrected.close()


def test_foreign_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty and holds no config\.yaml"):
        stage(tmp_path).open()
    assert {path.name for path in tmp_path.iterdir()} <= {"holiday.jpg", ".lock.0"}


def test_a_foreign_config_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: resnet\n")
    with pytest.raises(UsageError, match=r"config\.yaml was not written by dapg"):
        stage(tmp_path).open()
    assert (tmp_path / "config.yaml").read_text() == "model: resnet\n"


def test_another_stage_s_folder_is_refused(tmp_path: Path) -> None:
    work(tmp_path)
    with pytest.raises(UsageError, match="holds a run of `pretrain`, not of `evaluate`"):
        stage(tmp_path, kind="evaluate").open()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DapgError, match=r"cannot create .*/x"):
        stage(tmp_path / "x").open()


def test_only_rank_zero_writes(tmp_path: Path) -> None:
    second = stage(tmp_path, rank=1)
    assert second.open() is None
    second.finish({"loss": 1.0})
    assert {path.name for path in tmp_path.iterdir()} == {".lock.1"}


def test_a_second_process_may_meet_the_first_one_in_mid_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 writes config.yaml at the very moment rank 1 looks into the folder."""
    listing = Path.iterdir
    first = stage(tmp_path)

    def while_rank_zero_starts(folder: Path) -> Iterator[Path]:
        monkeypatch.setattr(Path, "iterdir", listing)
        first.open()
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", while_rank_zero_starts)
    second = stage(tmp_path, rank=1)
    assert second.open() is None
    assert (tmp_path / "config.yaml").exists()
    first.close()
    second.close()


def test_work_that_fails_before_it_made_anything_leaves_nothing(tmp_path: Path) -> None:
    run = stage(tmp_path / "new")
    run.open()
    with pytest.raises(UsageError, match="no such weights"), run.working():
        raise UsageError("no such weights")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    run = stage(tmp_path / "mine")
    run.open()
    with pytest.raises(UsageError), run.working():
        raise UsageError("no such weights")
    assert [path.name for path in (tmp_path / "mine").iterdir() if ".lock" not in path.name] == []
    run = stage(tmp_path / "begun")
    run.open()
    (tmp_path / "begun" / "metrics.jsonl").write_text("")
    with pytest.raises(UsageError), run.working():
        raise UsageError("later")
    assert (tmp_path / "begun" / "config.yaml").exists(), "what was begun can be gone on with"
