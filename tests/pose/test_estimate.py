"""The estimation stage: exact truth in, table out; killed, shared, damaged; and BlazePose on synthetic people."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dapg.commands import pose_estimate
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.core.images import upright_size
from dapg.core.key_points import usable
from dapg.core.launch import ShardsFailed
from dapg.core.run_folder import RunFolder
from dapg.core.schema import read_json
from dapg.core.train_config import DataConfig
from dapg.core.types import Record
from dapg.data.sets.folder import Folder
from dapg.data.sets.synthetic import Synthetic
from dapg.pose import estimate as stage
from dapg.pose.estimate import EstimateSettings, estimate, estimator_class
from dapg.pose.estimators.annotations import Annotations
from dapg.pose.key_point_table import KeyPointTable, read_table, write_table
from dapg.pose.scores import pck


@pytest.fixture(autouse=True)
def _small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHEET_IMAGES", 3)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small set in the synthetic layout."""
    Synthetic.write_example(tmp_path / "people")
    return tmp_path / "people"


def settings(root: Path, out: Path, engine: EngineSettings = EngineSettings()) -> EstimateSettings:
    return EstimateSettings(
        "annotations", Annotations.Config(), DataConfig("synthetic", str(root)), engine=engine, out=str(out)
    )


def test_exact_points_of_every_split_are_written_once(tree: Path, tmp_path: Path) -> None:
    result = estimate(settings(tree, tmp_path / "out"))
    people = Synthetic(tree)
    records = [record for split in people.splits for record in people.records(split)]
    table = read_table(tmp_path / "out")
    assert len(table.keys) == len(records) == result["pictures"] == 87
    height, width = upright_size(people.read(records[5]))
    truth = people.key_points(records[5])
    torch.testing.assert_close(table.of(records[5:6])[0, :, 0], truth[:, 0] / width)
    torch.testing.assert_close(table.of(records[5:6])[0, :, 1], truth[:, 1] / height)
    assert (tmp_path / "out" / "overlay.jpg").exists()
    again = estimate(settings(tree, tmp_path / "out"))
    assert again["reused"]


def test_a_killed_run_goes_on_with_what_is_missing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK", 20)
    estimate(settings(tree, tmp_path / "whole"))

    written: list[Path] = []
    stopped = False

    def dying(path: Path, table: KeyPointTable) -> None:
        if len(written) == 2 and not stopped:
            raise KeyboardInterrupt
        written.append(path)
        write_table(path, table)

    monkeypatch.setattr(stage, "write_table", dying)
    with pytest.raises(KeyboardInterrupt):
        estimate(settings(tree, tmp_path / "killed"))
    stopped = True
    estimate(settings(tree, tmp_path / "killed"))
    assert len(written) == len(set(written)) == 5 + 1  # five chunks, none of them twice, and the table
    whole, killed = read_table(tmp_path / "whole"), read_table(tmp_path / "killed")
    assert whole.keys == killed.keys
    assert torch.equal(whole.points, killed.points)


