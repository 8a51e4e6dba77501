"""Which data set, where, and how much of it."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.images import decode
from dapg.core.settings import to_dict
from dapg.core.train_config import DataConfig
from dapg.core.types import Record
from dapg.data.sets.folder import Folder
from dapg.data.source import draw_persons, list_hash, open_dataset, parse_source, select_records
from dapg.data.verify import verify_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        Image.new("L", (2, 2)).save(tmp_path / f"{number:02d}.png")
    return tmp_path


def test_persons_are_drawn_whole_and_the_fewer_are_among_the_more() -> None:
    records = [Record(f"{number}.png", number % 7, number % 3) for number in range(28)]
    few, more = ({r.person for r in draw_persons(records, count, 5)} for count in (2, 4))
    assert few < more
    assert (len(few), len(more)) == (2, 4)
    assert draw_persons(records, 4, 5) == [record for record in records if record.person in more]
    assert draw_persons(records, 0, 5) == records
    assert {record.person for record in draw_persons(records, 2, 6)} != few
    with pytest.raises(UsageError, match="asks for more than the 7 persons"):
        draw_persons(records, 8, 0)
    with pytest.raises(UsageError, match="than the 0 persons"):
        draw_persons([Record("a.png")], 1, 0)


def test_names_paths_and_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_source("folder") == DataConfig("folder")
    assert parse_source("folder=/data/my images") == DataConfig("folder", "/data/my images")
    assert parse_source("folder=a=b") == DataConfig("folder", "a=b")
    assert parse_source("/data/x=1") == DataConfig("folder", "/data/x=1")
    monkeypatch.chdir(folder.parent)
    assert parse_source(folder.name) == DataConfig("folder", folder.name)


@pytest.mark.parametrize("text", ["foldr", "foldr=/data"])
def test_a_misspelt_data_set_is_not_taken_for_a_folder(text: str) -> None:
    with pytest.raises(UsageError, match="'foldr' is neither a data set nor a folder; did you mean 'folder'"):
        parse_source(text)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DataConfig(), [0, 7, 15, 255]),
        (DataConfig(bits=12), [0, 127, 255, 255]),
        (DataConfig(bits=16, percentiles=(0.0, 100.0)), [0, 8, 16, 255]),
    ],
)
def test_infrared_of_few_bits(tmp_path: Path, config: DataConfig, expected: list[int]) -> None:
    """Of the values 0, 2,047, 4,095 and 65,535; also in a loader worker that is started anew."""
    values = np.array([[0, 2047, 4095, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.new("RGB", (4, 1), (1, 2, 3)).save(tmp_path / "b.png")
    dataset = open_dataset(replace(config, name="folder", root=str(tmp_path)))
    for copy in (dataset, pickle.loads(pickle.dumps(dataset))):
        assert decode(copy.read(Record("a.png")), (1, 4))[0, 0].tolist() == expected
        assert decode(copy.read(Record("b.png")), (1, 4))[:, 0, 0].tolist() == [1, 2, 3], "colours stay"
    assert ("bits" in to_dict(config)) == (config.bits != 16), "settings of old runs keep their hash"


def test_percentiles_that_span_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="two rising numbers"):
        DataConfig(percentiles=(99.0, 1.0))


def test_verify_says_how_few_levels_are_used(tmp_path: Path) -> None:
    for number in range(3):
        values = np.full((32, 16), 4095 - number, np.uint16)
        values[0, 0] = 0
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    finding = verify_folder("folder", tmp_path).findings[-1]
    assert (finding.kind, finding.error) == ("levels", False)
    assert "uses 16 of 256 levels; give --data.bits 12" in finding.message


def test_open_by_root_or_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(open_dataset(DataConfig("folder", str(folder))).records("all")) == 20
    monkeypatch.delenv("DAPG_DATA_FOLDER", raising=False)
    with pytest.raises(UsageError, match="Give --data folder=PATH or set DAPG_DATA_FOLDER"):
        open_dataset(DataConfig("folder"))
    monkeypatch.setenv("DAPG_DATA_FOLDER", str(folder))
    assert open_dataset(DataConfig("folder")).root == folder


def test_unknown_data_set() -> None:
    with pytest.raises(UsageError, match="no data set is called 'foldr'; did you mean 'folder'"):
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
    with pytest.raises(UsageError, match=r"--data\.subset 21 asks for more than the 20 images"):
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
