"""RegDB, LLCM and Market-1501: the rules that their published code follows."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from dapg.core.errors import DataError, UsageError
from dapg.core.types import Modality
from dapg.data.sets import llcm, market1501, regdb
from dapg.data.sets.llcm import LLCM
from dapg.data.sets.market1501 import Market1501
from dapg.data.sets.regdb import RegDB
from dapg.data.verify import unseen_trials


def test_regdb_persons_are_true_persons_not_labels(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    dataset = RegDB(tmp_path)
    lines = (tmp_path / "idx/test_visible_3.txt").read_text().splitlines()
    visible = [record for record in dataset.records("test-3") if record.modality == Modality.VISIBLE]
    assert [record.path for record in visible] == [line.split(" ")[0] for line in lines]
    assert [record.person for record in visible] == [int(line.split("/")[1]) for line in lines]


def test_regdb_directions_swap_roles(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    forward, back = (RegDB(tmp_path).trials(mode)[4] for mode in RegDB.modes[:2])
    assert (forward.query, forward.gallery) == (back.gallery, back.query)
    assert {record.modality for record in forward.query} == {Modality.VISIBLE}
    assert not forward.comparable, "an example is not the published set"
    assert len(RegDB(tmp_path).trials()) == 10


def test_regdb_holds_out_persons_of_the_partition(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    dataset = RegDB(tmp_path)
    fit, val, train = ({record.person for record in dataset.records(f"{name}-2")} for name in ("fit", "val", "train"))
    assert fit | val == train
    assert not fit & val
    assert len(val) == 1
    assert {record.person for record in dataset.trials("validation")[1].query} == val


def test_a_model_is_tested_on_its_own_partition_only(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    dataset = RegDB(tmp_path)
    for number in (1, 2):
        trained_on = {record.person for record in dataset.records(f"train-{number}")}
        clean = unseen_trials(dataset.trials(), trained_on)
        # The example draws its ten partitions from two halves of the same ten persons.
        assert f"partition {number}" in [trial.name for trial in clean]
        assert len(clean) < 10
        for trial in clean:
            assert not trained_on & {record.person for record in trial.query}
    with pytest.raises(UsageError, match="the partition it was trained for"):
        unseen_trials(dataset.trials(), range(1, 11))


def test_regdb_without_lists_is_drawn_and_marked(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    shutil.rmtree(tmp_path / "idx")
    dataset, again = RegDB(tmp_path), RegDB(tmp_path)
    assert dataset.records("train-1") == again.records("train-1")
    assert not any(trial.comparable for trial in dataset.trials())
    sides = [{record.person for record in dataset.records(f"{side}-7")} for side in ("train", "test")]
    assert [len(side) for side in sides] == [5, 5]
    assert not sides[0] & sides[1]
    assert dataset.records("train-1") != dataset.records("train-2")


def test_regdb_drawn_partitions_never_change(tmp_path: Path) -> None:
    """The rule is part of the product: another Python or torch must draw the same persons."""
    RegDB.write_example(tmp_path)
    shutil.rmtree(tmp_path / "idx")
    drawn = sorted({record.person for record in RegDB(tmp_path).records("train-1")})

    def number(person: int) -> int:  # the rule as docs/reference/protocols.md words it
        text = f"str:regdb-partition\x1fint:1\x1fint:{person}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    assert drawn == [3, 5, 7, 9, 10] == sorted(sorted(range(1, 11), key=number)[:5])


@pytest.mark.parametrize("line", ["Visible/3/a.bmp", "Thermal/3/a.bmp 0", "Visible/x/a.bmp 0", "Visible/3/a.bmp zero"])
def test_regdb_bad_line_is_named(tmp_path: Path, line: str) -> None:
    RegDB.write_example(tmp_path)
    (tmp_path / "idx/train_visible_1.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=r"train_visible_1\.txt, line 1"):
        RegDB(tmp_path).records("train-1")


def test_regdb_path_with_spaces(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path)
    (tmp_path / "idx/train_visible_1.txt").write_text("Visible/3/a b.bmp 0\n")
    assert RegDB(tmp_path).records("train-1")[0].path == "Visible/3/a b.bmp"


def test_llcm_draws_like_the_released_code(tmp_path: Path) -> None:
    LLCM.write_example(tmp_path)
    dataset = LLCM(tmp_path)
    trial = dataset.trials("infrared-to-visible")[7]
    generator = random.Random(7)
    expected = []
    for person in (3, 4):
        for camera in (1, 2):
            folder = tmp_path / f"test_vis/cam{camera}/{person:04d}"
            expected.append(generator.choice(sorted(path.name for path in folder.iterdir())))
    assert [record.path.rsplit("/", 1)[1] for record in trial.gallery] == expected
    assert len(trial.query) == 8
    assert {record.modality for record in trial.query} == {Modality.INFRARED}


def test_llcm_second_direction_as_described_and_as_released(tmp_path: Path) -> None:
    LLCM.write_example(tmp_path)
    described, released = (
        LLCM(tmp_path).trials(mode)[0] for mode in ("visible-to-infrared", "visible-to-infrared-released")
    )
    assert (described.query, described.gallery) == (released.gallery, released.query)
    assert (len(described.query), len(described.gallery)) == (8, 4)
    assert not described.comparable
    assert not released.comparable, "an example is not the published set"


def test_llcm_cameras_and_persons_of_training(tmp_path: Path) -> None:
    LLCM.write_example(tmp_path)
    records = LLCM(tmp_path).records("train")
    assert [(record.person, record.camera) for record in records[:4]] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_market_junk_distractors_and_all(tmp_path: Path) -> None:
    Market1501.write_example(tmp_path / "Market-1501-v15.09.15")
    dataset = Market1501(tmp_path)
    trial = dataset.trials()[0]
    assert [record.person for record in trial.gallery] == [0, 1, 1, 3, 3]
    assert -1 in {record.person for record in dataset.records("gallery")}
    assert len(dataset.records("all")) == len(dataset.records("train")) + len(dataset.records("gallery"))
    assert [(record.person, record.camera) for record in dataset.records("train")] == [(2, 1), (2, 2), (7, 1), (7, 2)]


def test_market_odd_name_is_named(tmp_path: Path) -> None:
    Market1501.write_example(tmp_path)
    (tmp_path / "query/holiday.jpg").touch()
    with pytest.raises(DataError, match=r"holiday\.jpg"):
        Market1501(tmp_path).records("query")


def check_comparable(regdb_root: Path, market_root: Path, llcm_root: Path) -> None:
    """Whole copies are, those that lack one picture are not."""
    assert all(trial.comparable for mode in RegDB.modes[:2] for trial in RegDB(regdb_root).trials(mode))
    assert Market1501(market_root).trials()[0].comparable
    modes = {mode: LLCM(llcm_root).trials(mode)[0].comparable for mode in LLCM.modes}
    assert modes == {
        "infrared-to-visible": True,
        "visible-to-infrared": False,
        "visible-to-infrared-released": True,
    }
    for kind, root, folder in ((Market1501, market_root, "query"), (LLCM, llcm_root, "test_vis")):
        removed = next(path for path in sorted((root / folder).rglob("*.*")) if path.is_file())
        data = removed.read_bytes()
        removed.unlink()
        try:
            assert not kind(root).trials()[0].comparable
        finally:
            removed.write_bytes(data)


def test_copies_of_the_right_size_are_comparable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples, with their sizes in the place of the published ones."""
    roots = tmp_path / "RegDB", tmp_path / "Market1501", tmp_path / "LLCM"
    RegDB.write_example(roots[0])
    Market1501.write_example(roots[1])
    LLCM.write_example(roots[2])
    assert not RegDB(roots[0]).trials()[0].comparable
    assert not Market1501(roots[1]).trials()[0].comparable
    assert not LLCM(roots[2]).trials()[0].comparable
    monkeypatch.setattr(regdb, "PERSONS_PER_SIDE", 5)
    monkeypatch.setattr(regdb, "IMAGES_PER_PERSON", 2)
    monkeypatch.setitem(market1501.PUBLISHED, "query", (2, 2))
    monkeypatch.setattr(market1501, "GALLERY_WITHOUT_JUNK", 5)
    for name, number in (("ALL_IMAGES", 24), ("ALL_PERSONS", 4), ("TRAIN_PERSONS", 2)):
        monkeypatch.setattr(llcm, name, number)
    check_comparable(*roots)


@pytest.mark.slow
def test_whole_copies_are_comparable(full_regdb: Path, full_market: Path, full_llcm: Path) -> None:
    check_comparable(full_regdb, full_market, full_llcm)