def test_workers_give_the_same_table(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK", 20)
    estimate(settings(tree, tmp_path / "whole"))
    estimate(settings(tree, tmp_path / "shared", EngineSettings(workers=2)))
    assert len(list((tmp_path / "shared/.shards/done").iterdir())) == 5
    for name in ("key_points.npz", "overlay.jpg"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()


def test_another_list_or_other_settings_are_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            estimate(settings(tree, tmp_path / "out"))
    shutil.rmtree(tree / "cam1" / "0001")
    with pytest.raises(DataError, match="other images"):
        estimate(settings(tree, tmp_path / "out"))
    other = EstimateSettings("blazepose", None, DataConfig("synthetic", str(tree)), out=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="other settings"):
        RunFolder(other.folder(), other, "pose estimate").open()


def test_boxes_are_taken_into_account(tree: Path) -> None:
    people = Synthetic(tree)
    whole = people.records("train")[0]
    box = Record(whole.path, box=(2, 4, 12, 24))
    estimator = Annotations(Annotations.Config(), people)
    images = torch.zeros(1, 3, 8, 4, dtype=torch.uint8)
    found = estimator.estimate(images, torch.tensor([[20, 10]]), [box])
    # example_layout puts point i at (i, 2 i): point 5 lies 3 of 10 columns and 6 of 20 rows inside the box
    torch.testing.assert_close(found[0, 5], torch.tensor([0.3, 0.3, 1.0]))
    assert float(found[0, 1, 2]) == 0  # (1, 2) lies outside


def test_a_folder_without_annotations_says_what_to_do(tmp_path: Path) -> None:
    Folder.write_example(tmp_path)
    with pytest.raises(UsageError, match=r"no annotations\.jsonl; take --estimator blazepose"):
        Annotations(Annotations.Config(), Folder(tmp_path))


def test_unreadable_pictures_are_listed_and_have_no_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "people"
    Synthetic.write_example(tree)
    (tree / "cam1" / "0002" / "0001.jpg").write_bytes(b"broken")
    pose_estimate.main(
        [f"synthetic={tree}", "--estimator", "annotations", "--out", str(tmp_path / "out")], "dapg pose estimate"
    )
    result = read_json(tmp_path / "out" / "result.json")
    assert list(result["unreadable"]) == ["cam1/0002/0001.jpg"]
    table = read_table(tmp_path / "out")
    row = [key[0] for key in table.keys].index("cam1/0002/0001.jpg")
    assert float(table.points[row, :, 2].max()) == 0
    assert "could not be read: 1 image, listed in" in capsys.readouterr().out
    data, out = DataConfig("synthetic", str(tree)), str(tmp_path / "new")
    strict = EstimateSettings("annotations", Annotations.Config(), data, on_bad_image="fail", out=out)
    with pytest.raises(ShardsFailed, match=r"cam1/0002/0001\.jpg"):
        estimate(strict)


def test_each_unreadable_box_of_a_file_is_listed(tmp_path: Path) -> None:
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    rows = ["path,left,top,right,bottom", "a.png,0,0,4,8", "a.png,90,0,94,8", "a.png,95,0,99,8"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    points = [[1.0, 2.0, 2]] * 18
    (tmp_path / "annotations.jsonl").write_text(json.dumps({"path": "a.png", "key_points": points}) + "\n")
    data = DataConfig("folder", str(tmp_path))
    result = estimate(EstimateSettings("annotations", Annotations.Config(), data, out=str(tmp_path / "out")))
    assert list(result["unreadable"]) == ["a.png#90,0,94,8", "a.png#95,0,99,8"]


def test_without_out_the_table_lies_beside_the_data(tmp_path: Path) -> None:
    data = DataConfig("folder", f"{tmp_path}/pictures/")
    chosen = EstimateSettings("annotations", Annotations.Config(), data)
    assert chosen.folder() == tmp_path / "pictures-key_points"


def test_size_of_a_picture_after_box_and_turning(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    data = (tmp_path / "turned.jpg").read_bytes()
    assert upright_size(data) == (30, 20)
    assert upright_size(data, (10, 5, 40, 15)) == (20, 10)


class TestBlazePose:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("ai_edge_litert")

    def test_people_from_the_front_are_found_and_tightness_is_forgiven(self) -> None:
        """On 12 visible images turned to the camera: three points in four within 0.2 torsos (0.9 measured)."""
        people = Synthetic()
        facing = [
            record
            for record in people.records("train")
            if record.camera == 1 and abs((people.truth(record)["yaw"] + 180) % 360 - 180) < 40
        ][:12]
        from dapg.core.images import decode

        kind = estimator_class("blazepose")
        network = kind(kind.Config(), None)
        images = torch.stack([decode(people.read(record), network.input_size) for record in facing])
        sizes = torch.tensor([[192, 96]] * len(facing))
        truth = Annotations(Annotations.Config(), people).estimate(images, sizes, facing)
        points = network.estimate(images, sizes)
        assert bool(usable(points).float().mean() > 0.8)
        assert float(pck(points, truth, torch.full((len(facing),), 0.5)).mean()) > 0.75

    def test_grey_pictures_show_nobody(self) -> None:
        kind = estimator_class("blazepose")
        points = kind(kind.Config(), None).estimate(
            torch.full((2, 3, 192, 96), 128, dtype=torch.uint8), torch.tensor([[192, 96]] * 2)
        )
        assert float(points[..., 2].max()) == 0

    def test_other_networks_are_refused(self, tmp_path: Path) -> None:
        from dapg.core.errors import WeightsError

        kind: Any = estimator_class("blazepose")
        (tmp_path / "x.tflite").write_bytes(b"nothing")
        with pytest.raises(WeightsError, match="not a tflite network"):
            kind(kind.Config(model=str(tmp_path / "x.tflite")), None)

    def test_without_the_package_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        kind = estimator_class("blazepose")
        with pytest.raises(DataError, match=r"pip install 'dapg\[pose\]'"):
            kind(kind.Config(), None)
