"""The prepared GPU run: a process for each part, so that a failing one costs nothing else; what is done stays done."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "gpu_run_script", Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_run.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
gpu_run = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = gpu_run  # where dataclasses look for the module of a class
_SPEC.loader.exec_module(gpu_run)


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> int:
    """Its exit code. The parts have processes of their own."""
    monkeypatch.setattr(sys, "argv", ["gpu_run.py", "--device", "cpu", "--smoke", "--out", str(out), *words])
    return int(gpu_run.main())


def test_a_part_is_run_once_and_a_failing_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, "--only", "search") == 0
    stored = json.loads((tmp_path / "gpu.json").read_text())
    assert stored["parts"]["search"]["features in the gallery"] == 2000
    assert "| search | generated images/s |" in (tmp_path / "gpu.md").read_text()
    (tmp_path / "growth").write_text("no folder: this part must fail")
    capsys.readouterr()
    assert run(monkeypatch, tmp_path, "--only", "search", "growth") == 1
    again = capsys.readouterr().out
    assert "search: done before" in again
    assert "growth: failed, see growth.log" in again


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tmp_path) == 0
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert set(parts) == {"tests", "parity", "corruptions", "steps", "growth", "search", "compiled steps"}
    assert max(parts["parity"]["relative difference of a step"].values()) < 1e-4
