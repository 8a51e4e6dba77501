"""A run killed at any moment and started again ends bit-equal to one that was never stopped."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_script
from safetensors.torch import load_file

import warm_processes
from dapg.core.metrics_log import read_metrics
from dapg.training import checkpoint

SCRIPT = Path(__file__).with_name("training_script.py")
TIMES = {"seconds", "waited"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from figures import make_figures

    return make_figures(tmp_path_factory.mktemp("figures"), persons=10, pictures=2)


LOADED = ("--accumulation", "2", "--workers", "2")


def words(figures: Path, run: Path, *options: str, steps: int = 7) -> list[str]:
    return [str(figures), str(run), str(steps), *options]


def launch(figures: Path, run: Path, *options: str, restarts: int = 0) -> "subprocess.Popen[bytes]":
    """Two processes under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    # Or restarted processes may find the addresses of dead ones in torchrun's store (docs/how-to/multi-node.md).
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), *words(figures, run, *options, steps=9)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_to_end(figures: Path, run: Path, *options: str) -> None:
    warm_processes.start(training_script.main, words(figures, run, *options), log=run.with_suffix(".log")).succeed()


def run_two_to_end(figures: Path, run: Path, *options: str, steps: int) -> None:
    asked = words(figures, run, *options, steps=steps)
    for rank in warm_processes.start_ranks(training_script.main, asked, folder=run.with_suffix(".ranks")):
        rank.succeed()


def last_state(run: Path) -> dict[str, object]:
    """Everything the newest checkpoint holds, save clock times."""
    whole = checkpoint.whole_checkpoints(run)[-1]
    state: dict[str, object] = {"step": whole.step, "method": load_file(whole.folder / "method.safetensors")}
    for path in sorted(whole.folder.glob("rank*.pt")):
        content = torch.load(path, weights_only=True)
        progress = content["state"]["progress"]
        content["state"]["progress"] = {key: value for key, value in progress.items() if key not in TIMES}
        state[path.name] = content
    return state


def assert_equal(first: object, second: object, where: str = "") -> None:
    """Bit-equal, through dicts and lists."""
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_equal(value, second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}[{index}]")
    else:
        assert first == second, where


def logged(run: Path) -> list[dict[str, object]]:
    clock = {"pictures_per_second", "data_wait"}
    return [{key: value for key, value in line.items() if key not in clock} for line in read_metrics(run)]


@pytest.fixture(scope="module")
def uninterrupted(figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted")
    run_to_end(figures, run, *LOADED)
    return run


@pytest.mark.parametrize("crash", ["step:1", "step:5", "write:4", "rename:4", "renamed:4"])
def test_a_kill_at_an_exact_place_changes_nothing(
    crash: str, figures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed = warm_processes.start(
        training_script.main, words(figures, run, *LOADED, "--crash", crash), log=tmp_path / "killed.log"
    )
    code, printed = killed.end()
    assert code == -signal.SIGKILL, printed
    run_to_end(figures, run, *LOADED)
    assert_equal(last_state(run), last_state(uninterrupted))
    assert logged(run) == logged(uninterrupted)
    assert not list((run / "checkpoints").glob("*.partial"))


def test_the_reference_trains_at_all(figures: Path, uninterrupted: Path) -> None:
    """So that equality above means something: weights, optimiser and queue all moved."""
    state = last_state(uninterrupted)
    fresh = training_script.build(60).state_dict()
    moved = state["method"]
    assert isinstance(moved, dict)
    assert state["step"] == 7
    assert not torch.equal(moved["backbone.conv1.weight"], fresh["backbone.conv1.weight"])
    assert int(moved["keys.queue.filled"]) == 30  # half of 60 images, filled by 7 steps of 16
    assert state["rank0.pt"]["optimizer"]["state"]  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is a Linux call")
def test_killing_the_launcher_leaves_no_orphans(figures: Path, tmp_path: Path) -> None:
    """Two processes under torchrun; only torchrun is killed; then the run goes on to the same end."""
    launcher = launch(figures, tmp_path / "killed", "--stop", "5")
    assert launcher.stdout is not None
    printed: list[bytes] = []
    while sum(b"has stopped" in line for line in printed) < 2:
        printed.append(launcher.stdout.readline())
        assert printed[-1], b"".join(printed).decode()
    launcher.kill()
    launcher.communicate()  # returns when the last process that holds the pipe, an orphan too, has ended
    run_two_to_end(figures, tmp_path / "killed", steps=9)
    run_two_to_end(figures, tmp_path / "whole", steps=9)
    assert_equal(last_state(tmp_path / "killed"), last_state(tmp_path / "whole"))
    assert (checkpoint.whole_checkpoints(tmp_path / "killed")[-1].folder / "rank1.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_after_a_killed_rank_from_the_last_checkpoint(
    rank: int, figures: Path, tmp_path: Path
) -> None:
    """SIGKILL of one of two processes in step 5: torchrun starts both again, and they end as if nothing had been."""
    process = launch(figures, tmp_path / "killed", "--crash", "step:5", "--crash-rank", str(rank), restarts=1)
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()
    assert output.count(f"rank {rank} is killed".encode()) == 1
    run_two_to_end(figures, tmp_path / "whole", steps=9)
    assert_equal(last_state(tmp_path / "killed"), last_state(tmp_path / "whole"))
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "everyone", "error"),
    [(signal.SIGTERM, False, "Terminated"), (signal.SIGTERM, True, "Terminated"), (signal.SIGINT, True, "Cancelled")],
    ids=["main process", "loader processes too", "Ctrl-C"],
)
def test_a_signal_ends_well(
    figures: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals, everyone: bool, error: str
) -> None:
    """It saves and says where; a job's end that also hits the loader's processes is no error of theirs either."""
    run = tmp_path / "run"
    ours, theirs = multiprocessing.Pipe()
    started = warm_processes.start(
        training_script.main, words(figures, run, *LOADED, "--stop", "3"), theirs, log=tmp_path / "stopped.log"
    )
    started.hear(ours)
    started.send(number, group=everyone)
    ours.send("go on")  # the end of a loader process may wake it first, and may come without an error
    code, printed = started.end()
    assert code == 1
    assert printed.count("Traceback") == 1, printed
    assert f"dapg.training.loop.{error}: stopped by" in printed
    assert str(run / "checkpoints") in printed
    run_to_end(figures, run, *LOADED)
    assert_equal(last_state(run), last_state(uninterrupted))


def test_two_processes_equal_one_with_the_same_batch(figures: Path, tmp_path: Path) -> None:
    """On the same views, with batch norm in evaluation mode (its statistics are each process's own)."""
    run_to_end(figures, tmp_path / "1", "--frozen-norms")
    run_two_to_end(figures, tmp_path / "2", "--frozen-norms", steps=7)
    one, two = (last_state(tmp_path / name)["method"] for name in ("1", "2"))
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5, msg=f"{name} differs")
    assert logged(tmp_path / "1")[-1]["loss"] == pytest.approx(logged(tmp_path / "2")[-1]["loss"], abs=1e-5)
