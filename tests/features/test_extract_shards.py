"""Features in shards are those of one pass."""

import functools
from pathlib import Path

import pytest
import torch

from dapg.core.runtime import Runtime
from dapg.data.sets.synthetic import Synthetic
from dapg.features import extract_shards as sharded
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import extract


def test_shards_are_the_table_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "_SHARD", 8)
    people = Synthetic()
    records = people.records("val")[:20]
    build = functools.partial(build_encoder, "histogram", None, (64, 32), 0, torch.device("cpu"))
    whole = extract(build(), people, records, Runtime())
    tables = list(sharded.extract_shards(tmp_path, build, people, records))
    assert [len(table) for table in tables] == [8, 8, 4]
    assert [record for table in tables for record in table.records] == list(records)
    assert torch.equal(torch.cat([table["histogram"] for table in tables]), whole["histogram"])
    monkeypatch.setattr(sharded, "extract", lambda *arguments: pytest.fail("encoded again"))
    assert len(list(sharded.extract_shards(tmp_path, build, people, records))) == 3
