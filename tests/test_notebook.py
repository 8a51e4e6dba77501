"""``examples/tour.ipynb`` runs from top to bottom, and is kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).resolve().parents[1] / "examples" / "tour.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = nbformat.read(TOUR, as_version=4).cells
    assert [cell.source for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_the_tour_ends_with_a_search(tmp_path: Path) -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    printed = [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    assert [text.split()[0] for text in printed] == ["rank-1", "clean", "1"]
    assert printed[-1].splitlines()[0].endswith("right"), "the person of this query comes first"
    assert len(printed[-1].splitlines()) == 8
