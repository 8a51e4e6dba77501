"""Videos and watched folders as sources of a gallery."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.core.types import Modality
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexSettings
from dapg.gallery.networks import NetworkSettings
from figures import draw_person
from onnx_people import Planted, write_network

RED = (250, 10, 10)


def new(tmp_path: Path) -> Gallery:
    return Gallery.create(tmp_path / "gallery", NetworkSettings("histogram", height=32, width=16), "cpu")


def write_video(path: Path) -> None:
    """Four seconds in which a red person with dark stripes walks right."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (200, 120))
    background = np.random.default_rng(0).integers(60, 120, (120, 200, 3), dtype=np.uint8)
    for number in range(40):
        pixels = background.copy()
        pixels[30:100, 10 + 2 * number : 40 + 2 * number] = RED
        pixels[34:100:8, 10 + 2 * number : 40 + 2 * number] = (120, 0, 0)
        writer.write(pixels[:, :, ::-1].copy())
    writer.release()


def test_a_video_becomes_crops_with_times_and_tracks(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "yolo.onnx", "v8", (Planted(RED),), size=(128, 224))
    write_video(tmp_path / "night.avi")
    gallery = new(tmp_path)
    settings = IndexSettings(detector="yolo", weights=str(weights), modality="infrared", start="2026-11-28T22:00:00")
    added = gallery.index(tmp_path / "night.avi", settings).added
    pictures = gallery.pictures()
    assert len(pictures) == added > 2
    assert {(picture.camera, picture.track, picture.modality) for picture in pictures} == {
        ("night.avi", "0", Modality.INFRARED)
    }
    start = 1795903200.0  # 2026-11-28 22:00:00 UTC
    assert all(start <= picture.time < start + 4 for picture in pictures if picture.time is not None)
    assert len({picture.time for picture in pictures}) == added
    assert not (gallery.folder / "incoming").exists()
    answer = gallery.search(gallery.picture_file(pictures[0].number), top=1).answers[0]
    assert answer.pictures == added
    assert gallery.index(tmp_path / "night.avi", settings).counts()["added"] == 0
    assert gallery.check() == []


def test_a_watched_folder_is_looked_at_again_until_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed less than two seconds ago may still be written, and waits for the next look."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    draw_person(0, 1, 0, False).save(folder / "0.png")
    now = time.time_ns()
    looks: list[float] = []

    def look_again(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            Image.new("RGB", (16, 32), RED).save(folder / "1.png")
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("dapg.gallery.indexing.time.sleep", look_again)
    monkeypatch.setattr("dapg.gallery.indexing.time.time_ns", lambda: now + 1_000_000_000 + 10_000_000_000 * len(looks))
    gallery = new(tmp_path)
    report = gallery.index(folder, IndexSettings(watch=True, every=7.0))
    assert looks == [7.0, 7.0, 7.0]
    assert (report.added, report.known) == (2, 2)
    assert gallery.audit()[-1].body["added"] == 2
