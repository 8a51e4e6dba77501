"""`verify` passes full-size copies and names every one of many things that can be wrong with them."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dapg.core.errors import UsageError
from dapg.data.base import example_image
from dapg.data.sets.sysu import SysuMM01
from dapg.data.verify import Finding, Verification, grouped, verify_folder

Change = Callable[[bytes], bytes | None]
"""What a file becomes; None: it is deleted."""


@contextlib.contextmanager
def changed(path: Path, change: Change) -> Iterator[None]:
    """Change a file (bytes -> bytes, None: delete it) or make a new one; everything is as before afterwards."""
    before = path.read_bytes() if path.exists() else None
    after = change(before or b"")
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)
    try:
        yield
    finally:
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)


@contextlib.contextmanager
def moved(path: Path, to: Path) -> Iterator[None]:
    path.rename(to)
    try:
        yield
    finally:
        to.rename(path)


def lines(change: Callable[[list[str]], list[str]]) -> Change:
    """A change of a text file's list of lines."""
    return lambda data: ("\n".join(change(data.decode().splitlines())) + "\n").encode()


def text(change: Callable[[str], str]) -> Change:
    return lambda data: change(data.decode()).encode()


def delete(data: bytes) -> None:
    return None


def found(name: str, root: Path, decode: bool) -> list[Finding]:
    return [finding for finding in verify_folder(name, root, decode=decode).findings if finding.error]


SYSU = [
    ("a test image is gone", "cam3/0006/0020.jpg", delete, "count", "cam3/0006"),
    ("a training image is gone", "cam1/0001/0003.jpg", delete, "count", "cam1"),
    ("one image too many", "cam2/0010/0099.jpg", lambda _: example_image("a.jpg"), "count", "cam2/0010"),
    (
        "an odd file name",
        "cam5/0010/holiday.jpeg",
        lambda _: example_image("b.jpg"),
        "extra",
        "cam5/0010/holiday.jpeg",
    ),
    ("a test person trains, too", "exp/train_id.txt", text(lambda t: "6," + t), "overlap", "train and test"),
    ("a validation person trains", "exp/train_id.txt", text(lambda t: "334," + t), "overlap", "train and val"),
    ("a person listed twice", "exp/train_id.txt", text(lambda t: "1," + t), "list", "exp/train_id.txt"),
    (
        "a test person is not listed",
        "exp/test_id.txt",
        text(lambda t: t.removeprefix("6,")),
        "count",
        "exp/test_id.txt",
    ),
    ("another test person", "exp/test_id.txt", text(lambda t: "9," + t[2:]), "count", "exp/test_id.txt"),
    ("a list with other marks", "exp/val_id.txt", text(lambda t: t.replace(",", ";")), "list", "val"),
    ("an empty list", "exp/test_id.txt", lambda _: b"", "list", "test"),
    ("a person nobody photographed", "exp/val_id.txt", text(lambda t: "3," + t), "missing", "exp/val_id.txt"),
    ("a missing list", "exp/val_id.txt", delete, "layout", "."),
]

BMP = example_image("a.bmp")
READ, LIST = True, False
REGDB = [
    ("an image is gone", "Visible/7/male_back_v_00002_7.bmp", delete, LIST, "missing", "back_v_00002_7.bmp"),
    ("a list is gone", "idx/test_thermal_4.txt", delete, LIST, "layout", "."),
    ("a line is gone", "idx/train_visible_2.txt", lines(lambda x: x[1:]), LIST, "count", "train_visible_2"),
    ("a line twice", "idx/train_visible_2.txt", lines(lambda x: [*x[1:], x[-1]]), LIST, "list", "train_visible_2"),
    ("a wrong label", "idx/test_visible_9.txt", lines(lambda x: [x[0] + "5", *x[1:]]), LIST, "list", "test_*_9"),
    ("no label", "idx/test_visible_9.txt", lines(lambda x: ["Visible/2", *x[1:]]), LIST, "list", "test_visible_9"),
    ("a stranger's image", "Thermal/5/male_back_t_00003_6.bmp", lambda _: BMP, LIST, "extra", "t_00003_6"),
    ("the wrong light", "Visible/5/male_back_t_00003_5.bmp", lambda _: BMP, LIST, "extra", "t_00003_5"),
    ("an empty image", "Visible/9/male_back_v_00004_9.bmp", lambda _: b"", READ, "unreadable", "v_00004_9"),
    ("a cut image", "Thermal/9/male_back_t_00004_9.bmp", lambda d: d[:54], READ, "unreadable", "t_00004_9"),
    ("text inside", "Thermal/8/male_back_t_00001_8.bmp", lambda _: b"404 not found", READ, "unreadable", "t_00001_8"),
]


