"""Your own images: what labels.csv may say, and where it is wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.core.errors import DataError, UsageError
from dapg.core.files import csv_text
from dapg.core.train_config import DataConfig
from dapg.core.types import UNKNOWN, Modality
from dapg.data.base import Dataset, example_image
from dapg.data.listing import images_below
from dapg.data.sets.folder import Folder
from dapg.data.sets.synthetic import Synthetic
from dapg.data.source import open_dataset
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score


def pictures(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8), (9, 9, 9)).save(root / path, "PNG")
    return root


def labelled(root: Path, text: str, encoding: str = "utf-8") -> Path:
    pictures(root, "a.png", "b.png", "c/d.png")
    (root / "labels.csv").write_bytes(text.encode(encoding))
    return root


def test_without_labels_every_picture_in_the_order_of_its_path(tmp_path: Path) -> None:
    pictures(tmp_path, "b.png", "a/z.JPG", "a/b.jpeg", ".hidden/x.png", "a/.x.png", "B.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert images_below(tmp_path) == ["B.png", "a/b.jpeg", "a/z.JPG", "b.png"]
    records = Folder(tmp_path).records()
    assert [record.path for record in records] == ["B.png", "a/b.jpeg", "a/z.JPG", "b.png"]
    assert {(r.person, r.camera, r.modality, r.box) for r in records} == {(UNKNOWN, UNKNOWN, Modality.VISIBLE, None)}
    assert Folder(tmp_path).read(records[0]) == (tmp_path / "B.png").read_bytes()


def test_labels_name_persons_cameras_modalities_boxes_and_splits(tmp_path: Path) -> None:
    text = (
        "path,person,camera,modality,split,left,top,right,bottom,weather\n"
        "b.png,zoe,2,ir,test,,,,,rain\n"
        "\n"
        "c\\d.png, anna ,1,,train,0,1,3,8,\n"
        "a.png,,,VISIBLE,,,,,,\n"
    )
    data = Folder(labelled(tmp_path, text, "utf-8-sig"))
    b, d, a = data.records()
    assert (b.path, b.person, b.camera, b.modality, b.box) == ("b.png", 1, 2, Modality.INFRARED, None)
    assert (d.path, d.person, d.camera, d.modality, d.box) == ("c/d.png", 0, 1, Modality.VISIBLE, (0, 1, 3, 8))
    assert (a.person, a.camera, a.modality) == (UNKNOWN, UNKNOWN, Modality.VISIBLE)
    assert data.records("train") == [d]
    assert data.records("test") == [b]
    assert data.default_split() == "train", "test rows are not trained on unasked"
    with pytest.raises(UsageError, match="no row with split 'val'; use split 'all'"):
        data.records("val")
    with pytest.raises(UsageError, match="no split 'tset'; did you mean 'test'"):
        data.records("tset")


def test_all_is_the_default_without_a_split_column(tmp_path: Path) -> None:
    assert Folder(pictures(tmp_path, "a.png")).default_split() == "all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv: the first line must name the columns"),
        ("person\nanna\n", "labels.csv: the first line must name the columns"),
        ("path;person\na.png;anna\n", "labels.csv: the first line must name the columns, separated by commas"),
        ("path,Person\na.png,anna\n", "labels.csv: there is no column 'Person'; did you mean 'person'?"),
        ("path,person_id\na.png,1\n", "labels.csv: there is no column 'person_id'; did you mean 'person'?"),
        ("path,camera,camera\na.png,1,2\n", "labels.csv: the first line names a column twice"),
        ("path\na.png\nmissing.png\n", "labels.csv, line 3: missing.png is not a file below"),
        ("path\na.png\n\n\nmissing.png\n", "labels.csv, line 5: missing.png is not a file below"),
        ('path,person\na.png,"two\nlines"\nmissing.png,x\n', "labels.csv, line 4: missing.png"),
        ("path\nc\n", "labels.csv, line 2: c is not a file below"),
        ("path,person\n,anna\n", "labels.csv, line 2: a path must be relative"),
        ("path\n/etc/hostname\n", "labels.csv, line 2: a path must be relative and stay below"),
        ("path\n../a.png\n", "labels.csv, line 2: a path must be relative and stay below"),
        ("path,camera\na.png,two\n", "labels.csv, line 2: camera must be a whole number, not 'two'"),
        ("path,camera\na.png,1\nb.png,1.5\n", "labels.csv, line 3: camera must be a whole number, not '1.5'"),
        ("path,modality\na.png,sonar\n", "labels.csv, line 2: modality must be one of visible, rgb, infrared"),
        ("path,split\na.png,tets\n", "labels.csv, line 2: split must be one of train, val, test, not 'tets'; did"),
        ("path,split\na.png,all\n", "labels.csv, line 2: split must be one of train, val, test, not 'all'"),
        ("path,left,top,right,bottom\na.png,3,0,3,8\n", "line 2: box left, top, right, bottom = 3, 0, 3, 8 has no"),
        ("path,left,top,right,bottom\na.png,0,0,3,\n", "line 2: the box lacks bottom"),
        ("path,left,top,right,bottom\na.png,0,0,x,4\n", "labels.csv, line 2: right must be a whole number, not 'x'"),
        ("path,person\na.png,anna\nb.png\n", "labels.csv, line 3: 1 cells, but the first line names 2 columns"),
        ("path,person\na.png,anna,oslo\n", "labels.csv, line 2: 3 cells, but the first line names 2 columns"),
        ("path,person\na.png,x\na.png,y\n", "labels.csv, line 3: a.png is listed already, see "),
        ('path\n"a.png\n', "labels.csv, line 2: "),
        ("path\n", "no image"),
    ],
)
def test_wrong_labels_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Folder(labelled(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [Folder, Synthetic])
def test_what_a_command_of_ours_has_not_finished_is_no_data_set(tmp_path: Path, kind: type[Dataset]) -> None:
    kind.write_example(tmp_path)
    (tmp_path / "config.yaml").write_text("# dapg data crop\nstage: crop\n")
    with pytest.raises(DataError, match=r"is not whole: run its `dapg data crop` command again"):
        kind(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    kind(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "config.yaml").write_text("mine: true\n")
    kind(tmp_path)
    (tmp_path / "corruption.json").write_text("{}")
    (tmp_path / "manifest-1-of-2.jsonl").write_text("")
    with pytest.raises(DataError, match=r"corrupted copy in .* is not whole"):
        kind(tmp_path)


def test_a_path_that_was_guarded_against_spreadsheets_is_found(tmp_path: Path) -> None:
    Folder.write_example(tmp_path)
    (tmp_path / "visible").rename(tmp_path / "=visible")
    (tmp_path / "labels.csv").write_text(csv_text([("path", "camera"), ("=visible/anna_1.png", -1)]))
    assert "'=visible" in (tmp_path / "labels.csv").read_text()
    assert [(record.path, record.camera) for record in Folder(tmp_path).records("all")] == [("=visible/anna_1.png", -1)]


def test_labels_in_another_encoding_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv is not UTF-8 text"):
        Folder(labelled(tmp_path, "path,person\na.png,Jörg\n", "latin-1"))


def test_one_picture_with_two_boxes_is_two_records(tmp_path: Path) -> None:
    text = "path,left,top,right,bottom\na.png,0,0,2,8\na.png,2,0,4,8\n"
    assert [record.box for record in Folder(labelled(tmp_path, text)).records()] == [(0, 0, 2, 8), (2, 0, 4, 8)]


def test_no_folder_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no image"):
        Folder(tmp_path)


def test_trials_by_hand(tmp_path: Path) -> None:
    text = (
        "path,person,camera,modality,split\n"
        "a.png,anna,1,visible,test\n"
        "b.png,anna,2,visible,test\n"
        "c/d.png,anna,3,infrared,test\n"
        "e.png,anna,1,visible,train\n"
        "f.png,,1,visible,test\n"
    )
    pictures(tmp_path, "e.png", "f.png")
    data = Folder(labelled(tmp_path, text))
    (camera,) = data.trials("cross-camera")
    assert [record.path for record in camera.query] == ["a.png", "b.png"]
    assert camera.query == camera.gallery
    assert camera.protocol.same_person_same_camera
    (modal,) = data.trials("cross-modal")
    assert [record.path for record in modal.query] == ["c/d.png"]
    assert [record.path for record in modal.gallery] == ["a.png", "b.png"]
    assert not modal.comparable
    with pytest.raises(UsageError, match="no mode 'cross-model'; did you mean 'cross-modal'"):
        data.trials("cross-model")


@pytest.mark.parametrize(
    ("text", "mode", "needed"),
    [
        ("path,person,camera\na.png,x,1\nb.png,x,1\n", "cross-camera", "two visible cameras"),
        ("path,person,camera\na.png,x,1\nb.png,x,2\n", "cross-modal", "both modalities"),
        ("path,camera\na.png,1\nb.png,2\n", "cross-camera", "two visible cameras"),
    ],
)
def test_labels_that_allow_no_scores(tmp_path: Path, text: str, mode: str, needed: str) -> None:
    with pytest.raises(UsageError, match=needed):
        Folder(labelled(tmp_path, text)).trials(mode)


def market_names(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(example_image(name))
    return folder


NAMES = ("0001_c1s1_000108_00.jpg", "a/0001_c2s1_000201_00.jpg", "0002_c1s1_000001_00.jpg", "-1_c1s1_1.jpg", "x.jpg")


def test_persons_and_cameras_from_file_names(tmp_path: Path) -> None:
    dataset = open_dataset(DataConfig("folder", str(market_names(tmp_path, NAMES)), names="market"))
    assert isinstance(dataset, Folder)
    labels = {record.path: (record.person, record.camera) for record in dataset.records("all")}
    assert labels == {
        "-1_c1s1_1.jpg": (UNKNOWN, 1),
        "0001_c1s1_000108_00.jpg": (0, 1),
        "0002_c1s1_000001_00.jpg": (1, 1),
        "a/0001_c2s1_000201_00.jpg": (0, 2),
        "x.jpg": (UNKNOWN, UNKNOWN),
    }
    assert dataset.person_names == ["0001", "0002"]
    (trial,) = dataset.trials("cross-camera")
    assert len(trial.query) == 3


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "no regular expression"), ("x", "has no group"), ("(?P<person>zz)", "fits no name")],
)
def test_patterns_that_name_nobody_are_refused(tmp_path: Path, pattern: str, message: str) -> None:
    market_names(tmp_path, NAMES)
    with pytest.raises((UsageError, DataError), match=message):
        open_dataset(DataConfig("folder", str(tmp_path), names=pattern))


def test_leave_one_out_by_hand(tmp_path: Path) -> None:
    """One camera, persons a a b b c: four queries, each against the four others; c is never asked for."""
    market_names(tmp_path, tuple(f"000{person}_c1_{n}.png" for n, person in enumerate((1, 1, 2, 2, 3))))
    dataset = open_dataset(DataConfig("folder", str(tmp_path), names="market"))
    (trial,) = dataset.trials("leave-one-out")
    assert (len(trial.query), len(trial.gallery), trial.comparable) == (4, 5, False)
    distances = torch.tensor([[0.0, 3, 1, 4, 5], [3, 0, 5, 5, 5], [1, 5, 0, 2, 5], [4, 5, 2, 0, 5]])
    scores = score(distances, Labels.of(trial))
    assert scores.rank(1) == 0.5, "the query itself, at distance 0, is no answer"
    assert scores.valid_queries == 4
