"""The demonstration gallery, as far as that is cheap; ``tests/gallery/test_page.py`` makes a whole one."""

import re
from pathlib import Path

import pytest

from dapg.core.types import Modality
from dapg.data.source import open_dataset, parse_source
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
