"""A plug-in is a file: found without importing, one public class in it, near misses named."""

import sys
from abc import ABC
from collections.abc import Iterator
from pathlib import Path

import pytest

import dapg
from dapg.core import plugins
from dapg.core.errors import UsageError


class Contract(ABC):  # noqa: B024
    """What the classes below must fulfil."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``dapg.zoo`` outside the source tree."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "__init__.py").write_text("")
    monkeypatch.setattr(plugins, "_PACKAGE_ROOT", tmp_path)
    monkeypatch.setattr(dapg, "__path__", [*dapg.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "zoo_contract", sys.modules[__name__])
    yield zoo
    for name in [name for name in sys.modules if name.startswith("dapg.zoo")]:
        del sys.modules[name]


HEAD = "from zoo_contract import Contract\n"


def test_names_and_summaries_need_no_import(folder: Path) -> None:
    (folder / "lion.py").write_text('"""Roars.\n\nMore."""\nraise RuntimeError("must not be imported")\n')
    (folder / "ape.py").write_text("x = 1\n")
    (folder / "base.py").write_text('"""Contract of an animal."""\n')
    (folder / "tools.py").write_text('"""Shared by all animals."""\n')
    (folder / "_private.py").write_text('"""Hidden."""\n')
    assert plugins.names("zoo") == ["ape", "lion"]
    assert plugins.summary("zoo", "lion") == "Roars."
    assert plugins.summary("zoo", "ape") == ""


def test_load_takes_the_one_public_class_defined_in_the_file(folder: Path) -> None:
    (folder / "lion.py").write_text(HEAD + "class Lion(Contract): ...\nclass _Cub(Contract): ...\nclass Mane: ...\n")
    (folder / "cat.py").write_text("from dapg.zoo.lion import Lion\nclass Cat(Lion): ...\n")
    assert plugins.load("zoo", "lion", Contract).__name__ == "Lion"
    assert plugins.load("zoo", "cat", Contract).__name__ == "Cat", "the imported parent does not count"


def test_unknown_name_is_answered_with_the_nearest_or_all(folder: Path) -> None:
    (folder / "lion.py").write_text(HEAD + "class Lion(Contract): ...\n")
    with pytest.raises(UsageError, match="'loin'; did you mean 'lion'"):
        plugins.load("zoo", "loin", Contract)
    with pytest.raises(UsageError, match="'xyz'; known: lion"):
        plugins.load("zoo", "xyz", Contract)
    with pytest.raises(UsageError, match=r"is called '\.\./lion'"):
        plugins.load("zoo", "../lion", Contract)


@pytest.mark.parametrize("body", ["", "class A(Contract): ...\nclass B(Contract): ...\n"])
def test_none_or_two_classes_are_an_error_that_names_the_file(folder: Path, body: str) -> None:
    (folder / "bear.py").write_text(HEAD + body)
    with pytest.raises(UsageError, match=r"dapg/zoo/bear\.py must hold one public Contract, found [02]"):
        plugins.load("zoo", "bear", Contract)