@pytest.mark.slow
def test_full_sysu_passes(full_sysu: Path) -> None:
    result = verify_folder("sysu", full_sysu)
    assert [str(finding) for finding in result.findings if finding.error] == []
    assert result.passed
    assert result.counts["trainval: persons"] == 395
    assert (result.counts["trainval: visible"], result.counts["trainval: infrared"]) == (22_258, 11_909)
    assert (result.counts["all: query"], result.counts["all: gallery"]) == (3803, 301)
    assert (result.counts["indoor: gallery"], result.counts["all: trials"]) == (112, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "path", "change", "kind", "where"), SYSU, ids=[row[0] for row in SYSU])
def test_each_sysu_mutation_is_named(
    full_sysu: Path, what: str, path: str, change: Change, kind: str, where: str
) -> None:
    with changed(full_sysu / path, change):
        findings = found("sysu", full_sysu, decode=False)
    assert any(finding.kind == kind and finding.where == where for finding in findings), list(map(str, findings))


@pytest.mark.slow
def test_sysu_folders_moved_away_are_named(full_sysu: Path) -> None:
    with moved(full_sysu / "cam4", full_sysu / "camera4"):
        assert "expected cam4" in found("sysu", full_sysu, decode=False)[0].message
    with moved(full_sysu / "cam6/0333", full_sysu / "cam6/0999"):
        findings = found("sysu", full_sysu, decode=False)
    assert any(finding.kind == "extra" and finding.where == "cam6/0999" for finding in findings)
    assert any(finding.kind == "count" and finding.where == "cam6/0333" for finding in findings)


@pytest.mark.slow
def test_one_person_under_two_names_is_named(full_sysu: Path) -> None:
    copy = (full_sysu / "cam1/0002/0001.jpg").read_bytes()
    with changed(full_sysu / "cam1/0001/0001.jpg", lambda _: copy):
        findings = found("sysu", full_sysu, decode=True)
    assert [(finding.kind, finding.where) for finding in findings] == [("duplicate", "cam1/0001/0001.jpg")]
    assert "cam1/0002/0001.jpg" in findings[0].message


@pytest.mark.slow
def test_full_regdb_passes(full_regdb: Path) -> None:
    result = verify_folder("regdb", full_regdb)
    assert [str(finding) for finding in result.findings] == []
    assert (result.counts["all: images"], result.counts["all: persons"]) == (8240, 412)
    assert (result.counts["train-3: persons"], result.counts["test-3: images"]) == (206, 4120)
    assert (result.counts["visible-to-thermal: query"], result.counts["visible-to-thermal: gallery"]) == (2060, 2060)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "path", "change", "decode", "kind", "where"), REGDB, ids=[row[0] for row in REGDB])
def test_each_regdb_mutation_is_named(
    full_regdb: Path, what: str, path: str, change: Change, decode: bool, kind: str, where: str
) -> None:
    with changed(full_regdb / path, change):
        findings = found("regdb", full_regdb, decode)
    assert any(finding.kind == kind and where in finding.where for finding in findings), list(map(str, findings))


