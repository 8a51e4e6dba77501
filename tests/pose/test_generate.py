"""Generated images: deterministic, resumable, by several workers; what cannot be used is passed on untouched."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dapg.augment.carry import carry
from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses, draw_skeletons
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError, UsageError, WeightsError
from dapg.core.images import decode
from dapg.core.rng import generator_from
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record
from dapg.data.manifest import read_manifest
from dapg.data.sets.folder import Folder
from dapg.data.sets.synthetic import Synthetic
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.models.weights.pose_weights import GeneratorFacts, load_generator, save_generator
from dapg.pose.generate import (
    GenerateSettings,
    chosen_poses,
    file_of,
    generate,
    names_of,
)
from dapg.pose.key_point_table import TABLE, KeyPointTable, write_table
from dapg.pose.pairs import exact_points

POSES = ("front", "left", "back", "right")


@pytest.fixture
def few_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two persons' pictures of each split, of all cameras."""
    persons = Synthetic.persons
    monkeypatch.setattr(Synthetic, "persons", lambda self, split: persons(self, split)[:2])


@pytest.fixture
def generator_file(tmp_path: Path) -> Path:
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("test generator"))
    facts = GeneratorFacts(64, 32, "self", {"data": {"name": "nothing"}})
    save_generator(network, tmp_path / "generator.safetensors", facts)
    return tmp_path / "generator.safetensors"


def run(out: Path, generator: Path, **changes: Any) -> dict[str, object]:
    """The validation split's first images: visible and infrared ones."""
    settings = GenerateSettings(str(out), split="val", generator=str(generator), subset=9, batch_size=4, device="cpu")
    return generate(DataConfig(), replace(settings, **changes))


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".shards/")}


def test_pictures_and_manifest(generator_file: Path, tmp_path: Path) -> None:
    counts = run(tmp_path / "out", generator_file)
    manifest = read_manifest(tmp_path / "out")
    sources = Synthetic().records("val")
    files = manifest.by_source()
    assert counts["pictures"] == 9
    assert len(files) == 9
    for record in sources:
        if (record.path, record.box) not in files:
            continue
        made = files[record.path, record.box]
        if record.modality == Modality.INFRARED:
            assert made == {}
            continue
        assert tuple(made) == POSES
        for file in made.values():
            with Image.open(file) as picture:
                assert picture.size == (32, 64)
    infrared = [path for path, made in files.items() if not made]
    assert counts["passed on unchanged"] == len(infrared) > 0
    reasons = [json.loads(line) for line in (tmp_path / "out" / "unchanged.jsonl").read_text().splitlines()]
    assert {path for path, _, _ in reasons} == {path for path, _ in infrared}
    assert {reason for _, _, reason in reasons} == {"infrared"}
    assert manifest.about["pairs"] == "self"
    assert manifest.about["saw_identities"] is False


def test_again_and_interrupted_give_the_same_bytes(generator_file: Path, tmp_path: Path) -> None:
    run(tmp_path / "a", generator_file)
    run(tmp_path / "b", generator_file)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    lost = sorted(name for name in contents(tmp_path / "b") if name.endswith("_to_back.png"))[:3]
    for name in [*lost, "manifest.csv"]:
        (tmp_path / "b" / name).unlink()
    assert run(tmp_path / "b", generator_file)["done before"] == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert run(tmp_path / "b", generator_file)["done before"] == 9


