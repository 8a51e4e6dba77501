"""The prepared GPU run: a process for each part, so that a failing one costs nothing else; what is done stays done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_run.py"


def run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--smoke", "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_part_is_run_once_and_a_failing_one_is_reported(tmp_path: Path) -> None:
    first = run(tmp_path, "--only", "search")
    assert first.returncode == 0, first.stderr
    stored = json.loads((tmp_path / "gpu.json").read_text())
    assert stored["parts"]["search"]["features in the gallery"] == 2000
    assert "| search | generated images/s |" in (tmp_path / "gpu.md").read_text()
    (tmp_path / "growth").write_text("no folder: this part must fail")
    again = run(tmp_path, "--only", "search", "growth")
    assert again.returncode == 1
    assert "search: done before" in again.stdout
    assert "growth: failed, see growth.log" in again.stdout


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert set(parts) == {"tests", "parity", "corruptions", "steps", "growth", "search", "compiled steps"}
    assert max(parts["parity"]["relative difference of a step"].values()) < 1e-4