@pytest.mark.slow
def test_regdb_person_on_both_sides_is_named(full_regdb: Path) -> None:
    other = (full_regdb / "idx/test_visible_6.txt").read_text().splitlines()[0].split(" ")[0]
    with changed(full_regdb / "idx/train_visible_6.txt", lines(lambda rows: [f"{other} 0", *rows[1:]])):
        findings = found("regdb", full_regdb, decode=False)
    assert any(finding.kind == "overlap" and finding.where == "train-6 and test-6" for finding in findings)


@pytest.mark.slow
def test_regdb_person_without_thermal_pictures_is_named(full_regdb: Path) -> None:
    with moved(full_regdb / "Thermal/12", full_regdb / "twelve"):
        findings = found("regdb", full_regdb, decode=False)
    assert any(finding.kind == "missing" and finding.where == "Thermal/12" for finding in findings)


JPG = example_image("a.jpg")
MARKET = [
    ("a training image is gone", "bounding_box_train/0002_c1s1_000000_00.jpg", delete, "count", "bounding_box_train"),
    ("one query too many", "query/0001_c1s1_000999_00.jpg", lambda _: JPG, "count", "query"),
    ("a stranger asks", "query/1502_c1s1_000999_00.jpg", lambda _: JPG, "missing", "bounding_box_test"),
    ("a stranger asks who trains", "query/0002_c1s1_000999_00.jpg", lambda _: JPG, "overlap", "train and query"),
    ("a test person trains", "bounding_box_train/0001_c1s1_000999_00.jpg", lambda _: JPG, "overlap", "train and query"),
    ("junk is gone", "bounding_box_test/-1_c1s1_000000_00.jpg", delete, "count", "bounding_box_test"),
    ("another name", "bounding_box_test/person1.jpg", lambda _: JPG, "list", "gallery"),
]
LLCM_FIRST = "nir/0001/0001_c01_s000000_nir.jpg"
LLCM = [
    ("a training image is gone", LLCM_FIRST, delete, "missing", LLCM_FIRST),
    ("a test image is gone", "test_nir/cam1/0714/0714_c01_s000000_nir.jpg", delete, "count", "."),
    ("a test image too many", "test_vis/cam1/0714/extra.jpg", lambda _: JPG, "count", "."),
    ("a training line is gone", "idx/train_vis.txt", lines(lambda x: x[1:]), "count", "."),
    ("no label", "idx/train_nir.txt", lines(lambda x: ["nir/0001/x.jpg", *x[1:]]), "list", "train"),
    ("a test person trains", "idx/test_id.txt", text(lambda t: "713," + t), "overlap", "idx/test_id.txt"),
    ("a person nobody photographed", "idx/test_id.txt", text(lambda t: "9999," + t), "missing", "idx/test_id.txt"),
    ("other marks", "idx/test_id.txt", text(lambda t: t.replace(",", ";")), "list", "test"),
    ("a missing list", "idx/test_id.txt", delete, "layout", "."),
]


@pytest.mark.slow
def test_full_market_passes(full_market: Path) -> None:
    result = verify_folder("market1501", full_market.parent, decode=False)
    assert [str(finding) for finding in result.findings] == []
    assert (result.counts["train: images"], result.counts["train: persons"]) == (12_936, 751)
    assert result.counts["all: images"] == 32_668
    assert (result.counts["standard: query"], result.counts["standard: gallery"]) == (3368, 15_913)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "path", "change", "kind", "where"), MARKET, ids=[row[0] for row in MARKET])
def test_each_market_mutation_is_named(
    full_market: Path, what: str, path: str, change: Change, kind: str, where: str
) -> None:
    with changed(full_market / path, change):
        findings = found("market1501", full_market, decode=False)
    assert any(finding.kind == kind and finding.where == where for finding in findings), list(map(str, findings))


@pytest.mark.slow
def test_full_llcm_passes(full_llcm: Path) -> None:
    result = verify_folder("llcm", full_llcm, decode=False)
    assert [str(finding) for finding in result.findings] == []
    assert (result.counts["train: persons"], result.counts["test: persons"]) == (713, 351)
    assert result.counts["train: images"] + result.counts["test: images"] == 46_767
    assert result.counts["infrared-to-visible: trials"] == 10


