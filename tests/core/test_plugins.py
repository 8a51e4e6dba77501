"""A plug-in is a file: found without importing, one public class in it, near misses named; folders of others join."""

import os
import subprocess
import sys
from abc import ABC
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import dapg
from dapg.core import plugins
from dapg.core.errors import UsageError
from foreign import forget_plugins


class Contract(ABC):  # noqa: B024
    """What the classes below must fulfil."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``dapg.zoo`` outside the source tree."""
    zoo = tmp_path / "package" / "zoo"
    zoo.mkdir(parents=True)
    (zoo / "__init__.py").write_text("")
    monkeypatch.setattr(dapg, "__path__", [*dapg.__path__, str(zoo.parent)])
    monkeypatch.setattr(plugins, "PACKAGES", ("zoo",))
    monkeypatch.setitem(sys.modules, "zoo_contract", sys.modules[__name__])
    for name in [name for name in sys.modules if name.startswith("dapg.zoo")]:
        del sys.modules[name]
    vars(dapg).pop("zoo", None)
    with forget_plugins():
        yield zoo
    for name in [name for name in sys.modules if name.startswith("dapg.zoo")]:
        del sys.modules[name]
    vars(dapg).pop("zoo", None)


HEAD = "from zoo_contract import Contract\n"


def test_names_and_summaries_need_no_import(folder: Path) -> None:
    (folder / "lion.py").write_text('"""Roars.\n\nMore."""\nraise RuntimeError("must not be imported")\n')
    (folder / "ape.py").write_text("x = 1\n")
    (folder / "contract.py").write_text('"""Contract: its words do not matter, its place does."""\n')
    (folder / "base.py").write_text('"""What an animal is."""\n')
    (folder / "_private.py").write_text('"""Hidden."""\n')
    assert plugins.names("zoo") == ["ape", "contract", "lion"]
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
    with pytest.raises(UsageError, match=r"zoo/bear\.py must hold one public Contract, found [02]"):
        plugins.load("zoo", "bear", Contract)


def test_a_folder_of_others_joins_and_is_passed_on_to_processes(folder: Path, tmp_path: Path) -> None:
    (folder / "lion.py").write_text(HEAD + "class Lion(Contract): ...\n")
    others = tmp_path / "others"
    (others / "zoo").mkdir(parents=True)
    (others / "zoo" / "yak.py").write_text('"""Grunts."""\n' + HEAD + "class Yak(Contract): ...\n")
    assert plugins.names("zoo") == ["lion"]
    plugins.add(others)
    plugins.add(others)
    assert plugins.names("zoo") == ["lion", "yak"]
    assert plugins.summary("zoo", "yak") == "Grunts."
    assert plugins.load("zoo", "yak", Contract).__module__ == "dapg.zoo.yak"
    assert os.environ[plugins.VARIABLE] == str(others)


def test_a_name_that_is_taken_and_a_folder_without_plug_ins_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "lion.py").write_text(HEAD + "class Lion(Contract): ...\n")
    others = tmp_path / "others"
    with pytest.raises(UsageError, match="holds no plug-in; it is laid out as"):
        plugins.add(others)
    (others / "zoo").mkdir(parents=True)
    (others / "zoo" / "lion.py").write_text(HEAD + "class Lion(Contract): ...\n")
    with pytest.raises(UsageError, match=r"others/zoo/lion\.py: there is a plug-in of that name already"):
        plugins.add(others)


def test_entry_points_of_installed_packages_join(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["zoo_contract"]
    monkeypatch.setattr(module, "Newt", type("Newt", (Contract,), {"__module__": "zoo_contract"}), raising=False)
    points = [EntryPoint("newt", "zoo_contract:Newt", "dapg.zoo"), EntryPoint("other.eft", "x:Y", "dapg.zoo")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.setattr(plugins, "_GROUPS", {"dapg.zoo": "zoo"})
    assert plugins.names("zoo") == ["newt"]
    assert plugins.load("zoo", "newt", Contract).__name__ == "Newt"
    assert [kind.__name__ for kind in plugins.load_all("zoo", Contract)] == ["Newt"]
    assert dict(plugins._of_installed("zoo.other")) == {"eft": points[1]}


def test_a_fresh_process_reads_the_folders_from_its_environment(tmp_path: Path) -> None:
    """So loaders that are spawned find a plug-in's data set, whose pickle names its module only."""
    (tmp_path / "data" / "sets").mkdir(parents=True)
    (tmp_path / "data" / "sets" / "mine.py").write_text("x = 7\n")
    code = "import dapg.data.sets.mine as mine; print(mine.x)"
    environment = {**os.environ, plugins.VARIABLE: str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"
