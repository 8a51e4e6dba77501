"""The list of generated images: written, read, sorted by source, damaged."""

from pathlib import Path

import pytest

from dapg.core.errors import DataError
from dapg.core.types import Record
from dapg.data.manifest import GeneratedImage, Manifest, read_manifest, write_manifest

BOX = (1, 2, 30, 40)
PICTURES = (
    GeneratedImage("a,b/1.jpg", None, "front", "front/00000.jpg", 0.9),
    GeneratedImage("a,b/1.jpg", None, "left", "left/00000.jpg", 0.25),
    GeneratedImage("a,b/1.jpg", BOX, "front", "front/00001.jpg"),
    GeneratedImage("c/2.jpg", None),
)


def written(folder: Path) -> Manifest:
    manifest = Manifest(folder, PICTURES, {"generator": "ab12", "pairs": "synthetic", "poses": ["front", "left"]})
    write_manifest(manifest)
    return manifest


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert written(tmp_path) == read_manifest(tmp_path)
    assert read_manifest(tmp_path).poses == ("front", "left")


def test_pictures_of_a_source_by_pose_without_those_that_miss_the_target(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    records = [Record("c/2.jpg"), Record("a,b/1.jpg"), Record("a,b/1.jpg", box=BOX)]
    front, left = tmp_path / "front/00000.jpg", tmp_path / "left/00000.jpg"
    assert manifest.of(records) == [{}, {"front": front, "left": left}, {"front": tmp_path / "front/00001.jpg"}]
    assert manifest.of(records, least_score=0.5)[1] == {"front": front}
    with pytest.raises(DataError, match=r"has no line for d\.jpg"):
        manifest.of([Record("d.jpg")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,,,,,front,f.jpg", "7 cells"),
        ("a.jpg,,,,,front,,", "must both be given"),
        ("a.jpg,,,,,front,../f.jpg,", "relative to the folder"),
        ("a.jpg,1,x,3,4,front,f.jpg,", "line 2: invalid literal"),
        ("a.jpg,,,,,front,f.jpg,good", "could not convert"),
    ],
)
def test_damaged_lists_are_refused(tmp_path: Path, line: str, message: str) -> None:
    written(tmp_path)
    (tmp_path / "manifest.csv").write_text(f"path,left,top,right,bottom,pose,file,score\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)


def test_a_missing_or_foreign_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dapg pose generate makes it"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("file,person\n")
    with pytest.raises(DataError, match="the first line must be"):
        read_manifest(tmp_path)
