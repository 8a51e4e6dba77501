from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.train_config import DataConfig
from dapg.core.types import Record
from dapg.data.image_lines import read_groups, with_groups, write_lines
from dapg.data.sets.folder import Folder
from dapg.features.pseudo_persons import GroupSettings, group


def test_what_is_written_is_read(tmp_path: Path) -> None:
    groups = {"some/a b.jpg": 3, "c.jpg": 12}
    write_lines(tmp_path / "new" / "groups.tsv", groups)
    assert (tmp_path / "new" / "groups.tsv").read_text() == "some/a b.jpg\t3\nc.jpg\t12\n"
    assert read_groups(tmp_path / "new" / "groups.tsv") == groups


def test_other_lines_and_missing_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "groups.tsv"
    file.write_text("c.jpg 12\n")
    with pytest.raises(DataError, match="line 1"):
        read_groups(file)
    with pytest.raises(DataError, match="nowhere"):
        read_groups(tmp_path / "nowhere.tsv")


def test_pictures_outside_every_group_are_left_out() -> None:
    records = [Record("a.jpg", person=1), Record("b.jpg"), Record("c.jpg")]
    assert [(r.path, r.person) for r in with_groups(records, {"c.jpg": 4, "a.jpg": 4})] == [("a.jpg", 4), ("c.jpg", 4)]
    with pytest.raises(DataError, match="no group is given for any of the 3"):
        with_groups(records, {"x.jpg": 1})


def test_every_box_of_a_file_has_a_group_of_its_own(tmp_path: Path) -> None:
    """Left half red, right half blue: two groups, one box in each, also through the file."""
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :32, 0], halves[:, 32:, 2] = 200, 200
    Image.fromarray(halves).save(tmp_path / "frame.png")
    (tmp_path / "labels.csv").write_text("path,left,top,right,bottom\nframe.png,0,0,32,64\nframe.png,32,0,64,64\n")
    groups = group(GroupSettings(DataConfig("folder", str(tmp_path)), groups=2, workers=0, device="cpu"))
    write_lines(tmp_path / "groups.tsv", groups)
    records = Folder(tmp_path).records()
    told = with_groups(records, read_groups(tmp_path / "groups.tsv"))
    assert {record.person for record in told} == {0, 1}
    assert [record.person for record in with_groups(records, {"frame.png": 7})] == [7, 7]
