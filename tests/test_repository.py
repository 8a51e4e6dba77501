"""What git keeps is small: large files are for releases, or are made by a command; and scripts fit the package."""

import ast
import importlib
import subprocess
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from dapg.losses.info_nce import multi_positive_info_nce

ROOT = Path(__file__).resolve().parents[1]
LARGE = ("src/dapg/assets/", "docs/images/")
"""Folders that may hold large files."""
LIMIT = 500_000
"""Bytes."""


def test_no_tracked_file_is_large() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in tracked
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if not name.startswith(LARGE)}
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_scripts_import_from_the_package_is_there(script: Path) -> None:
    """No type checker reads them, and nobody runs them for weeks."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dapg":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_shapes_in_signatures_are_checked() -> None:
    query = torch.eye(4)[:2]
    with pytest.raises(TypeCheckError, match="positives"):
        multi_positive_info_nce(query, torch.eye(4), torch.eye(4), 0.1)