@pytest.mark.slow
@pytest.mark.parametrize(("what", "path", "change", "kind", "where"), LLCM, ids=[row[0] for row in LLCM])
def test_each_llcm_mutation_is_named(
    full_llcm: Path, what: str, path: str, change: Change, kind: str, where: str
) -> None:
    with changed(full_llcm / path, change):
        findings = found("llcm", full_llcm, decode=False)
    assert any(finding.kind == kind and finding.where == where for finding in findings), list(map(str, findings))


@pytest.mark.slow
def test_an_infrared_camera_3_of_llcm_is_named(full_llcm: Path) -> None:
    with moved(full_llcm / "test_nir/cam4", full_llcm / "test_nir/cam3"):
        findings = found("llcm", full_llcm, decode=False)
    assert any(finding.where == "test_nir/cam3" for finding in findings), list(map(str, findings))


def test_a_small_copy_fails_on_counts_only(tmp_path: Path) -> None:
    from dapg.data.sets.regdb import RegDB

    RegDB.write_example(tmp_path)
    result = verify_folder("regdb", tmp_path)
    assert not result.passed
    assert {finding.kind for finding in result.findings} == {"count"}
    assert "Visible: 10 persons, published 412" in " ".join(map(str, result.findings))


def test_missing_lists_are_a_note_not_an_error(tmp_path: Path) -> None:
    from dapg.data.sets.regdb import RegDB

    RegDB.write_example(tmp_path)
    shutil.rmtree(tmp_path / "idx")
    notes = [finding for finding in verify_folder("regdb", tmp_path).findings if not finding.error]
    assert [note.where for note in notes] == ["idx"]


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    from dapg.data.sets.market1501 import Market1501

    Market1501.write_example(tmp_path)
    path = tmp_path / "query/0001_c1s1_001051_00.jpg"
    path.write_bytes(path.read_bytes()[:300])
    findings = [finding for finding in verify_folder("market1501", tmp_path).findings if finding.kind == "unreadable"]
    assert [finding.where for finding in findings] == ["query/0001_c1s1_001051_00.jpg"]


def test_same_file_for_one_person_is_a_note(tmp_path: Path) -> None:
    from dapg.data.sets.market1501 import Market1501

    Market1501.write_example(tmp_path)
    shutil.copy(tmp_path / "query/0001_c1s1_001051_00.jpg", tmp_path / "query/0001_c1s1_001099_00.jpg")
    findings = [finding for finding in verify_folder("market1501", tmp_path).findings if finding.kind == "duplicate"]
    assert [finding.error for finding in findings] == [False]


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'regdb'"):
        verify_folder("regbd", tmp_path)


def own_folder(root: Path, rows: Sequence[str], size: tuple[int, int] = (20, 40)) -> Verification:
    """A folder of images, each of another colour, with the given rows of labels.csv."""
    from PIL import Image

    for number, row in enumerate(rows):
        Image.new("RGB", size, (number * 20, 255 - number * 20, 90)).save(root / row.split(",")[0])
    text = "\n".join(["path,person,camera,modality,split", *rows]) + "\n"
    (root / "labels.csv").write_text(text)
    return verify_folder("folder", root)


SOUND = [
    "a.png,anna,1,visible,train",
    "b.png,anna,2,infrared,train",
    "c.png,ben,1,visible,test",
    "d.png,ben,2,infrared,test",
    "e.png,ben,3,visible,test",
]


