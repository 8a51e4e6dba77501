"""Videos to crops: what is written, that kills and parts do not show in it, and what is refused."""

import csv
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from dapg.cli import main
from dapg.core import files
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.data.cropping import segments
from dapg.data.cropping.crop import CropSettings, crop
from dapg.data.cropping.crop_quality import FilterConfig
from dapg.data.cropping.detectors.yolo import Yolo
from dapg.data.cropping.segments import Sampling
from dapg.data.sets.folder import Folder
from figures import colour_at
from onnx_people import Planted, write_network

RED, GREEN = (250, 10, 10), (10, 250, 10)
FRAMES = 60


def write_frames(folder: Path, frames: int = FRAMES) -> Path:
    """Ten frames a second: a red person walks right, a green one left from second 2 on."""
    folder.mkdir(parents=True)
    background = np.random.default_rng(0).integers(60, 120, (120, 200, 3), dtype=np.uint8)
    for number in range(frames):
        pixels = background.copy()
        pixels[30:100, 10 + 2 * number : 40 + 2 * number] = RED
        if number >= 20:
            pixels[20:80, 200 - 2 * number : 225 - 2 * number] = GREEN
        Image.fromarray(pixels).save(folder / f"{number:04d}.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("footage") / "scene")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    planted = (Planted(RED), Planted(GREEN, 0.8))
    return str(write_network(tmp_path_factory.mktemp("weights") / "yolo.onnx", "v8", planted, size=(128, 224)))


@pytest.fixture
def settings(scene: Path, weights: str, tmp_path: Path) -> CropSettings:
    return CropSettings(
        source=str(scene.parent),
        detector="yolo",
        detect=Yolo.Config(weights=weights, threads=1),
        sampling=Sampling(segment_seconds=1.0),
        filters=FilterConfig(min_sharpness=0.0, duplicate_bits=-1),
        picture_rate=10.0,
        out=str(tmp_path / "out"),
    )


def content(out: Path | str) -> dict[str, bytes]:
    """Every file of a finished folder save those that name the time, the folder or the process."""
    skipped = {"environment.json", "config.yaml", ".lock.0"}
    found = {path.relative_to(out).as_posix(): path for path in Path(out).rglob("*") if path.is_file()}
    wanted = {name: path for name, path in found.items() if name not in skipped and not name.startswith(".shards/")}
    return {name: path.read_bytes() for name, path in wanted.items()}


def manifest(out: Path | str) -> list[dict[str, str]]:
    with (Path(out) / "manifest.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_crops_tracks_and_lists(settings: CropSettings) -> None:
    result = crop(settings)
    rows = manifest(settings.out)
    assert result["frames"] == FRAMES
    assert result["boxes"] == 60 + 40
    assert {row["track"] for row in rows} == {"0", "1"}
    assert result["crops"] == len(rows) > 15
    for row in rows:
        number, red = int(row["frame"]), row["track"] == "0"
        assert number % 5 == 0, "two crops a second of ten frames"
        assert float(row["seconds"]) == number / 10
        box = tuple(int(row[side]) for side in ("left", "top", "right", "bottom"))
        left = 10 + 2 * number if red else 200 - 2 * number
        expected = (left, 30, left + 30, 100) if red else (left, 20, left + 25, 80)
        assert max(abs(a - b) for a, b in zip(box, expected, strict=True)) <= 1
        picture = Image.open(Path(settings.out) / row["file"])
        assert picture.size == (box[2] - box[0], box[3] - box[1])
        assert colour_at(picture, (12, picture.height - 5))[0 if red else 1] > 200
    records = Folder(settings.out).records()
    assert [record.path for record in records] == [row["file"] for row in rows]
    assert {(record.person, record.camera) for record in records} == {(-1, 1)}
    assert len(list(Path(settings.out).rglob("*.jpg"))) == len(rows), "no file but those of the manifest"


def test_tracks_as_persons_and_infrared(settings: CropSettings) -> None:
    crop(replace(settings, persons=True, modality="infrared"))
    records = Folder(settings.out).records()
    assert {(record.person, record.modality.name) for record in records} == {(0, "INFRARED"), (1, "INFRARED")}


def test_near_duplicates_and_short_tracks_go(settings: CropSettings) -> None:
    """Plain rectangles look alike: their crops differ by borders alone."""
    filters = replace(settings.filters, duplicate_bits=20)
    result = crop(replace(settings, filters=filters))
    assert result["dropped"]["near-duplicate"] > 10
    assert len(list(Path(settings.out).rglob("*.jpg"))) == result["crops"] < 6
    tracks = replace(settings.tracks, min_boxes=45)
    long = crop(replace(settings, tracks=tracks, out=settings.out + "-long"))
    assert long["tracks"] == 1
    assert long["dropped"]["short track"] > 0


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process that may be killed; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def crop_and_die(settings: CropSettings, writes: int, half_written: bool) -> None:
    """Killed, as by the system, before the given write; or with the file of that write half on the disk."""
    left = writes
    original = files.atomic_path

    def dying(path: Path | str) -> Any:
        nonlocal left
        if left == 0:
            if half_written:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                (Path(path).parent / f".{Path(path).name}.1.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return original(path)

    with mock.patch.object(files, "atomic_path", dying):
        crop(settings)


def test_killed_anywhere_and_run_again_is_as_if_never_killed(settings: CropSettings) -> None:
    crop(settings)
    expected = content(settings.out)
    crops = len(manifest(settings.out))
    for writes in (0, 4, 9, crops + 2, crops + 10, crops + 12):
        killed = replace(settings, out=f"{settings.out}-{writes}")
        code = in_child(functools.partial(crop_and_die, killed, writes, half_written=writes % 2 == 0))
        assert code == -signal.SIGKILL, writes
        crop(killed)
        assert content(killed.out) == expected, f"killed at write {writes}"


def test_killed_again_and_again_at_any_time(settings: CropSettings) -> None:
    crop(settings)
    expected = content(settings.out)
    again = replace(settings, out=settings.out + "-again")
    kills, delay = 0, 0.02
    while True:
        child = multiprocessing.get_context("fork").Process(target=crop, args=(again,))
        child.start()
        child.join(delay)
        if child.exitcode == 0:
            break
        assert child.exitcode is None, "it failed before it was killed"
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        kills, delay = kills + 1, delay * 1.3
    assert kills >= 2
    assert content(again.out) == expected


def test_finished_segments_are_not_done_again(settings: CropSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = crop(settings)
    monkeypatch.setattr(segments, "_look", lambda *arguments: pytest.fail("a finished segment was looked at again"))
    assert crop(settings) == first


def test_workers_make_the_same_in_stretches(tmp_path: Path, scene: Path) -> None:
    """Background subtraction warms up on the frames before a stretch; here its warm-up is longer than the video."""
    from dapg.data.cropping.detectors.hog import Hog

    sampling = Sampling(segment_seconds=2.0)
    one = CropSettings(
        source=str(scene),
        detect=Hog.Config(threshold=-1.5),
        sampling=sampling,
        picture_rate=10.0,
        out=str(tmp_path / "1"),
    )
    crop(one)
    two = replace(one, engine=EngineSettings(workers=2), out=str(tmp_path / "2"))
    crop(two)
    assert content(two.out) == content(one.out)
    assert len(list((tmp_path / "1/.shards/done").iterdir())) == 1
    assert len(list((tmp_path / "2/.shards/done").iterdir())) == 3


def test_damaged_frames_are_counted_and_the_rest_used(settings: CropSettings, tmp_path: Path) -> None:
    footage = write_frames(tmp_path / "footage" / "scene")
    for number in (3, 4, 30):
        (footage / f"{number:04d}.png").write_bytes((footage / f"{number:04d}.png").read_bytes()[:200])
    (tmp_path / "footage" / "torn.mp4").write_bytes(b"no index")
    result = crop(replace(settings, source=str(tmp_path / "footage")))
    assert result["undecodable"] == 3
    assert result["tracks"] == 2
    assert len(result["unopened"]) == 1


def test_a_folder_of_footage_may_grow(settings: CropSettings, tmp_path: Path) -> None:
    write_frames(tmp_path / "footage" / "monday", 30)
    growing = replace(settings, source=str(tmp_path / "footage"))
    first = crop(growing)
    write_frames(tmp_path / "footage" / "tuesday", 40)
    second = crop(growing)
    assert (first["videos"], second["videos"]) == (1, 2)
    assert {row["video"] for row in manifest(settings.out)} == {"monday", "tuesday"}
    assert second["crops"] > first["crops"]


def test_crops_below_the_source_are_no_footage_the_second_time(settings: CropSettings, tmp_path: Path) -> None:
    """Nor is what a link to a folder above leads to."""
    footage = tmp_path / "footage"
    write_frames(footage / "scene", 30)
    (footage / "round").symlink_to(footage)
    inside = replace(settings, source=str(footage), out=str(footage / "outputs" / "crops"))
    first = crop(inside)
    written = content(inside.out)
    assert first["videos"] == 1
    assert crop(inside) == first
    assert content(inside.out) == written


def test_what_is_refused(settings: CropSettings, tmp_path: Path) -> None:
    footage = write_frames(tmp_path / "footage" / "scene", 20)
    local = replace(settings, source=str(footage))
    with pytest.raises(UsageError, match="no detector is called 'yola'; did you mean 'yolo'"):
        crop(replace(local, detector="yola"))
    with pytest.raises(UsageError, match="holds the videos themselves"):
        crop(replace(local, out=str(footage)))
    crop(local)
    with pytest.raises(UsageError, match=r"made with other settings \(jpeg_quality: 95 there, 80 now\)"):
        crop(replace(local, jpeg_quality=80))
    (footage / "0007.png").write_bytes(b"changed")
    with pytest.raises(DataError, match="is not the file that"):
        crop(local)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.txt").write_text("x")
    with pytest.raises(UsageError, match=r"not empty and holds no config\.yaml"):
        crop(replace(settings, out=str(tmp_path / "full")))


def test_command_line(scene: Path, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "crops"
    words = ["data", "crop", str(scene), "--detector", "yolo", "--detect.weights", weights, "--picture_rate", "10"]
    words += ["--filters.min_sharpness", "0", "--filters.duplicate_bits", "-1", "--out", str(out)]
    assert main([*words, "--engine", "local", "--workers", "1"]) == 0
    assert "in 2 tracks" in capsys.readouterr().out
    assert main(["data", "verify", str(out)]) == 0
    assert main(["data", "crop", str(scene), "--config", str(out / "config.yaml"), "--out", str(out)]) == 0
    assert main(["data", "crop", str(scene), "--detector", "yolo", "--out", str(tmp_path / "x")]) == 2
    assert main(["data", "crop", str(tmp_path / "nothing.mp4"), "--out", str(tmp_path / "y")]) == 1
    assert main(["data", "crop"]) == 2


def test_the_default_detector_brings_its_own_settings(scene: Path, tmp_path: Path) -> None:
    """The red bar is nobody for HOG: boxes are rare, but everything is written."""
    crop(CropSettings(source=str(scene), picture_rate=2.5, out=str(tmp_path / "out")))
    assert "min_height: 40" in (tmp_path / "out" / "config.yaml").read_text()
    assert (tmp_path / "out" / "manifest.csv").exists()
