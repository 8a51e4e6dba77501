"""What counts as an image, where links lead, and lists as people write them."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.images import decode, open_rgb, upright_size
from dapg.core.types import Record
from dapg.data.listing import images_below, images_in, inside, is_image, read_lines, read_numbers
from dapg.data.sets.folder import Folder
from dapg.data.sets.llcm import LLCM
from dapg.data.sets.market1501 import Market1501
from dapg.data.sets.regdb import RegDB
from dapg.data.sets.sysu import SysuMM01
from dapg.data.verify import verify_folder


def encoded(form: str = "PNG", size: tuple[int, int] = (32, 64), seed: int = 0, **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", True),
        ("a/b.JPG", True),
        ("./a.png", True),
        ("._a.jpg", False),
        ("a/._b.jpg", False),
        ("__MACOSX/a.jpg", False),
        (".hidden/a.jpg", False),
        ("Thumbs.db", False),
        ("jpg", False),
        ("", False),
    ],
)
def test_one_rule_for_names(path: str, expected: bool) -> None:
    assert is_image(path) == expected


def test_market_passes_over_what_macos_leaves_and_takes_any_suffix(tmp_path: Path) -> None:
    Market1501.write_example(tmp_path)
    train = tmp_path / "bounding_box_train"
    whole = [record.path for record in Market1501(tmp_path).records("train")]
    (train / "._0002_c1s1_000451_03.jpg").write_bytes(b"\0\5\x16\7")
    first = sorted(train.glob("0*.jpg"))[0]
    first.rename(first.with_suffix(".JPG"))
    names = [record.path for record in Market1501(tmp_path).records("train")]
    assert [name.lower() for name in names] == whole
    for path in (tmp_path / "query").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no image in .*query"):
        Market1501(tmp_path).trials()


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", tmp_path / "set"
    for path in (disk / "one/a.png", root / "b.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    (root / "one").symlink_to(disk / "one")
    (root / "again").symlink_to(root)
    assert images_below(root) == ["b.png", "one/a.png"]
    assert [record.path for record in Folder(root).records()] == ["b.png", "one/a.png"]


def test_links_to_each_other_lead_round_once(tmp_path: Path) -> None:
    """Neither link leads to a folder that it really lies in, only to one that is on the way to it."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(encoded())
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    assert images_below(tmp_path) == ["a/a.png", "a/link/b.png", "b/b.png", "b/link/a.png"]


def test_names_that_are_not_utf_8_are_named_by_every_reader(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    bad = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(bad)).write_bytes(encoded())
    with pytest.raises(DataError, match=r"1 file name\(s\) are not UTF-8, such as b'caf\\xe9.png'"):
        images_in(tmp_path)
    with pytest.raises(DataError, match="not UTF-8"):
        Folder(tmp_path)
    assert not verify_folder("folder", tmp_path).passed


def test_lists_of_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    for text in ("1,2,3\n", "1\n2\n3\n", "\ufeff3,2,1\n", "1, 2,3,\n", "1,2\n\n3"):
        file.write_text(text, encoding="utf-8")
        assert read_numbers(file) == [1, 2, 3], text
    for text, place in (("1,a\n", 1), ("1\n2;3\n", 2), ("1\n-2", 2)):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=f"line {place}: expected whole numbers"):
            read_numbers(file)
    file.write_text("\n")
    with pytest.raises(DataError, match="no number"):
        read_numbers(file)
    file.write_bytes(b"1\n2\ncaf\xe9\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        read_lines(file)


def test_sysu_reads_every_line_of_a_list(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    (tmp_path / "exp/train_id.txt").write_text("1\n2\n")
    assert SysuMM01(tmp_path).persons("train") == [1, 2]


@pytest.mark.parametrize(("kind", "name"), [(RegDB, "train_visible_1.txt"), (LLCM, "train_vis.txt")])
def test_a_list_in_another_code_page_is_named(kind: type[RegDB | LLCM], name: str, tmp_path: Path) -> None:
    kind.write_example(tmp_path)
    file = tmp_path / "idx" / name
    file.write_bytes(file.read_bytes() + "Visible/2/café.bmp 0\n".encode("latin-1"))
    with pytest.raises(DataError, match=f"{name}, line .*not UTF-8"):
        kind(tmp_path).records(kind.splits[0])


def test_half_an_archive_is_named(tmp_path: Path) -> None:
    LLCM.write_example(tmp_path)
    for path in (tmp_path / "test_nir").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"no infrared test image below .*test_nir"):
        LLCM(tmp_path).trials()


@pytest.mark.parametrize(
    "path", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "a\\..\\..\\b.jpg", "\\\\host\\a", "C:\\a", "a\0b"]
)
def test_no_record_leads_out_of_its_folder(path: str) -> None:
    with pytest.raises(DataError):
        Record(path)
    with pytest.raises(DataError):
        inside(path, "line 1")


@pytest.mark.parametrize("path", ["a..jpg", "..a/b.jpg", "a/b.jpg#1,2,3,4", "x.npy#7", "C_a.jpg"])
def test_unusual_but_legal_paths_are_taken(path: str) -> None:
    assert Record(path).path == path


def test_labels_as_trackers_and_spreadsheets_write_them(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(encoded())
    rows = "path,person,camera,left,top,right,bottom\n"
    labels = tmp_path / "labels.csv"
    labels.write_text(rows + "a.png,-1,1.0,,,,\nb.png,nan,nan,,,,\nc.png,7,2,-3,-2,20,40\nd.png,None,,,,,\n")
    records = Folder(tmp_path).records()
    assert [(record.person, record.camera) for record in records] == [(-1, 1), (-1, -1), (0, 2), (-1, -1)]
    assert records[2].box == (0, 0, 20, 40), "cut to the image"
    labels.write_text(rows + "a.png,1,1,3,2,,\n")
    with pytest.raises(DataError, match="line 2: the box lacks right, bottom"):
        Folder(tmp_path)


def test_a_picture_cannot_choose_its_decoder() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    for data in (postscript, encoded("AVIF"), encoded("GIF"), encoded("DDS"), encoded("ICNS", size=(32, 32))):
        with pytest.raises(DataError, match=r"x\.jpg: not an image"):
            open_rgb(data, "x.jpg")


def test_whatever_a_decoder_raises_is_an_unreadable_picture() -> None:
    generator = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"):
        sound = encoded(form)
        for _ in range(30):
            data = bytearray(sound)
            for place in generator.integers(0, min(len(data), 200), 4):
                data[place] = generator.integers(0, 256)
            with contextlib.suppress(DataError):
                open_rgb(bytes(data), "x.jpg")


def test_phone_pictures_with_a_second_picture_in_them_are_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, stream = Image.new("RGB", (32, 64)), io.BytesIO()
    picture.save(stream, "MPO", exif=exif.tobytes(), save_all=True, append_images=[picture])
    data = stream.getvalue()
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert open_rgb(data, "x.jpg").size == (64, 32)
    assert upright_size(data) == (32, 64)
    assert decode(data, (32, 64)).shape == (3, 32, 64)
