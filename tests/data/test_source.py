"""Which data set, where, and how much of it."""

from pathlib import Path

import pytest
from PIL import Image

from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.training import DataConfig
from dapg.core.types import Record
from dapg.data.sets.folder import Folder
from dapg.data.source import list_hash, open_dataset, parse_source, select_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        Image.new("L", (2, 2)).save(tmp_path / f"{number:02d}.png")
    return tmp_path


def test_names_paths_and_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_source("folder") == DataConfig("folder")
    assert parse_source("folder=/data/my pictures") == DataConfig("folder", "/data/my pictures")
    assert parse_source("folder=a=b") == DataConfig("folder", "a=b")
    assert parse_source("/data/x=1") == DataConfig("folder", "/data/x=1")
    monkeypatch.chdir(folder.parent)
    assert parse_source(folder.name) == DataConfig("folder", folder.name)


@pytest.mark.parametrize("text", ["foldr", "foldr=/data"])
def test_a_misspelt_data_set_is_not_taken_for_a_folder(text: str) -> None:
    with pytest.raises(UsageError, match="'foldr' is neither a data set nor a folder; did you mean 'folder'"):
        parse_source(text)


def test_open_by_root_or_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(open_dataset(DataConfig("folder", str(folder))).records("all")) == 20
    monkeypatch.delenv("DAPG_DATA_FOLDER", raising=False)
    with pytest.raises(UsageError, match="Give --data folder=PATH or set DAPG_DATA_FOLDER"):
        open_dataset(DataConfig("folder"))
    monkeypatch.setenv("DAPG_DATA_FOLDER", str(folder))
    assert open_dataset(DataConfig("folder")).root == folder


def test_unknown_data_set() -> None:
    with pytest.raises(UsageError, match="no dataset is called 'foldr'; did you mean 'folder'"):
        open_dataset(DataConfig("foldr", "/x"))


def test_every_listed_data_set_is_one() -> None:
    from dapg.data.base import Dataset

    for name in plugins.names("data.sets"):
        assert issubclass(plugins.load("data.sets", name, Dataset), Dataset)


def test_subset_is_drawn_by_the_seed_and_keeps_the_order(folder: Path) -> None:
    data = Folder(folder)
    paths = [record.path for record in select_records(data, DataConfig(subset=7), seed=0)]
    assert len(set(paths)) == 7
    assert paths == sorted(paths)
    assert paths == [record.path for record in select_records(data, DataConfig(subset=7), seed=0)]
    assert paths != [record.path for record in select_records(data, DataConfig(subset=7), seed=1)]
    assert select_records(data, DataConfig(), seed=0) == data.records()
    with pytest.raises(UsageError, match=r"--data\.subset 21 asks for more than the 20 pictures"):
        select_records(data, DataConfig(subset=21), seed=0)


def test_a_negative_subset_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.subset -3"):
        select_records(Folder(folder), DataConfig(subset=-3), seed=0)


def test_training_leaves_test_rows_alone(folder: Path) -> None:
    rows = [f"{number:02d}.png,{'train' if number < 6 else 'test'}" for number in range(20)]
    (folder / "labels.csv").write_text("\n".join(["path,split", *rows]))
    data = Folder(folder)
    assert len(select_records(data, DataConfig(), seed=0)) == 6
    assert len(select_records(data, DataConfig(split="all"), seed=0)) == 20


def test_the_hash_tells_lists_apart() -> None:
    records = [Record("a.png", 1, 2), Record("b.png", 1, 2)]
    changed = [records[::-1], records[:1], [records[0], Record("b.png", 3, 2)], [records[0], Record("c.png", 1, 2)]]
    hashes = {list_hash(some) for some in [records, *changed]}
    assert len(hashes) == 5
    assert list_hash(list(records)) == list_hash(records)
