"""LUPerson: LMDB with each form of key list, tars, and a pickle that must not run."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from dapg.core.errors import DataError
from dapg.core.types import UNKNOWN
from dapg.data.base import example_image
from dapg.data.sets.luperson import LUPerson
from dapg.data.verify import verify

KEYS = ["01_02_0003_00000001", "01_02_0003_00000002", "07_01_0001_00000001"]
NOISY = ["00001_000004_0000020_00", "00001_000007_0000040_01"]


def build(root: Path, keys: list[str], listed: object = None, place: str = "lmdb") -> Path:
    lmdb = pytest.importorskip("lmdb")
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key.encode(), example_image(key + ".jpg"))
    if listed is not None:
        (root / "keys.pkl").write_bytes(pickle.dumps(listed))
    return root


@pytest.mark.parametrize("place", ["lmdb", "."])
def test_list_of_keys(tmp_path: Path, place: str) -> None:
    dataset = LUPerson(build(tmp_path, KEYS, KEYS[::-1], place))
    records = dataset.records()
    assert [record.path for record in records] == KEYS[::-1]
    assert {(record.person, record.camera) for record in records} == {(UNKNOWN, UNKNOWN)}
    assert [dataset.read(record) for record in records] == [example_image(key + ".jpg") for key in KEYS[::-1]]


@pytest.mark.parametrize("numbers", [[5, 6, 5], np.array([5, 6, 5]), [np.int64(5), np.int64(6), np.int64(5)]])
def test_dictionary_with_persons(tmp_path: Path, numbers: object) -> None:
    dataset = LUPerson(build(tmp_path, KEYS, {"keys": KEYS, "pids": numbers, "vids": [1, 1, 2]}))
    assert [(record.person, record.camera) for record in dataset.records()] == [(5, 1), (6, 1), (5, 2)]


def test_noisy_persons_are_in_the_keys(tmp_path: Path) -> None:
    dataset = LUPerson(build(tmp_path, NOISY, {"keys": NOISY}))
    assert [(record.person, record.camera) for record in dataset.records()] == [(4, 1), (7, 1)]


def test_without_a_key_list_the_keys_are_listed(tmp_path: Path) -> None:
    assert [record.path for record in LUPerson(build(tmp_path, KEYS)).records()] == sorted(KEYS)


def test_tars(tmp_path: Path) -> None:
    LUPerson.write_example(tmp_path)
    assert [(record.person, record.camera) for record in LUPerson(tmp_path).records()] == [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 2),
    ]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path, KEYS, {"keys": KEYS, "pids": Harmful()})
    with pytest.raises(DataError, match=r"it asks for builtins\.print"):
        LUPerson(tmp_path).records()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("listed", "message"),
    [("abc", "expected a list"), ({"pids": [1]}, "expected a list"), ({"keys": KEYS, "pids": [1]}, "1 pids")],
)
def test_wrong_key_lists_are_explained(tmp_path: Path, listed: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LUPerson(build(tmp_path, KEYS, listed)).records()


def test_keys_without_pictures_are_named(tmp_path: Path) -> None:
    dataset = LUPerson(build(tmp_path, KEYS[:2], KEYS))
    with pytest.raises(DataError, match=r"in keys\.pkl but not in"):
        dataset.read(dataset.records()[2])
    result = verify(dataset)
    assert {(finding.kind, finding.where) for finding in result.findings if finding.error} == {
        ("missing", "lmdb"),
        ("unreadable", KEYS[2]),
    }


def test_two_objects_and_a_forked_worker_read_one_lmdb(tmp_path: Path) -> None:
    dataset = LUPerson(build(tmp_path, KEYS, KEYS))
    record = dataset.records()[0]
    expected = dataset.read(record)
    assert pickle.loads(pickle.dumps(dataset)).read(record) == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(dataset.read, (record,)) == expected
