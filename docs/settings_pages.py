"""Pages of every command's settings, made from the code when the documentation is built (docs/conf.py)."""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

from dapg.cli import commands, main
from dapg.core import plugins
from dapg.core.settings import Setting, describe, to_plain

FOLDER = Path(__file__).parent / "reference" / "settings"
"""Not in git."""
METHODS = {"pretrain": "pretraining", "align": "alignment", "finetune": "finetuning"}


def write_pages() -> None:
    """One page for each command with settings, and for each method of the training commands: what --help-all lists."""
    FOLDER.mkdir(exist_ok=True)
    names = []
    for command in commands():
        methods = plugins.names(f"methods.{METHODS[command]}") if command in METHODS else [""]
        for method in methods:
            words = [*command.split(), *([method] if method else [])]
            about, settings = help_of(words)
            if not settings:
                continue
            names.append("-".join(words))
            page = [f"# dapg {' '.join(words)}", f"```text\n{about.strip()}\n```", *sections(settings)]
            _write(FOLDER / f"{names[-1]}.md", "\n\n".join(page) + "\n")
    listed = "\n".join(names)
    text = f"# Settings of each command\n\nMade from the code.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    _write(FOLDER / "commands.md", text)  # no index.md: that is the page of `dapg index`
    for left in FOLDER.glob("*.md"):
        if left.stem not in {*names, "commands"}:
            left.unlink()


def help_of(words: list[str]) -> tuple[str, list[Setting]]:
    """What the command says about itself, and its settings as --help-all would list them."""
    settings: list[Setting] = []

    def keep(known: dict[str, Setting]) -> list[str]:
        settings.extend(known.values())
        return []

    about, errors = io.StringIO(), io.StringIO()  # a command without settings takes --help-all for something else
    captured = patch("dapg.commands._settings._help_all", keep)
    with captured, redirect_stdout(about), redirect_stderr(errors), suppress(SystemExit):
        main([*words, "--help-all"])
    return about.getvalue(), settings


def sections(settings: list[Setting]) -> Iterator[str]:
    """A heading for each group, and a definition for each setting: its value, kind, range and reason."""
    for prefix, group in groupby(settings, lambda setting: setting.name.rpartition(".")[0]):
        members = list(group)
        if prefix:
            yield f"## {prefix}"
        yield _plain((members[0].owner.__doc__ or "").split("\n", 1)[0])
        yield "\n".join(
            f"* **`--{setting.name}`** `{_value(setting)}` ({_plain(describe(setting.hint))}). {_plain(setting.doc)}"
            for setting in members
        )


def _value(setting: Setting) -> str:
    value = to_plain(setting.value)
    return '""' if value == "" else str(value)


def _plain(text: str) -> str:
    """Markdown that shows a docstring as it is written."""
    return re.sub(r"([*_<>\[\]$|])", r"\\\1", text.replace("``", "`")) if "`" not in text else text.replace("``", "`")


def _write(path: Path, text: str) -> None:
    """Only what changed, so that Sphinx reads only what changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages()
