"""Key-point tables: what is written is read, by plain NumPy too; damaged ones are refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from dapg.core.errors import DataError
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.core.rng import generator_from
from dapg.core.types import Record
from dapg.pose.key_point_table import KeyPointTable, read_table, write_table

KEYS = (("a/1.jpg", None), ("a/1.jpg", (1, 2, 30, 40)), ("ü/2.jpg", None))


def table() -> KeyPointTable:
    return KeyPointTable(KEYS, torch.rand(3, 18, 3, generator=generator_from("table")), {"estimator": "annotations"})


def test_a_written_table_is_read_again_from_file_or_folder(tmp_path: Path) -> None:
    write_table(tmp_path / "key_points.npz", table())
    for place in (tmp_path, tmp_path / "key_points.npz"):
        again = read_table(place)
        assert again.keys == KEYS
        assert again.about == {"estimator": "annotations"}
        torch.testing.assert_close(again.points, table().points)


def test_plain_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    write_table(tmp_path / "t.npz", table())
    with np.load(tmp_path / "t.npz", allow_pickle=False) as stored:
        assert tuple(stored["names"]) == KEY_POINT_NAMES
        assert stored["paths"][2].decode() == "ü/2.jpg"
        assert stored["boxes"].tolist() == [[-1, -1, -1, -1], [1, 2, 30, 40], [-1, -1, -1, -1]]
        assert stored["key_points"].shape == (3, 18, 3)


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "t.npz", KeyPointTable((), torch.zeros(0, 18, 3)))
    assert read_table(tmp_path / "t.npz").keys == ()


def test_pictures_are_found_by_path_and_box_in_the_order_asked_for() -> None:
    records = [Record("ü/2.jpg"), Record("a/1.jpg", box=(1, 2, 30, 40))]
    torch.testing.assert_close(table().of(records), table().points[[2, 1]])
    with pytest.raises(DataError, match=r"1 of 2 images are not in the table, e\.g\. b\.jpg"):
        table().of([Record("a/1.jpg"), Record("b.jpg")])


def test_tables_that_contradict_themselves_are_refused() -> None:
    points = table().points
    with pytest.raises(DataError, match="2 images, but 3 rows"):
        KeyPointTable(KEYS[:2], points)
    with pytest.raises(DataError, match="twice"):
        KeyPointTable((KEYS[0], KEYS[0], KEYS[1]), points)
    for place, value in (((0, 0, 2), 1.5), ((0, 0, 0), float("nan"))):
        wrong = points.clone()
        wrong[place] = value
        with pytest.raises(DataError, match="finite"):
            KeyPointTable(KEYS, wrong)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "key_points.npz"
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path)
    write_table(path, table())
    whole = path.read_bytes()
    for damaged in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"key_points\.npz (is not a table|cannot be read)"):
            read_table(path)
    np.savez(path, names=np.array(KEY_POINT_NAMES))
    with pytest.raises(DataError, match="has no array paths; it is no table of key points"):
        read_table(path)
    with np.load(io.BytesIO(whole)) as stored:
        np.savez(path, **{**stored, "names": np.array(KEY_POINT_NAMES[::-1])})
    with pytest.raises(DataError, match="another order"):
        read_table(path)
