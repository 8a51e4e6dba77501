"""Full-size fake trees, built once."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("fake_trees", Path(__file__).with_name("fake_trees.py"))
fake_trees = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fake_trees)


@pytest.fixture(scope="session")
def full_sysu(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "SYSU-MM01"
    fake_trees.build_sysu(root)
    return root


@pytest.fixture(scope="session")
def full_regdb(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "RegDB"
    fake_trees.build_regdb(root)
    return root
