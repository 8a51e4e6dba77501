"""Rendering with the real kit (skipped where it is not at hand): layout, truth, determinism, canonical views."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.data.sets.synthetic import Synthetic
from dapg.synth import render
from dapg.synth.render import Settings, render_dataset

SHARED = Path(os.environ.get("DAPG_SHARED", Path(__file__).resolve().parents[3] / "shared"))
ASSETS = Path(os.environ.get("DAPG_SYNTH_ASSETS", SHARED / "assets"))
pytestmark = pytest.mark.skipif(not (ASSETS / "makehuman_cc0/base").is_dir(), reason="the MakeHuman kit is not here")


def _files(folder: Path) -> dict[str, bytes]:
    names = ("cam*/*/*", "unlabelled/*", "exp/*", "idx/*", "*.jsonl", "hidden/*", "Visible/*/*", "Thermal/*/*")
    found = sorted(path for name in names for path in folder.glob(name))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _settings(out: Path, **changes: object) -> Settings:
    values = {"persons": 3, "validation_persons": 1, "test_persons": 1, "unlabelled": 4, "engine": EngineSettings()}
    return Settings(out, ASSETS, **(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_dataset(_settings(tmp_path_factory.mktemp("synth") / "people"))


def test_layout_is_sysus(rendered: Path) -> None:
    people = Synthetic(rendered)
    assert [len(people.records(split)) for split in ("unlabelled", "train", "val", "test")] == [4, 12, 12, 12]
    assert (rendered / "exp/available_id.txt").read_text() == "1,2,3\n"
    for record in [*people.records("train"), *people.records("unlabelled")]:
        with Image.open(rendered / record.path) as picture:
            assert picture.size == (96, 192)
    result = json.loads((rendered / "result.json").read_text())
    assert result["pictures"] == 40


def test_truth_is_complete_and_hidden_ids_stay_apart(rendered: Path) -> None:
    rows = [json.loads(line) for line in (rendered / "annotations.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    hidden = [json.loads(line) for line in (rendered / "hidden/unlabelled_persons.jsonl").read_text().splitlines()]
    assert sorted(row["path"] for row in hidden) == [f"unlabelled/{number:05d}.jpg" for number in range(1, 5)]
    for row in rows:
        assert len(row["key_points"]) == 18
        assert 0.01 < row["mask_area"] < 0.9
        left, top, right, bottom = row["box"]
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 192
        assert {"camera", "modality", "yaw", "pose"} <= row.keys()
        assert (row["person"] is None) == (row["split"] == "unlabelled") == ("garments" not in row)


def test_same_settings_are_reused_and_others_refused(rendered: Path) -> None:
    before = (rendered / "result.json").stat().st_mtime_ns
    render_dataset(_settings(rendered))
    assert (rendered / "result.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="seed"):
        render_dataset(_settings(rendered, seed=5))


def test_same_seed_gives_the_same_bytes(rendered: Path, tmp_path: Path) -> None:
    again = render_dataset(_settings(tmp_path / "again"))
    assert _files(again) == _files(rendered)


@pytest.mark.slow
def test_a_killed_rendering_is_no_data_set_and_goes_on(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []

    def dying(settings: Settings, job: render.Job) -> list[render.Picture]:
        if len(done) == 2:
            raise KeyboardInterrupt
        return counting(settings, job)

    def counting(settings: Settings, job: render.Job) -> list[render.Picture]:
        done.append((job.group, job.number))
        return render_job(settings, job)

    render_job = render.render_job
    monkeypatch.setattr(render, "render_job", dying)
    with pytest.raises(KeyboardInterrupt):
        render_dataset(_settings(tmp_path / "out"))
    with pytest.raises(DataError, match=r"is not whole: run its `dapg data synth` command again"):
        Synthetic(tmp_path / "out")
    monkeypatch.setattr(render, "render_job", counting)
    render_dataset(_settings(tmp_path / "out"))
    assert len(done) == len(set(done)) > 3, "three labelled persons and unlabelled ones, none of them twice"
    assert _files(tmp_path / "out") == _files(rendered)
    assert not (tmp_path / "out" / "parts").exists()


def test_two_processes_write_what_one_writes(rendered: Path, tmp_path: Path) -> None:
    two = render_dataset(_settings(tmp_path / "two", engine=EngineSettings(workers=2)))
    assert _files(two) == _files(rendered)


def test_a_person_does_not_depend_on_how_many_are_rendered(rendered: Path, tmp_path: Path) -> None:
    fewer = render_dataset(_settings(tmp_path / "fewer", persons=1, unlabelled=0, validation_persons=0, test_persons=0))
    mine = {name: data for name, data in _files(fewer).items() if name.startswith("cam")}
    assert len(mine) == 12
    assert all(_files(rendered)[name] == data for name, data in mine.items())


def test_canonical_views_show_the_four_sides(tmp_path: Path) -> None:
    folder = render_dataset(_settings(tmp_path / "canonical", persons=1, unlabelled=0, poses="canonical",
                                      validation_persons=0, test_persons=0))  # fmt: skip
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    kinds = [row["pose"]["kind"] for row in rows[:4]]
    assert kinds == [f"canonical {side}" for side in ("front", "left", "back", "right")]
    front, left, back, right = (np.array(row["key_points"]) for row in rows[:4])
    assert front[2, 0] < front[5, 0]  # seen from the front, the right shoulder is on the picture's left
    assert back[2, 0] > back[5, 0]
    assert left[0, 0] < left[1, 0]  # who shows the left side looks to the picture's left
    assert right[0, 0] > right[1, 0]
    assert front[0, 2] == 2  # the nose is seen from the front and hidden from behind
    assert back[0, 2] == 1


def test_regdb_layout_pairs_both_cameras(tmp_path: Path) -> None:
    folder = render_dataset(
        Settings(tmp_path / "regdb", ASSETS, persons=2, style="regdb", engine=EngineSettings(), height=96, width=48)
    )
    files = _files(folder)
    visible = sorted(name for name in files if name.startswith("Visible/"))
    thermal = sorted(name for name in files if name.startswith("Thermal/"))
    assert len(visible) == len(thermal) == 20
    assert [name.replace("Visible", "Thermal").replace("_v_", "_t_") for name in visible] == thermal
    rows = {}
    for line in (folder / "annotations.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["path"]] = row
    for a, b in zip(visible, thermal, strict=True):
        assert rows[a]["key_points"] == rows[b]["key_points"]
        pixels = np.asarray(Image.open(folder / b))
        assert (pixels == pixels[..., :1]).all()
    assert len([name for name in files if name.startswith("idx/")]) == 40
    first = files["idx/test_thermal_1.txt"].decode().splitlines()
    assert len(first) == 10
    assert all(line.endswith(" 0") and line.split(" ")[0] in files for line in first)


def test_the_embedded_set_is_what_the_renderer_makes(tmp_path: Path) -> None:
    folder = render_dataset(
        _settings(tmp_path / "first", persons=1, unlabelled=0, validation_persons=0, test_persons=0, seed=3,
                  encoding="webp", quality=70)
    )  # fmt: skip
    mine, embedded = Synthetic(folder), Synthetic()
    for record in mine.records("train"):
        pictures = [np.asarray(Image.open(io.BytesIO(people.read(record))), float) for people in (mine, embedded)]
        error = float(np.square(pictures[0] - pictures[1]).mean())
        assert 10 * np.log10(255**2 / max(error, 1e-6)) >= 40, record.path
        ours, theirs = mine.truth(record), embedded.truth(record)
        assert {**ours, "split": ""} == {**theirs, "split": ""}
