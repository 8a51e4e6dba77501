"""A run killed at any moment and started again ends bit-equal to one that was never stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dapg.core.metrics_log import read_metrics
from dapg.train import checkpoint

SCRIPT = Path(__file__).with_name("training_script.py")
TIMES = {"seconds", "waited"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from figures import make_figures

    return make_figures(tmp_path_factory.mktemp("figures"), persons=10, pictures=2)


def command(
    figures: Path, run: Path, *options: str, processes: int = 1, steps: int = 7, restarts: int = 0
) -> list[str]:
    words = [str(SCRIPT), str(figures), str(run), str(steps), *options]
    if processes == 1:
        return [sys.executable, *words]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launcher += ["--max-restarts", str(restarts)]
    return [sys.executable, *launcher, *words]


def start(words: list[str]) -> "subprocess.Popen[bytes]":
    # Or restarted processes may find the addresses of dead ones in torchrun's store (docs/multi-node.md).
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_to_end(words: list[str]) -> None:
    process = start(words)
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()


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
    run_to_end(command(figures, run, "--accumulation", "2", "--workers", "2"))
    return run


@pytest.mark.parametrize("crash", ["step:1", "step:5", "write:4", "rename:4", "renamed:4"])
def test_a_kill_at_an_exact_place_changes_nothing(
    crash: str, figures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    words = command(figures, tmp_path, "--accumulation", "2", "--workers", "2")
    killed = start([*words, "--crash", crash])
    output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output.decode()
    run_to_end(words)
    assert_equal(last_state(tmp_path), last_state(uninterrupted))
    assert logged(tmp_path) == logged(uninterrupted)
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_the_reference_trains_at_all(figures: Path, uninterrupted: Path) -> None:
    """So that equality above means something: weights, optimiser and queue all moved."""
    from training_script import build

    state = last_state(uninterrupted)
    fresh = build(60).state_dict()
    moved = state["method"]
    assert isinstance(moved, dict)
    assert state["step"] == 7
    assert not torch.equal(moved["backbone.conv1.weight"], fresh["backbone.conv1.weight"])
    assert int(moved["keys.queue.filled"]) == 30  # half of 60 pictures, filled by 7 steps of 16
    assert state["rank0.pt"]["optimizer"]["state"]  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is a Linux call")
def test_killing_the_launcher_leaves_no_orphans(figures: Path, tmp_path: Path) -> None:
    """Two processes under torchrun; only torchrun is killed; then the run goes on to the same end."""
    words = command(figures, tmp_path / "killed", processes=2, steps=9)
    launcher = start(words)
    waited = time.monotonic() + 120
    while not checkpoint.whole_checkpoints(tmp_path / "killed"):
        assert launcher.poll() is None, launcher.communicate()[0].decode()
        assert time.monotonic() < waited, "no checkpoint in two minutes"
        time.sleep(0.02)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 60
    while workers_on(tmp_path / "killed"):
        assert time.monotonic() < deadline, "an orphan is still running"
        time.sleep(0.1)
    run_to_end(words)
    run_to_end(command(figures, tmp_path / "whole", processes=2, steps=9))
    assert_equal(last_state(tmp_path / "killed"), last_state(tmp_path / "whole"))
    assert (checkpoint.whole_checkpoints(tmp_path / "killed")[-1].folder / "rank1.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_after_a_killed_rank_from_the_last_checkpoint(
    rank: int, figures: Path, tmp_path: Path
) -> None:
    """SIGKILL of one of two processes in step 5: torchrun starts both again, and they end as if nothing had been."""
    words = ("--crash", "step:5", "--crash-rank", str(rank))
    process = start(command(figures, tmp_path / "killed", *words, processes=2, steps=9, restarts=1))
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()
    assert output.count(f"rank {rank} is killed".encode()) == 1
    run_to_end(command(figures, tmp_path / "whole", processes=2, steps=9))
    assert_equal(last_state(tmp_path / "killed"), last_state(tmp_path / "whole"))
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


def workers_on(run: Path) -> list[int]:
    """Live processes whose command line names the run's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(run) in line and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("everyone", [False, True], ids=["main process", "loader processes too"])
def test_sigterm_ends_well(figures: Path, uninterrupted: Path, tmp_path: Path, everyone: bool) -> None:
    """It saves and says where; a job's end that also hits the loader's processes is no error of theirs either."""
    words = command(figures, tmp_path, "--accumulation", "2", "--workers", "2", steps=7)
    process = start(words)
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    for each in sorted(workers_on(tmp_path)) if everyone else [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGTERM)
    output, _ = process.communicate()
    if process.returncode == 0:
        pytest.skip("the run ended before the signal arrived")
    assert b"Terminated" in output
    assert everyone or str(tmp_path / "checkpoints").encode() in output
    run_to_end(words)
    assert_equal(last_state(tmp_path), last_state(uninterrupted))


def test_two_processes_equal_one_with_the_same_batch(figures: Path, tmp_path: Path) -> None:
    """On the same views, with batch norm in evaluation mode (its statistics are each process's own)."""
    for processes in (1, 2):
        run_to_end(command(figures, tmp_path / str(processes), "--frozen-norms", processes=processes, steps=6))
    one, two = (last_state(tmp_path / name)["method"] for name in ("1", "2"))
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert logged(tmp_path / "1")[-1]["loss"] == pytest.approx(logged(tmp_path / "2")[-1]["loss"], abs=1e-5)
