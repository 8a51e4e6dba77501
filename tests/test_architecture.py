"""The layers of ARCHITECTURE.md, read from the imports: a module knows lower rows and its own folder, nothing else."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import dapg
from dapg.core import plugins
from dapg.methods.runs import FOLDERS

PACKAGE = Path(dapg.__file__).resolve().parent
ROWS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("pipelines", "experiment", "contracts"),
    ("recipes",),
    ("gallery", "report", "export"),
    ("pose",),
    ("training", "evaluation", "synth"),
    ("features",),
    ("methods",),
    ("augment", "data"),
    ("corruptions", "losses", "models", "scoring"),
    ("core",),
)
"""Top to bottom; names are folders or files directly below the package."""

ROW_OF = {part: number for number, row in enumerate(ROWS) for part in row}


def part_of(path: Path) -> str:
    """Folder or file directly below the package that a source file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import anywhere in a file, relative ones resolved against ``module``.

    Names taken from the package itself, or a dynamic ``import_module("dapg.x")``, count too.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called.endswith(("import_module", "__import__")):
                yield node.lineno, str(node.args[0].value)


def offences(path: Path, source: str) -> list[str]:
    """One readable line per import that breaks the rule."""
    relative = path.relative_to(PACKAGE)
    own = part_of(path)
    module = ".".join(("dapg", *relative.with_suffix("").parts))
    found = []
    for line, name in imported(source, module):
        parts = name.split(".")
        if parts[0] == "torch" and own == "report":
            found.append(f"src/dapg/{relative}:{line}: {name}: the report touches no tensor")
        if parts[0] != "dapg" or len(parts) == 1 or parts[1] not in ROW_OF:
            continue
        if parts[1] != own and ROW_OF[parts[1]] <= ROW_OF[own]:
            direction = "sideways" if ROW_OF[parts[1]] == ROW_OF[own] else "up"
            found.append(f"src/dapg/{relative}:{line}: {own} imports {direction}: {name}")
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_file_belongs_to_a_row() -> None:
    homeless = [str(path.relative_to(PACKAGE)) for path in SOURCES if part_of(path) not in ROW_OF]
    assert not homeless, f"not in any row of the architecture: {homeless}"
    assert len(SOURCES) > 40


def test_imports_point_downwards() -> None:
    broken = [line for path in SOURCES for line in offences(path, path.read_text(encoding="utf-8"))]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("losses/x.py", "from dapg.models import pooling", "sideways"),
        ("core/x.py", "def f():\n    import dapg.data.sets.folder", "up"),
        ("training/x.py", "from ..evaluation import evaluate", "sideways"),
        ("methods/pretraining/x.py", "from ...training import loop", "up"),
        ("data/x.py", "import importlib\nimportlib.import_module('dapg.methods.base')", "up"),
        ("evaluation/x.py", "from dapg import training", "sideways"),
        ("report/x.py", "import torch.nn", "no tensor"),
        ("methods/pretraining/x.py", "from ..base import Method\nfrom dapg.core import rng\nimport torch", None),
    ],
)
def test_the_reader_itself_sees_each_kind_of_import(file: str, source: str, expected: str | None) -> None:
    found = offences(PACKAGE / file, source)
    assert (len(found) == 1 and expected in found[0]) if expected else not found, found


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter without the test's import hook."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)


_BLOCKER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Refuse())
"""


def test_scoring_needs_no_other_module_that_imports_torch() -> None:
    """Nothing of data, networks or methods: a user has only numbers."""
    scoring = [f"dapg.scoring.{path.stem}" for path in (PACKAGE / "scoring").glob("*.py") if path.stem != "__init__"]
    run = python(f"import sys, {', '.join(scoring)}\nprint(*(name for name in sys.modules if name.startswith('dapg')))")
    assert run.returncode == 0, run.stderr
    needed = {name for name in run.stdout.split() if not name.startswith("dapg.scoring")}
    assert all(name.split(".")[:2] in (["dapg"], ["dapg", "core"]) for name in needed), needed
    run = python(_BLOCKER.format(blocked=("torch",)) + f"import {', '.join(sorted(needed))}")
    assert run.returncode == 0, run.stderr


def test_the_report_works_without_torch() -> None:
    run = python(_BLOCKER.format(blocked=("torch",)) + "import dapg.report.run_page, dapg.report.collect")
    assert run.returncode == 0, run.stderr


def test_the_blocker_blocks() -> None:
    assert "torch is blocked" in python(_BLOCKER.format(blocked=("torch",)) + "import torch").stderr


def module_level_imports(path: Path) -> Iterator[Path]:
    """Files of the package that importing a file imports, first level; not those under ``TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from files_of(node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If))


def files_of(nodes: Iterable[ast.AST]) -> Iterator[Path]:
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
            if file.is_file() and PACKAGE in file.parents:
                yield file


def fan_out(path: Path) -> set[Path]:
    """Every other file that is loaded with a file, its imports inside functions included."""
    waiting = list(files_of(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    loaded: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in loaded:
            loaded.add(file)
            waiting += module_level_imports(file)
    return loaded - {path}


@pytest.mark.parametrize(("entry", "limit"), [("training/loop.py", 25), ("commands/pretrain.py", 60)])
def test_a_training_can_be_followed_through_few_files(entry: str, limit: int) -> None:
    files = sorted(str(file.relative_to(PACKAGE)) for file in fan_out(PACKAGE / entry))
    assert len(files) < limit, f"{entry} loads {len(files)} other files: {', '.join(files)}"
    assert "core/batch.py" in files


def test_functions_have_at_most_seven_parameters() -> None:
    """Save in the rasteriser, whose compiled loops take flat arrays. What a dataclass writes itself does not count."""
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                count = len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)
                if count > 7 and path != PACKAGE / "synth" / "raster.py":
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.name} has {count} parameters")
    assert not long, "\n" + "\n".join(long)


@pytest.mark.parametrize(("escape", "limit"), [(r"\bAny\b", 150), (r"# type: ignore", 20)])
def test_types_are_escaped_seldom(escape: str, limit: int) -> None:
    counts = {str(path.relative_to(PACKAGE)): len(re.findall(escape, path.read_text("utf-8"))) for path in SOURCES}
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:10]
    assert sum(counts.values()) <= limit, f"{sum(counts.values())} uses of {escape}; most in {most}"


_METHODS = "|".join(name for stage in FOLDERS.values() for name in plugins.names(stage))
FORBIDDEN = {
    r"hasattr\((config|method|settings(\.method)?),": "asks settings what they have",
    rf"\bname (==|in) [(\[{{]*[\"']({_METHODS})[\"']": "asks what a method is called",
    rf"[\"']({_METHODS})[\"']: [\d({{\[]": "is a table of methods",
}
"""What a method's own file should say instead: a method owns its recipe."""


def forbidden(source: str) -> list[str]:
    """One readable line for each."""
    rows_of_the_paper = '"dapg-1-single": 0'  # arms of the experiment, not methods
    lines = [(n, line) for n, line in enumerate(source.splitlines(), start=1) if rows_of_the_paper not in line]
    return [f"{n}: {what}: {line.strip()}" for n, line in lines for p, what in FORBIDDEN.items() if re.search(p, line)]


def test_no_table_of_methods_comes_back() -> None:
    broken = [f"{path}:{line}" for path in SOURCES for line in forbidden(path.read_text(encoding="utf-8"))]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    "source", ['if hasattr(config, "chain"):', 'if name == "dapg":', '_RATES = {"simclr": 0.3, "byol": 0.45}']
)
def test_the_reader_sees_tables_of_methods(source: str) -> None:
    assert len(forbidden(source)) == 1
