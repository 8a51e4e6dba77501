from pathlib import Path

import pytest

from dapg.core.errors import DataError
from dapg.core.types import Record
from dapg.data.image_lines import read_groups, with_groups, write_lines


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