def test_own_folder_is_counted_per_split_modality_and_camera(tmp_path: Path) -> None:
    result = own_folder(tmp_path, SOUND)
    assert result.passed
    assert [str(finding) for finding in result.findings if finding.kind != "list"] == []
    expected = {
        "all: images": 5,
        "all: camera 1": 2,
        "all: camera 2": 2,
        "all: camera 3": 1,
        "train: visible": 1,
        "train: infrared": 1,
        "train: camera 2": 1,
        "test: persons": 1,
        "test: visible": 2,
        "test: camera 3": 1,
    }
    assert {name: result.counts[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({1: "b.png,ben,2,infrared,train"}, "overlap", "1 person(s) in both"),
        ({3: "d.png,,2,infrared,test"}, "list", "only one modality has persons: no infrared image names one"),
        ({3: "d.png,cleo,2,infrared,test"}, "list", "no person has both visible and infrared images"),
        ({n: f"{row.rsplit(',', 4)[0]},,1,visible,test" for n, row in enumerate(SOUND)}, "list", "name no person"),
        (
            {n: f"{row.split(',')[0]},{row.split(',')[1]},1,visible,test" for n, row in enumerate(SOUND)},
            "list",
            "all labelled images are of one camera (camera 1)",
        ),
        ({0: "a.png,anna,1,visible"}, "layout", "labels.csv, line 2: 4 cells"),
    ],
)
def test_each_mistake_in_own_labels_is_an_error(
    tmp_path: Path, change: dict[int, str], kind: str, message: str
) -> None:
    rows = [change.get(number, row) for number, row in enumerate(SOUND)]
    errors = [finding for finding in own_folder(tmp_path, rows).findings if finding.error]
    assert any(finding.kind == kind and message in finding.message for finding in errors), list(map(str, errors))


def test_one_camera_is_only_a_note_where_no_scores_are_promised(tmp_path: Path) -> None:
    rows = ["a.png,anna,1,visible,", "b.png,ben,1,visible,"]
    result = own_folder(tmp_path, rows)
    assert result.passed
    assert any("of one camera" in finding.message for finding in result.findings)


def test_too_small_pictures_and_boxes_outside_are_named(tmp_path: Path) -> None:
    from PIL import Image

    result = own_folder(tmp_path, SOUND, size=(12, 24))
    (note,) = [finding for finding in result.findings if finding.kind == "small"]
    assert not note.error
    assert "5 image(s) smaller than 16 x 32 (width x height): a.png (12 x 24)" in note.message
    Image.new("RGB", (60, 60), (1, 2, 3)).save(tmp_path / "f.png")
    text = "path,person,left,top,right,bottom\nf.png,anna,0,0,30,50\nf.png,ben,30,0,60,50\n"
    (tmp_path / "people.csv").write_text(text)
    result = verify_folder("folder", tmp_path / "people.csv")
    assert result.passed, "two people in one image are no duplicate"
    assert result.counts["all: images"] == 2
    (tmp_path / "people.csv").write_text(text + "f.png,cleo,40,0,80,50\nf.png,dora,70,0,80,50\n")
    (wrong,) = [finding for finding in verify_folder("folder", tmp_path / "people.csv").findings if finding.error]
    assert wrong.kind == "unreadable"
    assert "the box (70, 0, 80, 50) lies outside the image" in wrong.message


def test_findings_of_one_cause_are_one_line_with_examples() -> None:
    many = [Finding("unreadable", f"cam1/{n:04}.jpg", f"cam1/{n:04}.jpg: the file is empty") for n in range(519)]
    other = Finding("count", "cam6", "12 images, published 20")
    first, second = grouped([*many, other])
    assert first == (
        "ERROR unreadable cam1/0000.jpg: cam1/0000.jpg: the file is empty; 518 more like it, such as cam1/0001.jpg, "
        "cam1/0002.jpg (--all lists them)"
    )
    assert second == str(other)
    assert len(list(grouped(many[:3]))) == 3


def test_a_published_set_given_as_a_plain_folder_is_recognised(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    notes = [finding for finding in verify_folder("folder", tmp_path).findings if finding.kind == "layout"]
    assert [note.message for note in notes] == [f"this is the layout of SYSU-MM01: give sysu={tmp_path}"]
    assert not notes[0].error


def test_a_folder_without_labels_is_not_told_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(example_image("a.png"))
    assert "labels.csv" not in " ".join(map(str, verify_folder("folder", tmp_path).findings))
