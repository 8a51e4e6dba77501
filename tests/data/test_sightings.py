"""Times, tracks and names that stand beside the images of a list, however the list is written."""

from pathlib import Path

import pytest
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.files import csv_text
from dapg.data.sightings import SourceSettings, clock, sightings


def listed(folder: Path, text: str) -> list[tuple[float | None, str]]:
    (folder / "labels.csv").write_text(text)
    return [(seen.time, seen.track) for seen in sightings(str(folder), SourceSettings(), folder / "work")]


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (8, 16)).save(folder / name)


@pytest.mark.parametrize(
    "text",
    [
        "path,time,track\na.png,5,1\nb.png,2026-01-01T00:00:01,2\n",
        "path,time,track\na.png,5,1\n./b.png,2026-01-01T00:00:01,2\n",
        "path , time,track \na.png, 5,1\n b.png ,2026-01-01T00:00:01 , 2\n",
        "time,path,track,left,top,right,bottom\n5,a.png,1,,,,\n2026-01-01T00:00:01,./b.png,2,-3,0,8.0,9\n",
    ],
)
def test_every_row_that_is_read_keeps_its_time_and_track(text: str, tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    assert listed(tmp_path, text) == [(5.0, "1"), (1767225601.0, "2")]


def test_guarded_cells_are_read_as_they_were(tmp_path: Path) -> None:
    """What our own lists write so that no spreadsheet takes it for a formula."""
    pictures(tmp_path, "=a.png")
    text = csv_text([("path", "track", "time"), ("=a.png", "=1+1", 7)])
    assert "'=a.png" in text
    assert listed(tmp_path, text) == [(7.0, "=1+1")]


def test_crops_of_a_video_keep_their_time_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "=v").mkdir()
    pictures(tmp_path / "=v", "1.jpg")
    (tmp_path / "config.yaml").write_text("stage: crop\n")
    manifest = [("file", "video", "seconds", "track"), ("=v/1.jpg", "=v", 2.5, 3)]
    (tmp_path / "manifest.csv").write_text(csv_text(manifest))
    (tmp_path / "labels.csv").write_text(csv_text([("path", "camera"), ("=v/1.jpg", 1)]))
    (seen,) = sightings(str(tmp_path), SourceSettings(start="100"), tmp_path / "work")
    assert (seen.time, seen.track, seen.camera) == (102.5, "3", "=v")


@pytest.mark.parametrize("time", ["noon", "nan", "inf", "1764367200000", "1710123100000"])
def test_a_wrong_time_names_its_line(time: str, tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    hint = "; milliseconds[?] divide them by 1000" if time[0] == "1" else ""
    with pytest.raises(DataError, match=rf"labels\.csv, line 2: '{time}' is no time; .* or seconds{hint}$"):
        listed(tmp_path, f"path,time\na.png,{time}\n")


def test_a_time_that_was_taken_in_once_and_is_none_does_not_stop_a_search() -> None:
    assert [clock(moment) for moment in (1764367200000.0, float("inf"))] == ["1764367200000.0", "inf"]
