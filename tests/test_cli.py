"""The command line's manners: exit codes, one line instead of a traceback, quick help."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dapg
from command_line import run
from dapg import cli
from dapg.core import errors, plugins
from dapg.training.loop import Terminated

SOURCE = Path(dapg.__file__).resolve().parents[1]


def python(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, **options
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    """What is loaded counts, not the clock."""
    code = (
        "import sys, json; from dapg.cli import main; code = main(['--help']);"
        "print(json.dumps([code, [m for m in ('torch', 'numpy', 'PIL', 'yaml') if m in sys.modules]]))"
    )
    result = python("-c", code)
    *text, last = result.stdout.splitlines()
    assert json.loads(last) == [0, []], result.stderr
    for name in cli.commands():
        assert any(line.split()[: len(name.split())] == name.split() for line in text), name


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith("usage: dapg COMMAND")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"dapg {dapg.__version__}\n", "")


def test_no_command_shows_the_help_but_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 2
    assert out.startswith("usage: dapg COMMAND")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("pretran",), "no command is called 'pretran'; did you mean 'pretrain'?"),
        (("evalute", "x"), "no command is called 'evalute'; did you mean 'evaluate'?"),
        (("xyzzy",), "no command is called 'xyzzy'; see dapg --help"),
        (("--hlep",), "no command is called '--hlep'"),
    ],
)
def test_misspelt_commands(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert hint in err
    assert err.count("\n") == 1, "one line"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ``dapg report`` raise what the test says."""

    def install(error: BaseException) -> None:
        def main(words: list[str], program: str) -> None:
            raise error

        from dapg.commands import report

        monkeypatch.setattr(report, "main", main)

    return install


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.UsageError("bad option"), 2, "dapg: bad option\n"),
        (errors.DapgError("it failed"), 1, "dapg: it failed\n"),
        (errors.DataError("no image"), 1, "dapg: no image\n"),
        (errors.WeightsError("no weights"), 1, "dapg: no weights\n"),
        (errors.TrainingError("NaN"), 1, "dapg: NaN\n"),
        (Terminated("stopped; checkpoint: x"), 143, "dapg: stopped; checkpoint: x\n"),
        (OSError(28, "No space left on device", "x.json"), 1, "dapg: x.json: No space left on device"),
        (KeyboardInterrupt(), 130, "run the command again to go on"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "),
            1,
            "dapg: a loader process was killed",
        ),
        (ZeroDivisionError("oh"), 1, "unexpected ZeroDivisionError: oh\ndapg: this is a bug"),
    ],
)
def test_exit_codes_without_and_with_debug(
    capsys: pytest.CaptureFixture[str], failing: Any, error: BaseException, code: int, text: str
) -> None:
    failing(error)
    found, _, err = run(capsys, "report", "x")
    assert found == code
    assert text in err
    assert "Traceback" not in err
    found, _, err = run(capsys, "report", "--debug", "x")
    assert found == code
    assert ("Traceback" in err) == (not isinstance(error, KeyboardInterrupt))


def test_debug_is_no_word_of_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dapg.commands import report

    seen: list[list[str]] = []
    monkeypatch.setattr(report, "main", lambda words, program: seen.append([program, *words]))
    assert run(capsys, "report", "a", "--debug", "b")[0] == 0
    assert seen == [["dapg report", "a", "b"]]


def test_two_word_commands_are_found_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cli, "commands", lambda: {"data": "data", "data verify": "data_verify", "data show": "data_show"}
    )
    monkeypatch.setattr(plugins, "summary", lambda package, file: f"About {file}.")
    called: list[tuple[str, list[str], str]] = []

    class Module:
        def __init__(self, name: str) -> None:
            self.name = name

        def main(self, words: list[str], program: str) -> None:
            called.append((self.name, words, program))

    monkeypatch.setattr(importlib, "import_module", Module)
    run(capsys, "data", "verify", "x")
    run(capsys, "data", "x")
    assert called == [
        ("dapg.commands.data_verify", ["x"], "dapg data verify"),
        ("dapg.commands.data", ["x"], "dapg data"),
    ]
    monkeypatch.setattr(cli, "commands", lambda: {"data verify": "data_verify", "data show": "data_show"})
    assert run(capsys, "data")[0] == 2
    code, out, _ = run(capsys, "data", "--help")
    assert code == 0
    assert "About data_show." in out
    code, _, err = run(capsys, "data", "verfy")
    assert code == 2
    assert "no command is called 'data verfy'; did you mean 'data verify'?" in err


def test_a_reader_that_leaves_is_no_error() -> None:
    """As in ``dapg --help | head -1``: the pipe is closed before anything is read."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "dapg", "--help"]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writing)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")


def test_a_module_run_gives_the_exit_code_to_the_shell() -> None:
    result = python("-m", "dapg", "pretran")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "dapg: no command is called 'pretran'; did you mean 'pretrain'?; see dapg --help\n"


@pytest.mark.parametrize("word", ["a\udcff", "a\0b"])
@pytest.mark.parametrize("command", ["report", "evaluate", "data verify", "pretrain mocov2 --out"])
def test_a_path_that_is_not_utf_8_is_refused_by_every_command(
    word: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command.split(), word]) == 2
    assert "is not UTF-8 or holds a null character" in capsys.readouterr().err
