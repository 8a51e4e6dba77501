"""A gallery of drawn figures from index to deletion, with the colour histogram, which needs no training."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dapg
from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode
from dapg.core.types import Modality
from dapg.data.sightings import clock, seconds
from dapg.features.networks import NetworkSettings
from dapg.gallery.database import Filters, SqliteDatabase
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexSettings
from figures import draw_person, make_figures

HISTOGRAM = NetworkSettings("histogram", height=64, width=32)


def new(tmp_path: Path) -> Gallery:
    return Gallery.create(tmp_path / "gallery", HISTOGRAM, "cpu")


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """Four persons before two visible cameras and an infrared one, twice each."""
    return make_figures(tmp_path / "figures", persons=4)


def test_a_list_is_taken_in_once_and_searched(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    assert gallery.index(figures).counts() == {"added": 24, "known": 0, "duplicates": 0, "damaged": 0, "deleted": 0}
    assert gallery.index(figures).counts() == {"added": 0, "known": 24, "duplicates": 0, "damaged": 0, "deleted": 0}
    query = figures / "camera1" / "002_0.png"
    result = gallery.acting("anna", "case 17").search(query, filters=Filters(camera=("camera 1", "camera 2")), top=4)
    assert {answer.picture.person for answer in result.answers[:2]} == {"person 002"}
    assert result.answers[0].picture.path == str(query)
    assert result.answers[0].score == pytest.approx(1, abs=1e-3)
    assert (result.modality, result.answers[0].verdict) == (Modality.VISIBLE, None)
    assert set(result.by_camera) <= {"camera 1", "camera 2"}
    entry = gallery.audit()[-1]
    assert (entry.actor, entry.action, entry.reason) == ("anna", "search", "case 17")
    assert entry.secret == {"queries": [hashlib.sha256(query.read_bytes()).hexdigest()]}
    assert entry.body["gallery"] == gallery.identity
    assert entry.body["results"][0][0] == result.answers[0].picture.number
    assert gallery.verify_audit()[0] == []
    assert gallery.check() == []


def test_modalities_are_guessed_and_several_pictures_are_one_query(tmp_path: Path, figures: Path) -> None:
    gallery = dapg.Gallery(new(tmp_path).folder)
    gallery.index(str(figures))
    grey = [figures / "camera3" / f"001_{number}.png" for number in range(2)]
    result = gallery.search(grey, top=2)
    assert result.modality == Modality.INFRARED
    assert [answer.picture.person for answer in result.answers] == ["person 001"] * 2
    assert gallery.search(grey[0].read_bytes(), "visible").modality == Modality.VISIBLE
    assert gallery.search(Image.open(grey[0])).modality == Modality.INFRARED
    pixels = np.asarray(Image.open(grey[0]).convert("RGB"))
    for image in (pixels, pixels / 255, torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        same = gallery.search(image, filters=dapg.Filters(modality=Modality.VISIBLE))
        assert [answer.score for answer in same.answers] == [
            answer.score for answer in gallery.search(grey[0], filters=dapg.Filters(modality=Modality.VISIBLE)).answers
        ]
    with pytest.raises(UsageError, match="a modality is visible or infrared"):
        gallery.search(grey, "thermal")
    with pytest.raises(UsageError, match=r"missing\.png cannot be read"):
        gallery.search("missing.png")
    with pytest.raises(DataError, match="not an image"):
        gallery.search(b"no picture")


def test_duplicates_damaged_and_changed_files(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    (folder / "gate").mkdir(parents=True)
    picture = draw_person(1, 1, 0, False)
    picture.save(folder / "gate" / "a.png")
    picture.save(folder / "gate" / "b.png")
    whole = (folder / "gate" / "a.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[:200])
    gallery = new(tmp_path)
    report = gallery.index(folder, IndexSettings(file_times=True))
    assert (report.added, report.duplicates, report.damaged) == (1, 1, 1)
    assert any("b.png equals" in note for note in report.notes)
    assert any("broken.png" in note for note in report.notes)
    other = Gallery.create(tmp_path / "strict", NetworkSettings("histogram", height=64, width=32), "cpu")
    with pytest.raises(DataError, match=r"broken\.png"):
        other.index(folder, IndexSettings(on_bad_image="fail"))
    only = gallery.picture(1)
    assert only.time == pytest.approx((folder / "gate" / "a.png").stat().st_mtime)
    assert (only.camera, only.person, gallery.picture_file(1)) == ("gate", None, whole)
    draw_person(2, 1, 0, False).save(folder / "broken.png")
    report = gallery.index(folder)
    assert (report.added, report.known, report.damaged) == (1, 2, 0)
    assert gallery.pictures()[1].camera == "incoming"


def test_boxes_times_and_tracks_of_a_list(tmp_path: Path) -> None:
    """Two persons in one image; the crop that is kept decodes to the pixels in the box."""
    sheet = Image.new("RGB", (128, 128))
    for place in range(2):
        sheet.paste(draw_person(place, 1, 0, False), (64 * place, 0))
    sheet.save(tmp_path / "sheet.png")
    rows = ["path,camera,time,track,left,top,right,bottom"]
    rows += ["sheet.png,7,2026-11-28T22:00:00,a,0,0,64,128", "sheet.png,7,2026-11-28T22:00:01+01:00,b,64,0,128,128"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    gallery = new(tmp_path)
    assert gallery.index(tmp_path / "list.csv").added == 2
    first, second = gallery.pictures()
    assert (first.camera, first.track, second.track) == ("camera 7", "a", "b")
    assert clock(first.time) == "2026-11-28 22:00:00 UTC"
    assert first.time is not None
    assert second.time == first.time - 3599
    assert Image.open(io.BytesIO(gallery.picture_file(2))).tobytes() == draw_person(1, 1, 0, False).tobytes()
    after = Filters(after=seconds("2026-11-28T21:30:00"))
    assert [answer.picture.number for answer in gallery.search(tmp_path / "sheet.png", filters=after).answers] == [1]
    (tmp_path / "list.csv").write_text("path,time\nsheet.png,noon\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: 'noon' is no time"):
        gallery.index(tmp_path / "list.csv")
    assert clock(3_725.5) == "1:02:05.5"


def test_pictures_that_are_not_copied_are_read_from_their_place(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures, IndexSettings(copy=False))
    path = Path(gallery.picture(1).path)
    assert gallery.picture_file(1) == path.read_bytes()
    path.unlink()
    assert gallery.check() == [f"image 1: its file {path} is gone"]
    with pytest.raises(DataError, match="No such file"):
        gallery.picture_file(1)


def test_a_deleted_person_stays_deleted(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures)
    query = figures / "camera1" / "003_0.png"
    gallery.search(query)
    kept = gallery.search(figures / "camera3" / "000_0.png", filters=Filters(camera=("camera 3",)), top=1)
    assert gallery.delete(person="person 003") == 6
    assert gallery.pictures(person="person 003") == []
    assert gallery.index(figures).deleted == 6
    gallery.search(query)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in figures.glob("camera*/003_*.png")]
    assert gallery.check(["person 003", "003_0.png", *hashes]) == []
    secrets = [entry.secret for entry in gallery.audit() if entry.action == "search"]
    assert secrets[0] is None
    assert secrets[1] == {"queries": [hashlib.sha256((figures / "camera3" / "000_0.png").read_bytes()).hexdigest()]}
    assert secrets[2] == {"queries": []}
    assert gallery.verify_audit()[0] == []
    assert gallery.info()["deleted"] == 6
    with pytest.raises(UsageError, match="labelled 'person 003'"):
        gallery.delete(person="person 003")
    leak = gallery.folder / "left over"
    model = gallery.database.value("SELECT id FROM models")
    vector = gallery.network().encode_mixed(_decoded(query, gallery), [Modality.VISIBLE])[0].tobytes()
    leak.write_bytes(b"x" * 5 + vector)
    assert (model, len(gallery.check())) == (1, 1)
    leak.write_text(f"hash: {hashes[0]}")
    assert len(gallery.check()) == 1
    assert kept.answers[0].picture.person == "person 000"


def test_a_search_by_a_deleted_image_is_forgotten_where_a_filter_left_it_out(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures)
    asked, other = figures / "camera1" / "003_0.png", figures / "camera1" / "000_0.png"
    for query in (asked, other):
        gallery.search([query], filters=Filters(camera=("camera 2",)))
    gallery.search([other, asked], filters=Filters(modality=Modality.INFRARED), top=1)
    number = next(picture.number for picture in gallery.pictures() if picture.path == str(asked))
    assert gallery.delete([number]) == 1
    secrets = [entry.secret for entry in gallery.audit() if entry.action == "search"]
    assert secrets == [None, {"queries": [hashlib.sha256(other.read_bytes()).hexdigest()]}, None]
    assert gallery.check() == []


def _decoded(path: Path, gallery: Gallery) -> torch.Tensor:
    return decode(path.read_bytes(), gallery.network().input_size)[None]


def test_verdicts_make_a_timeline_and_a_case(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures, IndexSettings(labels=False))
    result = gallery.search(figures / "camera1" / "002_0.png", filters=Filters(modality=Modality.VISIBLE), top=3)
    first, second, third = (answer.picture.number for answer in result.answers)
    anna = gallery.acting("anna")
    for picture, same in ((first, True), (second, True), (third, False), (second, False)):
        anna.verdict(result.number, picture, same)
    assert [picture.number for picture in gallery.timeline(result.number)] == [first]
    assert gallery.info()["classes"] == {"unknown": 23, "matched": 0, "confirmed": 1}, "the last word counts"
    with pytest.raises(UsageError, match="no image 999"):
        anna.verdict(result.number, 999, True)
    anna.export(result.number, tmp_path / "case.zip")
    with zipfile.ZipFile(tmp_path / "case.zip") as archive:
        sums = [line.split("  ") for line in archive.read("SHA256SUMS").decode().splitlines()]
        assert [hashlib.sha256(archive.read(name)).hexdigest() for _, name in sums] == [digest for digest, _ in sums]
        assert len(sums) == 4
        case = json.loads(archive.read("case.json"))
    assert case["timeline"] == [first]
    assert [entry["action"] for entry in case["audit"]] == ["search", *["verdict"] * 4, "export"]
    assert case["audit"][1]["body"]["verified_by"] == "anna"


def test_retention_by_class(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures, IndexSettings(labels=False))
    gallery.label([1], "visitor")
    assert gallery.enforce_retention() == 0
    gallery.set_retention({"unknown": 2.0})
    assert gallery.enforce_retention() == 0
    gallery.database.execute("UPDATE pictures SET added = added - 3 * 86400 WHERE id <= 5")
    assert gallery.enforce_retention() == 4
    assert [picture.number for picture in gallery.pictures(limit=2)] == [1, 6]
    with pytest.raises(UsageError, match="no class"):
        gallery.set_retention({"strangers": 1.0})


def test_another_network_needs_a_migration(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures)
    other = IndexSettings(model="histogram", height=32, width=16)
    with pytest.raises(UsageError, match="never meet"):
        gallery.index(figures, other)
    query = gallery.encode(figures / "camera1" / "000_0.png")
    before = gallery.card().hash
    assert gallery.migrate(other.network) == 24
    assert gallery.card().hash != before
    assert gallery.check() == []
    assert gallery.search(figures / "camera1" / "000_0.png").answers[0].score == pytest.approx(1, abs=1e-3)
    assert gallery.index(figures, other).known == 24
    assert query.hashes == gallery.encode(figures / "camera1" / "000_0.png").hashes
    with pytest.raises(UsageError, match="already"):
        gallery.migrate(other.network)


def test_users_have_tokens_of_which_the_hash_is_kept(tmp_path: Path) -> None:
    gallery = new(tmp_path)
    token = gallery.add_user("anna", "operator")
    user = gallery.user(token)
    assert user is not None
    assert (user.name, user.role, gallery.user("guess")) == ("anna", "operator", None)
    assert gallery.database.value("SELECT token FROM users") == hashlib.sha256(token.encode()).hexdigest()
    with pytest.raises(UsageError, match="already"):
        gallery.add_user("anna", "admin")
    gallery.remove_user("anna")
    assert gallery.user(token) is None
    with pytest.raises(UsageError, match="no user"):
        gallery.remove_user("anna")


def test_a_gallery_whose_making_was_killed_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    settings = NetworkSettings("histogram", height=64, width=32)
    with monkeypatch.context() as patch:
        patch.setattr("dapg.gallery.gallery.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            Gallery.create(tmp_path / "gallery", settings, "cpu")
    assert list((tmp_path / "gallery").glob("*.sqlite*")), "the database is there"
    Gallery.create(tmp_path / "gallery", settings, "cpu").close()
    with pytest.raises(UsageError, match="holds a gallery already"):
        Gallery.create(tmp_path / "gallery", settings, "cpu")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no gallery"):
        Gallery.create(tmp_path / "other", settings, "cpu")
    with pytest.raises(UsageError, match=r"mine\.txt is a file; give a folder"):
        Gallery.create(tmp_path / "other" / "mine.txt", settings, "cpu")


def test_a_database_elsewhere_is_taken_up_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a PostgreSQL server keeps it, whatever becomes of the folder; another folder does not get it."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "server").mkdir()
    monkeypatch.setattr("dapg.gallery.gallery._connect", lambda *_: SqliteDatabase(tmp_path / "server"))
    settings = NetworkSettings("histogram", height=64, width=32)
    with monkeypatch.context() as patch:
        patch.setattr("dapg.gallery.gallery.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            Gallery.create(tmp_path / "gallery", settings, "cpu")
    for folder, network in (("other", settings), ("gallery", replace(settings, height=32))):
        with pytest.raises(UsageError, match="the database holds a gallery already"):
            Gallery.create(tmp_path / folder, network, "cpu")
    gallery = Gallery.create(tmp_path / "gallery", settings, "cpu")
    assert [entry.action for entry in gallery.audit()] == ["create"]
    assert gallery.identity == gallery.database.value("SELECT value FROM meta WHERE key = 'id'")


def test_a_backup_is_a_gallery(tmp_path: Path, figures: Path) -> None:
    gallery = new(tmp_path)
    gallery.index(figures)
    gallery.backup(tmp_path / "backup")
    copy = Gallery(tmp_path / "backup")
    assert copy.search(figures / "camera1" / "000_0.png").answers[0].picture.person == "person 000"
    assert copy.check() == []
    with pytest.raises(UsageError, match="holds a gallery already"):
        gallery.backup(tmp_path / "backup")
    with pytest.raises(UsageError, match="is no gallery"):
        Gallery(tmp_path / "figures")


def test_a_gallery_without_its_database_is_refused_and_gets_no_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "gallery.sqlite"
    (tmp_path / "gallery.json").write_text('{"store": "sqlite"}')
    with pytest.raises(DataError, match=rf"{file}, the database of the gallery, is gone; put back a copy"):
        Gallery(tmp_path)
    assert not file.exists()
    file.touch()
    with pytest.raises(DataError, match="is empty; put back a copy"):
        Gallery(tmp_path)
