"""What the README and the docs tell a user to type works, or at least parses."""

import doctest
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warm_processes
from dapg.cli import commands, main
from dapg.core import plugins
from figures import make_figures

ROOT = Path(__file__).resolve().parents[1]
MADE = {"_build", "settings", "api"}
"""Folders of pages that `make docs` makes from the code."""
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not MADE & set(path.relative_to(ROOT).parts)),
]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
"""Of the last two the commands are not tried: they are for folders of the reader's own."""


def shell_lines() -> list[tuple[str, str]]:
    """(page, command) of every dapg command in a shell block; continued lines joined, comments cut."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split(" #")[0].strip()
                if re.search(r"(^|-m )dapg ", command):
                    found.append((page.name, command))
    return found


def script_lines() -> list[tuple[str, str]]:
    """(script, command) of every ``python -m dapg`` in ``scripts/*.sh``, its variables replaced by a number."""
    lines = []
    for script in sorted((ROOT / "scripts").glob("*.sh")):
        for line in script.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            if "python -m dapg " in line:
                words = re.sub(r'"\$@"', "", line[line.index("python -m dapg ") :])
                lines.append((script.name, re.sub(r'"[^"]*\$[^"]*"', "1", words)))
    return lines


LINES = [*shell_lines(), *script_lines()]


def test_there_are_commands_to_check() -> None:
    assert ("README.md", "dapg demo") in LINES
    assert len(LINES) > 4
    assert any(page == "render_people.sh" for page, _ in LINES)


@pytest.mark.parametrize("page, line", LINES)
def test_command_parses(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option must be known: with --print_config nothing is run."""
    words = shlex.split(line)
    words = words[words.index("dapg") + 1 :]
    words = [word for word in words if word != "..."]
    try:
        code = main([*words, "--print_config"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 0, capsys.readouterr().err


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub and Sphinx make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_prose_is_long(page: Path) -> None:
    """Nor of code, nor a row of a table without the targets of its links."""
    lines = page.read_text(encoding="utf-8").splitlines()
    lines = [re.sub(r"\]\([^)]*\)", "]", line) if line.startswith(("|", "![")) else line for line in lines]
    assert [line for line in lines if len(line) > 120] == []


def test_no_cell_of_the_first_page_is_long() -> None:
    text = re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text(encoding="utf-8"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert [cell for row in rows for cell in row.split("|") if len(cell.split()) > 12] == []


def test_files_that_pages_name_exist() -> None:
    named = [path for page in PAGES for path in re.findall(r"`(src/dapg/[\w/.]+)`", page.read_text(encoding="utf-8"))]
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path


def test_make_knows_the_promised_targets() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-slow", "lint", "bench", "docs", "help"):
        assert re.search(rf"^{target}\s", text, re.MULTILINE), target


def test_every_command_has_a_one_line_summary_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, file in commands().items():
        assert plugins.summary("commands", file), name
        try:
            code = main([*name.split(), "--help"])
        except SystemExit as stop:
            code = int(stop.code or 0)
        assert code == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: dapg"), name
        assert len(out.splitlines()) <= 80, f"{name}: two screens"


def python_blocks() -> list[tuple[str, int, str]]:
    """(page, number, code) of every Python block."""
    return [
        (page.name, number, block)
        for page in PAGES
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    ]


@pytest.mark.parametrize("page, number, code", python_blocks(), ids=lambda value: str(value)[:20].split("\n")[0])
def test_python_blocks_run(
    page: str,
    number: int,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder that holds the files which pages speak of."""
    monkeypatch.chdir(tmp_path)
    make_figures(tmp_path / "people", persons=4, pictures=1)
    generator = np.random.default_rng(0)
    rows = {"features": generator.standard_normal((8, 4)), "persons": np.arange(8) // 2, "cameras": np.arange(8) % 2}
    cameras = {"query": np.array([3, 6] * 4), "gallery": np.array([1, 2, 4, 5] * 2)}
    arrays: dict[str, Any] = {f"{side}_{name}": rows[name] for side in cameras for name in ("features", "persons")}
    np.savez("features.npz", **arrays, query_cameras=cameras["query"], gallery_cameras=cameras["gallery"])
    np.savez("key_points.npz", paths=np.array([b"a.jpg"]), key_points=np.zeros((1, 18, 3)))
    exec(compile(code, f"{page}, Python block {number}", "exec"), {})


DOCTESTS = [path for path in sorted((ROOT / "src").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", DOCTESTS, ids=lambda path: path.stem)
def test_docstring_examples_hold(path: Path) -> None:
    """What `pytest --doctest-modules src` would run, without importing the files that have no example."""
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0


EXAMPLES = {
    "pretrain_and_score.py": ("out", "out/scores/result.json"),
    "score_your_features.py": ("", ""),
    "corrupt_a_picture.py": ("sheet.png", "sheet.png"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    """As a user would: by path, in a process of its own."""
    argument, made = EXAMPLES[name]
    words = [str(ROOT / "examples" / name), *([argument] if argument else [])]
    assert warm_processes.start_script(*words, folder=tmp_path, log=tmp_path / "log").succeed().strip()
    assert (tmp_path / made).exists()


def test_every_example_is_run() -> None:
    assert {example.name for example in (ROOT / "examples").glob("*.py")} == {
        *EXAMPLES,
        "infer_onnx.py",
    }  # tests/export
