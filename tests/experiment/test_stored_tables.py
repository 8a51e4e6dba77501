"""Tables and ``cells.csv`` under ``results/`` come out byte-equal from the cells and sums by person beside them.

``test_page.py`` does the same with cells that are made up, so that this is tested where nothing has run yet, too.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from dapg.commands._reproduce import ExperimentSettings, parse_experiment
from dapg.experiment.figures import lines
from dapg.experiment.store import read_cells
from dapg.experiment.tables import write_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"
TABLES = sorted(RESULTS.glob("*/tables/*.md"))


@pytest.mark.parametrize("stored", TABLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_stored_table(stored: Path, tmp_path: Path) -> None:
    """By the command that the table names; not the page, as what matplotlib draws depends on its version."""
    (command, *_) = re.findall(r"Run by `dapg reproduce run ([^`]+)`", stored.read_text(encoding="utf-8"))
    source, copy = stored.parents[1], tmp_path / stored.parents[1].name
    shutil.copytree(source / "persons", copy / "persons")
    shutil.copy(source / "cells.jsonl", copy)
    words = [*shlex.split(command), "--results", str(tmp_path)]
    experiment, _ = parse_experiment("dapg reproduce show", ExperimentSettings(), words, "")
    cells = read_cells(copy, with_persons=True)
    write_tables(experiment, cells, lines(experiment, cells))
    names = ["cells.csv", *(f"tables/{path.name}" for path in stored.parent.glob(f"{stored.stem}*"))]
    names = [name for name in names if not name.endswith(".tex")]
    assert len(names) >= 3
    for name in names:  # where the matrix has changed, `dapg reproduce show` writes them anew
        assert (copy / name).read_bytes() == (source / name).read_bytes(), (
            f"{name}: `dapg reproduce show` writes it anew"
        )
    made = {path.name for path in (copy / "tables").iterdir() if path.suffix != ".tex"}
    assert made <= {Path(name).name for name in names}, "nothing is left out of git"


def test_results_are_small() -> None:
    """What git keeps of them all: at most 3 MB."""
    kept = [path for path in RESULTS.rglob("*") if path.is_file() and path.suffix in (".jsonl", ".npz", ".csv", ".md")]
    assert sum(path.stat().st_size for path in kept) < 3_000_000