@pytest.mark.slow
def test_workers_make_the_same(generator_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapg.pose.generate._SHARD", 2)
    run(tmp_path / "one", generator_file)
    run(tmp_path / "two", generator_file, engine=EngineSettings(workers=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_folder_made_otherwise_is_refused(generator_file: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", generator_file)
    with pytest.raises(UsageError, match="another 'poses'"):
        run(tmp_path / "out", generator_file, poses="front")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        run(tmp_path / "mine", generator_file)


@pytest.mark.usefixtures("few_persons")
def test_a_picture_without_key_points_goes_on_unchanged(generator_file: Path, tmp_path: Path) -> None:
    people = Synthetic()
    records = people.records("val")
    points = exact_points(people, records)
    points[:5, :, 2] = 0
    write_table(tmp_path / "key_points.npz", KeyPointTable(tuple((r.path, r.box) for r in records), points))
    run(tmp_path / "out", generator_file, key_points=str(tmp_path / "key_points.npz"), subset=0, poses="front")
    made = read_manifest(tmp_path / "out").of(records)
    assert [bool(files) for files in made[:6]] == [False] * 5 + [True]
    reasons = (tmp_path / "out" / "unchanged.jsonl").read_text()
    assert reasons.count("no usable key points") == 5


def test_without_an_embedded_generator_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapg.models.weights.pose_weights.EMBEDDED", tmp_path / "nothing.safetensors")
    with pytest.raises(UsageError, match="dapg pose train --preset tiny"):
        load_generator("embedded")


def test_names_of_files_and_poses() -> None:
    def files(*records: Record) -> list[str]:
        return [file_of(name, "back") for name in names_of(records)]

    boxes = [Record("street.jpg", box=(1, 2, 30, 40)), Record("street.jpg", box=(5, 2, 30, 40))]
    assert files(Record("cam1/0001/0002.jpg")) == ["pictures/cam1/0001/0002_to_back.png"]
    assert files(*boxes) == ["pictures/street_1-2-30-40_to_back.png", "pictures/street_5-2-30-40_to_back.png"]
    assert files(Record("a/b")) == ["pictures/a/b_to_back.png"]
    assert tuple(chosen_poses("canonical")) == POSES
    assert tuple(chosen_poses("back, front")) == ("back", "front")
    with pytest.raises(UsageError, match="did you mean 'front'"):
        chosen_poses("frontt")


def test_no_two_sources_have_one_file() -> None:
    """Images of one array, and images that only their suffixes tell apart; the first two lines name the same image."""
    paths = ["a.npy#0", "a.npy#0", "a.npy#1", "b/x.jpg", "b/x.png", "c/x.jpg"]
    assert names_of([Record(path) for path in paths]) == [*paths[:5], "c/x"]
    with pytest.raises(UsageError, match=r"generated from x\.jpg and x\.jpg\.png would both be called"):
        names_of([Record("x.jpg"), Record("x.png"), Record("x.jpg.png")])


def test_a_box_outside_its_image_is_passed_on_alone(generator_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (32, 64)).save(folder / "a.png")
    rows = ["path,left,top,right,bottom", "a.png,0,0,32,64", "a.png,90,0,94,8", "a.png,0,0,16,64"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    data = DataConfig("folder", str(folder))
    keys = tuple((record.path, record.box) for record in Folder(folder).records())
    points = canonical_poses()["front"].expand(3, 18, 3)
    write_table(folder / TABLE, KeyPointTable(keys, points))
    generate(data, GenerateSettings(str(tmp_path / "out"), poses="back", generator=str(generator_file), device="cpu"))
    files = read_manifest(tmp_path / "out").by_source()
    assert [list(files[key]) for key in keys] == [["back"], [], ["back"]]
    assert all(file.is_file() for made in files.values() for file in made.values())


def test_repose_is_the_generator_pose_by_pose() -> None:
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("g")).eval()
    pictures = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8, generator=generator_from("p"))
    points = torch.stack(list(chosen_poses("front,back").values()))
    both = repose(network, pictures, points)
    assert both.shape == (3, 2, 3, 64, 32)
    for number in range(2):
        alone = repose(network, pictures, points[number : number + 1])[:, 0]
        assert int((alone.int() - both[:, number].int()).abs().max()) <= 1  # batch sizes round differently


@pytest.mark.usefixtures("few_persons")
def test_parts_are_carried_by_the_sources_own_key_points(tmp_path: Path) -> None:
    """A generator that heeds them is given the source's; one that does not paints the same with and without."""
    people = Synthetic()
    record = next(record for record in people.records("val") if record.modality == Modality.VISIBLE)
    source = decode(people.read(record), (64, 32), None, record.path)[None]
    own, front = exact_points(people, [record]), canonical_poses()["front"][None]
    carrying = build_generator(GeneratorConfig("attention", 8, 1, carry=True), generator_from("g")).eval()
    signed = source / 127.5 - 1
    expected = carrying(signed, 2 * draw_skeletons(front, (64, 32)) - 1, carry(signed, own, front))
    made = repose(carrying, source, front, own)[:, 0]
    assert torch.equal(made, ((expected.detach() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    assert (made.int() - repose(carrying, source, front)[:, 0].int()).abs().max() > 20
    painting = build_generator(GeneratorConfig("attention", 8, 1), generator_from("g")).eval()
    assert torch.equal(repose(painting, source, front, own), repose(painting, source, front))

    save_generator(carrying, tmp_path / "g.safetensors", GeneratorFacts(64, 32, "self", {}))
    run(tmp_path / "out", tmp_path / "g.safetensors", subset=0, poses="front")
    with Image.open(tmp_path / "out" / file_of(names_of([record])[0], "front")) as image:
        stored = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert (stored.int() - made[0].int()).abs().max() <= 1  # batch sizes round differently


def test_half_precision_files_and_broken_ones(tmp_path: Path) -> None:
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("g"))
    facts = GeneratorFacts(64, 32, "labels", {"steps": 3})
    for half, name in ((False, "whole"), (True, "half")):
        save_generator(network, tmp_path / name, facts, half)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "whole").stat().st_size
    loaded, said = load_generator(tmp_path / "half")
    assert said.saw_identities
    assert said.training == {"steps": 3}
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    data = (tmp_path / "half").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_generator(tmp_path / "cut")
    with pytest.raises(UsageError, match="no generator at"):
        load_generator(tmp_path / "nothing")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(WeightsError, match="not the file of a pose generator"):
        load_generator(tmp_path / "foreign")
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    save_generator(network, tmp_path / "nan", facts)
    with pytest.raises(WeightsError, match="not finite"):
        load_generator(tmp_path / "nan")


def test_the_embedded_generator_keeps_the_clothes_and_turns_the_person() -> None:
    """The torso's mean colour is nearest to the own source's for a third of 24 strangers (chance: one in 24)."""
    generator, facts = load_generator("embedded")
    assert (facts.height, facts.width, facts.supervision) == (128, 64, "synthetic")
    people = Synthetic()
    records = [r for r in people.records("test") if r.camera == 1 and r.path.endswith("0001.webp")][:24]
    sources = torch.stack([decode(people.read(record), (128, 64), None, record.path) for record in records])
    poses = torch.stack([canonical_poses()[name] for name in ("front", "left")])
    made = repose(generator, sources, poses)

    def torso(picture: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        corners = points[[2, 5, 8, 11], :2] * torch.tensor([64.0, 128.0])  # shoulders and hips
        (left, top), (right, bottom) = corners.amin(dim=0).int().tolist(), corners.amax(dim=0).int().tolist()
        return picture[:, max(top, 0) : bottom + 1, max(left, 0) : max(right, left + 4)].float().mean(dim=(1, 2))

    before = torch.stack([torso(*each) for each in zip(sources, exact_points(people, records), strict=True)])
    after = torch.stack([torso(picture, poses[0]) for picture in made[:, 0]])
    own = torch.cdist(after, before).argmin(dim=1) == torch.arange(24)
    assert own.float().mean() >= 1 / 3
    assert (made[:, 0].float() - made[:, 1].float()).abs().mean() > 3, "another pose is another image"


def test_what_is_refused_before_it_begins_does_not_take_the_folder(generator_file: Path, tmp_path: Path) -> None:
    with pytest.raises((UsageError, DataError)):
        run(tmp_path / "out", generator_file, key_points=str(tmp_path / "nothing.npz"))
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", generator_file)["pictures"] == 9
