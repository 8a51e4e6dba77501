"""`dapg explain` on images of one's own, and the same maps in an evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run

SMALL = ("--backbone", "resnet18", "--backbone.width", "0.0625", "--height", "64", "--width", "32")
ON_CPU = ("--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three persons of one colour each, two cameras."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["path,person,camera"]
    for person, colour in {"anna": (200, 30, 30), "ben": (30, 200, 30), "cleo": (30, 30, 200)}.items():
        for camera in (1, 2):
            Image.new("RGB", (16, 32), colour).save(folder / f"{person}{camera}.png")
            rows.append(f"{person}{camera}.png,{person},{camera}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_single_pictures_find_their_nearest_and_a_page_is_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    asked, out = tmp_path / "asked.png", tmp_path / "explained"
    Image.new("RGB", (16, 32), (30, 200, 30)).save(asked)
    words = ("explain", "random", asked, "--gallery", pictures, "--top", 4, *SMALL, *ON_CPU, "--out", out)
    code, said, err = run(capsys, *words)
    assert code == 0, err
    result = json.loads((out / "result.json").read_text())
    (entry,) = result["ranked_lists"]
    assert {answer["path"] for answer in entry["answers"][:2]} == {"ben1.png", "ben2.png"}
    assert entry["answers"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert [answer["match"] for answer in entry["answers"]] == [None] * 4
    with np.load(out / "activations.npz") as maps:
        assert maps["0"].shape == (5, 2, 1)
        assert 0 <= maps["0"].min() <= maps["0"].max() <= 1
    assert "ben1.png" in said
    assert (out / "page.html").read_text().count('<figure class="unknown">') == 8, "four answers, four maps"
    assert run(capsys, *words[:-2], "--out", tmp_path / "sub", "--gallery.subset", 2)[0] == 0
    assert len(json.loads((tmp_path / "sub" / "result.json").read_text())["ranked_lists"][0]["answers"]) == 2


def test_a_damaged_picture_of_the_gallery_is_left_out_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for name in ("anna1.png", "ben1.png"):
        (gallery / name).write_bytes((pictures / name).read_bytes())
    (gallery / "cleo1.png").write_bytes(b"damaged")
    words = (
        "explain",
        "random",
        pictures / "ben2.png",
        "--gallery",
        gallery,
        *SMALL,
        *ON_CPU,
        "--out",
        tmp_path / "out",
    )
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert "left out: 1 unreadable image of the gallery" in said
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert list(result["unreadable"]) == ["cleo1.png"]
    assert len(result["ranked_lists"][0]["answers"]) == 2


def test_queries_and_gallery_of_one_relative_path_have_a_thumbnail_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    """A damaged query is left out like a damaged image of the gallery."""
    for folder, name in (("q", "anna1.png"), ("g", "ben1.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes((pictures / name).read_bytes())
    (tmp_path / "q" / "2.png").write_bytes(b"damaged")
    files, out = (tmp_path / "q" / "1.png", tmp_path / "q" / "2.png"), tmp_path / "out"
    words = ("explain", "random", *files, "--gallery", tmp_path / "g", *SMALL, *ON_CPU, "--out", out)
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert "1 unreadable image left out; first 2.png" in said
    (entry,) = json.loads((out / "result.json").read_text())["ranked_lists"]
    shown = [entry["query"]["picture"], entry["answers"][0]["picture"]]
    colours = [np.asarray(Image.open(out / place))[64, 32].argmax() for place in shown]
    assert colours == [0, 1], "anna is red, ben is green"


def test_maps_of_an_image_that_was_replaced_are_not_reused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    asked = tmp_path / "asked.png"
    asked.write_bytes((pictures / "anna1.png").read_bytes())
    words = ("explain", "random", asked, *SMALL, *ON_CPU, "--out", tmp_path / "out")
    assert run(capsys, *words)[0] == 0
    assert "already finished, reused" in run(capsys, *words)[1]
    asked.write_bytes((pictures / "ben1.png").read_bytes())
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "asked.png changed since" in err


def test_without_a_gallery_the_pictures_stand_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    files, out = (pictures / "anna1.png", pictures / "ben2.png"), tmp_path / "alone"
    code, _, err = run(capsys, "explain", "random", *files, *SMALL, *ON_CPU, "--modality", "infrared", "--out", out)
    assert code == 0, err
    lists = json.loads((out / "result.json").read_text())["ranked_lists"]
    assert [entry["query"]["path"] for entry in lists] == [file.name for file in files]
    assert all(entry["answers"] == [] for entry in lists)
    with np.load(out / "activations.npz") as maps:
        assert maps["1"].shape == (1, 2, 1)
        assert maps["1"].max() == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("explain",), 2, "needs MODEL"),
        (("explain", "random"), 2, "needs an image"),
        (("explain", "histogram", "a.png"), 2, "is no network"),
        (("explain", "random", "nowhere.png", *SMALL), 1, "nowhere.png"),
        (("explain", "random", "a.png", "--galery", "x"), 2, "did you mean '--gallery'"),
    ],
)
def test_wrong_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    more = ("--out", tmp_path / "out", *ON_CPU) if len(words) > 2 else ()
    found, _, err = run(capsys, *words, *more)
    assert found == code, err
    assert message in err
    assert "Traceback" not in err


def test_an_evaluation_writes_maps_and_a_tsne_layout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "scores"
    words = ("evaluate", "random", "--data", pictures, *SMALL, *ON_CPU, "--activations", "true", "--tsne", 2)
    code, _, err = run(capsys, *words, "--ranked_lists", 2, "--out", out)
    assert code == 0, err
    figures = json.loads((out / "figures.json").read_text())
    assert len(figures["tsne"]) == 4
    (pair,) = figures["distances"]["pairs"]
    assert (sum(pair["same"]), sum(pair["other"])) == (3, 12)
    with np.load(out / "activations.npz") as maps:
        assert sorted(maps.files) == ["0", "1"]
    code, _, err = run(
        capsys, "evaluate", "histogram", "--data", pictures, *ON_CPU, "--activations", "true", "--out", out / "h"
    )
    assert code == 2
    assert "histogram is no network" in err
