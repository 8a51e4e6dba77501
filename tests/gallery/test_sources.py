"""Videos and watched folders as sources of a gallery."""

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import UsageError
from dapg.core.types import Modality
from dapg.data.sightings import Sighting, sightings
from dapg.features.networks import NetworkSettings
from dapg.gallery import encoding, indexing
from dapg.gallery.encoding import Damaged, Encoded
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import Indexer, IndexReport, IndexSettings
from figures import draw_person, make_figures
from onnx_people import Planted, write_network

RED = (250, 10, 10)
HISTOGRAM = NetworkSettings("histogram", height=32, width=16)


def new(tmp_path: Path) -> Gallery:
    return Gallery.create(tmp_path / "gallery", HISTOGRAM, "cpu")


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


def written(gallery: Gallery) -> list[tuple[object, ...]]:
    """Everything that an index run writes, but for the moment."""
    return gallery.database.query(
        "SELECT p.id, p.path, p.sha256, p.box, p.camera, p.modality, p.quality, p.person, c.data, f.vector "
        "FROM pictures p JOIN features f ON f.picture = p.id LEFT JOIN crops c ON c.picture = p.id ORDER BY p.id"
    )


def test_shards_write_what_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes, a duplicate, a damaged file; a command that ends while it writes goes on with what workers have done."""
    figures = make_figures(tmp_path / "figures", persons=2)
    (figures / "damaged.png").write_bytes(b"no picture")
    (figures / "again.png").write_bytes((figures / "camera1" / "000_0.png").read_bytes())
    with (figures / "labels.csv").open("a") as labels:
        labels.writelines(["damaged.png,person 009,1,visible,test\n", "again.png,person 000,1,visible,test\n"])
    monkeypatch.setattr(indexing, "SHARD", 4)
    alone, together = (Gallery.create(tmp_path / name, HISTOGRAM, "cpu") for name in ("alone", "together"))
    counts = alone.index(figures, IndexSettings(batch_size=2)).counts()
    assert counts == {"added": 12, "known": 0, "duplicates": 1, "damaged": 1, "deleted": 0}
    shards = IndexSettings(batch_size=2, engine=EngineSettings(workers=2))
    commit, calls = Indexer._commit, list[int]()

    def commit_once(self: Indexer, results: Sequence[Encoded | Damaged], report: IndexReport) -> None:
        calls.append(len(results))
        if len(calls) == 2:
            raise KeyboardInterrupt
        commit(self, results, report)

    monkeypatch.setattr(Indexer, "_commit", commit_once)
    with pytest.raises(KeyboardInterrupt):
        together.index(figures, shards)
    assert len(written(together)) == together.audit()[-1].body["added"] == 4
    left = list((together.folder / "incoming").glob("shards-*/.shards/pieces/*.npz"))
    assert len(left) == 3
    monkeypatch.setattr(Indexer, "_commit", commit)
    monkeypatch.setattr(encoding, "_start", lambda *arguments: pytest.fail("encoded again"))
    more = together.index(figures, shards).counts()
    assert more == {"added": 8, "known": 4, "duplicates": 1, "damaged": 1, "deleted": 0}
    assert written(together) == written(alone)
    assert not (together.folder / "incoming").exists()
    assert together.index(figures, shards).counts()["known"] == 14
    assert together.check() == []


def test_a_deletion_removes_what_a_killed_command_left_of_pictures(tmp_path: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(make_figures(tmp_path / "figures", persons=1), IndexSettings())
    names = ("incoming/shards-0/.shards/pieces/000000.npz", "incoming/night.avi/0.jpg", "upload-x/a.png", "my/a.png")
    left = [gallery.folder / name for name in names]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"image")
    assert gallery.delete([1]) == 1
    assert [path.exists() for path in left] == [False, False, False, True]


def test_a_deletion_leaves_a_video_alone_that_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = new(tmp_path)
    (tmp_path / "night.avi").write_bytes(b"video")

    def cut(source: str, settings: IndexSettings, work: Path) -> Sequence[Sighting]:
        draw_person(0, 1, 0, False).save(work / "0.png")
        gallery.delete()
        return sightings(str(work), settings, work)

    monkeypatch.setattr(indexing, "sightings", cut)
    assert gallery.index(tmp_path / "night.avi").added == 1
    assert not (gallery.folder / "incoming").exists()


def test_kinds_of_infrared_do_not_meet(tmp_path: Path) -> None:
    """The gallery takes the kind of its first infrared images; a visible query or folder is of no kind."""
    figures = make_figures(tmp_path / "figures", persons=1)
    gallery = new(tmp_path)
    query = figures / "camera3" / "000_0.png"
    gallery.search(query, "infrared", infrared="thermal")
    gallery.index(figures / "camera1", IndexSettings(infrared="thermal"))
    gallery.index(figures / "camera3", IndexSettings(modality="infrared", infrared="near"))
    with pytest.raises(UsageError, match="these images are for thermal infrared, but the gallery's images are for"):
        gallery.index(figures / "camera3", IndexSettings(modality="infrared", infrared="thermal"))
    with pytest.raises(UsageError, match="the query is for thermal infrared"):
        gallery.search(query, "infrared", infrared="thermal")
    with pytest.raises(UsageError, match="these thresholds are for thermal infrared"):
        gallery.set_thresholds({"model": gallery.card().hash, "infrared": "thermal", "pairs": []})
    gallery.search(query, "visible", infrared="thermal")
    gallery.search(query, "infrared", infrared="near")
    gallery.index(figures / "camera3", IndexSettings(modality="infrared"))
    shipped = Gallery.create(tmp_path / "shipped", NetworkSettings("agw-imagenet-small"), "cpu")
    with pytest.raises(UsageError, match="the gallery's network is for near infrared"):
        shipped.index(figures / "camera3", IndexSettings(modality="infrared", infrared="thermal"))
    heat = Gallery.create(tmp_path / "heat", HISTOGRAM, "cpu")
    heat.index(figures / "camera3", IndexSettings(modality="infrared", infrared="thermal"))
    with pytest.raises(UsageError, match="agw-imagenet-small is for near infrared, but the gallery's images are"):
        heat.migrate(NetworkSettings("agw-imagenet-small"))


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


def test_a_watched_video_waits_until_it_is_written_and_its_crops_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "night.avi"
    video.write_bytes(b"video")
    now = video.stat().st_mtime_ns + 1_000_000_000

    def cut(source: str, settings: IndexSettings, work: Path) -> Sequence[Sighting]:
        return [Sighting("0.png", (figures / "camera1" / "000_0.png").read_bytes, (1, now))]

    figures = make_figures(tmp_path / "figures", persons=1)
    monkeypatch.setattr(indexing, "sightings", cut)
    monkeypatch.setattr("dapg.gallery.indexing.time.time_ns", lambda: now)
    monkeypatch.setattr("dapg.gallery.indexing.time.sleep", Mock(side_effect=KeyboardInterrupt))
    gallery = new(tmp_path)
    assert gallery.index(video, IndexSettings(watch=True)).added == 0
    now += 2_000_000_000
    assert gallery.index(video, IndexSettings(watch=True)).added == 1


def test_what_a_killed_command_left_of_a_video_is_in_no_other_ones_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = list[Path]()

    def cut(source: str, settings: IndexSettings, work: Path) -> Sequence[Sighting]:
        works.append(work)
        raise SystemExit(source)

    monkeypatch.setattr(indexing, "sightings", cut)
    gallery = new(tmp_path)
    videos = [tmp_path / name / "night.avi" for name in "ab"]
    for video, settings in itertools.product(videos, (IndexSettings(), IndexSettings(modality="infrared"))):
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(b"video")
        os.utime(video, (1, 1))
        with pytest.raises(SystemExit):
            gallery.index(video, settings)
    assert len(set(works)) == 4
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        gallery.index("b/night.avi", IndexSettings(modality="infrared"))
    assert works[4] == works[3]
