"""A short kill campaign; `python benchmarks/gallery_kills.py` does 200."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_deleted_comes_back(tmp_path: Path) -> None:
    """In a process of its own, which forks and kills workers."""
    words = [sys.executable, str(ROOT / "benchmarks" / "gallery_kills.py"), "--kills", "16", "--folder", str(tmp_path)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "0 lost, 0 deleted found, the audit is whole" in run.stdout
