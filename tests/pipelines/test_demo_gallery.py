"""The demonstration gallery, as far as that is cheap; ``tests/gallery/test_page.py`` makes a whole one."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from dapg.core.errors import UsageError
from dapg.core.types import Modality
from dapg.data.source import open_dataset, parse_source
from dapg.gallery.gallery import Gallery
from dapg.pipelines.demo_gallery import demo_gallery, query_name


class _Told(Exception):
    pass


def test_it_says_what_it_makes_before_it_begins(tmp_path: Path) -> None:
    lines = list[str]()

    def say(line: str) -> None:
        lines.append(line)
        raise _Told

    with pytest.raises(_Told):
        demo_gallery(tmp_path / "people", say)
    assert lines == [f"making a gallery of 100 rendered people in {tmp_path / 'people'}; this takes about a minute"]
    assert list(tmp_path.iterdir()) == []


def test_names_of_queries_need_no_quotes() -> None:
    records = open_dataset(parse_source("synthetic")).records("test")
    night = next(record for record in records if record.modality is Modality.INFRARED)
    name = query_name("person", night)
    assert name == f"person-{night.person:03d}_camera-{night.camera}.png"
    assert re.fullmatch(r"[a-z0-9._-]+", name)


def test_a_folder_that_is_there_is_refused_at_once_and_others_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("people/mine.txt", "new.making/mine.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for taken in ("people", "people/mine.txt", "."):
        with pytest.raises(UsageError, match="is there already"):
            demo_gallery(Path(taken), pytest.fail)
    monkeypatch.setattr(Gallery, "create", Mock(side_effect=_Told))
    (tmp_path / "empty").mkdir()
    for free in ("new", "empty"):
        with pytest.raises(_Told):
            demo_gallery(tmp_path / free, print)
    (tmp_path / "empty").rmdir()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "new.making", "new.making/mine.txt", "people", "people/mine.txt",
    ]  # fmt: skip
