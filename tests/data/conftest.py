"""Full-size fake trees, built once."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("fake_trees", Path(__file__).with_name("fake_trees.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
fake_trees = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fake_trees)


@pytest.fixture(scope="session")
def full_sysu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full") / "SYSU-MM01"
    fake_trees.build_sysu(root)
    return root


@pytest.fixture(scope="session")
def full_regdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full") / "RegDB"
    fake_trees.build_regdb(root)
    return root


@pytest.fixture(scope="session")
def full_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full") / "Market-1501-v15.09.15"
    fake_trees.build_market(root)
    return root


@pytest.fixture(scope="session")
def full_llcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full") / "LLCM"
    fake_trees.build_llcm(root)
    return root
