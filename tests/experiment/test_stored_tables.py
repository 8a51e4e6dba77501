"""Tables under ``results/`` come out byte-equal from the cells beside them, by the command that they name."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from dapg.cli import main

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted(ROOT.glob("results/reproduce-*/tables/*.md"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stored", TABLES, ids=lambda path: "-".join(path.with_suffix("").parts[-3::2]))
def test_stored_table(stored: Path, tmp_path: Path) -> None:
    """Not the page: what matplotlib draws depends on its version."""
    pytest.importorskip("matplotlib")
    (command, *_) = re.findall(r"Run by `dapg (reproduce [^`]+)`", stored.read_text(encoding="utf-8"))
    scale = stored.parents[1]
    shutil.copytree(scale, tmp_path / scale.name, ignore=shutil.ignore_patterns("tables"))
    assert main([*shlex.split(command), "--show", "--results", str(tmp_path)]) == 0
    names = [path.name for path in stored.parent.glob(f"{stored.stem}*") if path.suffix in (".md", ".csv", ".tex")]
    assert len(names) >= 3
    for name in names:
        assert (tmp_path / scale.name / "tables" / name).read_bytes() == (stored.parent / name).read_bytes(), name
