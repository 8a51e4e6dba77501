"""Every data set keeps its contract: its example layout is written, read, split, tried and scored."""

from pathlib import Path

import pytest

from dapg.contracts.datasets import CHECKS
from dapg.core import plugins
from dapg.core.errors import DataError
from dapg.data.base import Dataset

NAMES = plugins.names("data.sets")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_data_set_keeps_its_contract(name: str, check: str) -> None:
    CHECKS[check](name)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_root_leads_to_the_docs(name: str, tmp_path: Path) -> None:
    kind = plugins.load("data.sets", name, Dataset)
    if kind.embedded:
        pytest.skip("needs no root")
    with pytest.raises(DataError, match=r"docs/reference/datasets\.md"):
        kind(tmp_path / "nowhere")
