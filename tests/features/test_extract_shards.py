"""Features in shards are those of one pass, row by row, whoever does the work."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError
from dapg.core.launch import ShardsFailed
from dapg.core.runtime import Runtime
from dapg.core.train_config import DataConfig
from dapg.core.types import Protocol, Trial
from dapg.data.sets.folder import Folder
from dapg.data.sets.synthetic import Synthetic
from dapg.features import extract_shards as sharded
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import Unreadable, extract, left_out, readable_trials
from dapg.features.extract_shards import ExtractSettings, extract_features
from figures import make_figures


def settings(out: Path, data: DataConfig, workers: int = 1) -> ExtractSettings:
    engine = EngineSettings(workers=workers)
    return ExtractSettings("histogram", height=64, width=32, data=data, batch_size=4, engine=engine, out=str(out))


def test_the_array_is_that_of_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "_SHARD", 8)
    data = DataConfig("synthetic", split="val", subset=20)
    result = extract_features(settings(tmp_path / "a", data))
    lines = list(csv.DictReader((tmp_path / "a" / "images.csv").open()))
    by_path = {record.path: record for record in Synthetic().records("val")}
    records = [by_path[line["path"]] for line in lines]
    whole = extract(build_encoder("histogram", None, (64, 32), 0, torch.device("cpu")), Synthetic(), records, Runtime())
    array = np.load(tmp_path / "a" / "features.npy", mmap_mode="r")
    assert (array.shape, result["dimension"], array.dtype) == ((20, array.shape[1]), array.shape[1], np.float32)
    assert np.array_equal(array, whole["histogram"].numpy())
    assert [(int(line["person"]), int(line["camera"]), line["modality"]) for line in lines] == [
        (record.person, record.camera, record.modality.name.lower()) for record in records
    ]
    monkeypatch.setattr(sharded, "extract", lambda *arguments: pytest.fail("encoded again"))
    assert extract_features(settings(tmp_path / "a", data))["reused"]
    with pytest.raises(UsageError, match="other settings"):
        extract_features(settings(tmp_path / "a", DataConfig("synthetic", split="test", subset=20)))


def test_workers_change_no_byte(tmp_path: Path) -> None:
    make_figures(tmp_path / "figures", persons=2)
    data = DataConfig("folder", str(tmp_path / "figures"), "all")
    for name, workers in (("alone", 1), ("together", 2)):
        extract_features(settings(tmp_path / name, data, workers))
    for name in ("features.npy", "images.csv", "result.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes()


def test_unreadable_images_are_rows_of_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged image beside readable ones, and a shard of nothing but damaged ones."""
    monkeypatch.setattr(sharded, "_SHARD", 2)
    folder = tmp_path / "pictures"
    make_figures(tmp_path / "figures", persons=1)
    folder.mkdir()
    good = (tmp_path / "figures" / "camera1" / "000_0.png").read_bytes()
    for name, content in (("a", good), ("b", b"no picture"), ("c", b"none"), ("d", good[:40])):
        (folder / f"{name}.png").write_bytes(content)
    data = DataConfig("folder", str(folder))
    result = extract_features(settings(tmp_path / "out", data))
    assert np.isnan(np.load(tmp_path / "out" / "features.npy")).all(axis=1).tolist() == [False, True, True, True]
    assert sorted(result["unreadable"]) == ["b.png", "c.png", "d.png"]
    with pytest.raises(ShardsFailed, match=r"b\.png|c\.png"):
        extract_features(replace(settings(tmp_path / "strict", data), on_bad_image="fail"))
    (folder / "e.png").write_bytes(good)
    with pytest.raises(DataError, match=r"made from other images or weights .*images: 4 there, 5 now"):
        extract_features(settings(tmp_path / "out", data))
    for name in ("a", "e"):
        (folder / f"{name}.png").unlink()
    with pytest.raises(DataError, match="none of 3 images can be read"):
        extract_features(settings(tmp_path / "nothing", data))


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_figures(tmp_path / "figures", persons=1)
    words = ("--data", tmp_path / "figures", "--data.split", "all", "--out", tmp_path / "out", "--device", "cpu")
    code, out, err = run(capsys, "extract", "agw-imagenet-small", *words)
    assert (code, "done: 6 images" in out) == (0, True), err
    assert "already finished, reused" in run(capsys, "extract", "agw-imagenet-small", *words)[1]
    code, _, err = run(capsys, "extract", "histogram", *words[:-3], tmp_path / "other", "--feature", "no")
    assert (code, "there is no feature 'no'" in err) == (2, True)


def test_a_box_outside_its_image_costs_no_other_person_of_the_frame(tmp_path: Path) -> None:
    figure = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(figure).save(tmp_path / "frame.png")
    rows = ["frame.png,x,0,0,32,64", "frame.png,y,100,0,104,8", "frame.png,x,0,0,16,64"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,person,left,top,right,bottom", *rows]) + "\n")
    data = DataConfig("folder", str(tmp_path))
    result = extract_features(settings(tmp_path / "out", data))
    assert np.isnan(np.load(tmp_path / "out" / "features.npy")).all(axis=1).tolist() == [False, True, False]
    assert list(result["unreadable"]) == ["frame.png#100,0,104,8"]
    dataset = Folder(tmp_path)
    records, unreadable = dataset.records(), Unreadable()
    encoder = build_encoder("histogram", None, (64, 32), 0, torch.device("cpu"))
    assert extract(encoder, dataset, records, Runtime(), unreadable).records == [records[0], records[2]]
    assert left_out(unreadable, "")[0].startswith("1 unreadable image left out; first frame.png#100,0,104,8: box")
    trial = Trial("trial 1", "all", (records[0],), tuple(records), Protocol("all"))
    (rest,) = readable_trials([trial], unreadable)
    assert (rest.query, rest.gallery, rest.comparable) == ((records[0],), (records[0], records[2]), False)
