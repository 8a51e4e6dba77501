"""Corrupted test sets: assignments, bits that do not depend on anything around, copies that can be resumed."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from dapg import cli
from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode, open_rgb, to_pil
from dapg.core.launch import ShardsFailed
from dapg.core.types import Modality, Record
from dapg.corruptions import library
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.data.sets.folder import Folder
from dapg.data.sets.regdb import RegDB
from dapg.data.sets.synthetic import Synthetic
from dapg.data.sets.sysu import SysuMM01
from dapg.evaluation import corrupted_sets
from dapg.evaluation.corrupted_sets import (
    CLEAN,
    Assignment,
    CorruptedDataset,
    CorruptionPolicy,
    assign,
    policy,
)
from dapg.evaluation.corruption_sheets import chain_sheet, severity_sheet


@pytest.fixture
def pictures(tmp_path: Path) -> Folder:
    root = tmp_path / "set"
    generator = torch.Generator().manual_seed(0)
    rows = ["path,person,camera,modality,split"]
    for number in range(12):
        coarse = torch.rand(1, 3, 6, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(60, 40), mode="bilinear")
        path = f"cam{number % 3}/{number:03d}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        to_pil((smooth[0] * 255).to(torch.uint8)).save(root / path, quality=95)
        light = "infrared" if number % 3 == 2 else "visible"
        rows.append(f"{path},{number // 3},{number % 3},{light},test")
    (root / "labels.csv").write_text("\n".join(rows))
    return Folder(root)


def records(count: int) -> list[Record]:
    return [Record(f"cam1/{number:05d}.jpg") for number in range(count)]


def test_types_and_severities_are_uniform_and_repeats_differ() -> None:
    policy = CorruptionPolicy()
    first = [corrupted_sets.assign(policy, "set", record) for record in records(6000)]
    types = Counter(a.name for a in first)
    assert set(types) == set(library.VISIBLE_20)
    # 300 expected each, deviation 17.
    assert all(230 < count < 370 for count in types.values())
    levels = Counter(a.severity for a in first)
    assert set(levels) == {1, 2, 3, 4, 5}
    assert all(1080 < count < 1320 for count in levels.values())
    again = [corrupted_sets.assign(policy, "set", record) for record in records(6000)]
    assert first == again
    for other in (
        [corrupted_sets.assign(policy, "set", record, repeat=1) for record in records(6000)],
        [corrupted_sets.assign(policy, "other", record) for record in records(6000)],
        [corrupted_sets.assign(replace(policy, seed=1), "set", record) for record in records(6000)],
    ):
        same = sum(a.name == b.name for a, b in zip(first, other, strict=True))
        assert 200 < same < 400


def test_an_assignment_is_a_fixed_number() -> None:
    """A change here changes every corrupted test set that was ever reported."""
    assignment = corrupted_sets.assign(CorruptionPolicy(), "SYSU-MM01", Record("cam1/0001/0001.jpg"))
    assert assignment == Assignment("gaussian_blur", 5, 8717076509401544773)


def test_policies() -> None:
    infrared = Record("a.jpg", modality=Modality.INFRARED)
    assert corrupted_sets.assign(CorruptionPolicy(), "set", infrared) == CLEAN
    both = corrupted_sets.policy("mlmda-C*")
    found = {corrupted_sets.assign(both, "set", replace(infrared, path=f"{number}.jpg")).name for number in range(2000)}
    assert found == set(library.INFRARED_20)
    assert both.names(Modality.VISIBLE) == library.VISIBLE_20
    assert both.names(Modality.INFRARED) == library.INFRARED_20
    assert corrupted_sets.policy("infrared").names(Modality.VISIBLE) == ()
    seen, unseen = (set(corrupted_sets.policy(name).names(Modality.VISIBLE)) for name in ("seen", "unseen"))
    assert seen | unseen == set(library.VISIBLE_20)
    assert (len(seen), len(unseen)) == (15, 5)
    blur = corrupted_sets.policy("blur").names(Modality.VISIBLE)
    assert set(blur) == {n for n in library.IMAGENET_C if n.endswith("blur")}
    mixed = CorruptionPolicy(types=("blur", "fog", "glass_blur"), modality="both")
    assert mixed.names(Modality.INFRARED) == (*blur, "fog")
    fog = corrupted_sets.policy("fog-3")
    assert (fog.types, fog.severities) == (("fog",), (3,))
    assert corrupted_sets.policy("rain").types == ("rain",)
    with pytest.raises(UsageError, match="cil"):
        corrupted_sets.policy("cill")
    with pytest.raises(UsageError, match="severities"):
        CorruptionPolicy(severities=())
    with pytest.raises(UsageError, match="blur"):
        CorruptionPolicy(types=("blurr",))
    with pytest.raises(UsageError, match="32"):
        CorruptionPolicy(height=20)


@pytest.mark.parametrize("name", library.VISIBLE_20)
def test_bits_do_not_depend_on_threads(name: str) -> None:
    picture = (torch.rand(3, 96, 48, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    assignment = Assignment(name, 3, 123)
    once = corrupted_sets.corrupt_image(picture, assignment)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(corrupted_sets.corrupt_image(picture, assignment), once)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_loading_gives_the_same_bits_in_any_order_batch_and_process(pictures: Folder) -> None:
    policy = CorruptionPolicy(height=64, width=32)
    dataset = CorruptedDataset(pictures, policy)
    listed = dataset.records("test")

    def load(order: list[Record], batch_size: int, workers: int) -> dict[str, torch.Tensor]:
        config = LoaderConfig(height=64, width=32, workers=workers)
        batches = ordered_batches(dataset, order, batch_size, config, False)
        return {
            order[int(i)].path: image for batch in batches for i, image in zip(batch.indices, batch.images, strict=True)
        }

    one = load(listed, 5, 0)
    two = load(listed[::-1], 3, 2)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[path], two[path]) for path in one)
    clean = {
        r.path: image
        for batch in ordered_batches(pictures, listed, 12, LoaderConfig(height=64, width=32, workers=0), False)
        for r, image in zip(listed, batch.images, strict=True)
    }
    for record in listed:
        changed = not torch.equal(one[record.path], clean[record.path])
        assert changed == (record.modality == Modality.VISIBLE)


def test_only_the_asked_side_is_corrupted(pictures: Folder) -> None:
    for side in ("query", "gallery"):
        dataset = CorruptedDataset(pictures, CorruptionPolicy(side=side, modality="both", types=("contrast",)))
        trial = dataset.trials("cross-modal")[0]
        query = {dataset.assignment(record).name for record in trial.query}
        gallery = {dataset.assignment(record).name for record in trial.gallery}
        assert ("none" in query) == (side == "gallery")
        assert ("none" in gallery) == (side == "query")
        record = trial.query[0]
        if side == "gallery":
            plain = replace(record, path=record.path.removesuffix("#clean"))
            assert dataset.read(record) == pictures.read(plain)


def test_boxes_are_cut_out_before(pictures: Folder) -> None:
    boxed = Record("cam0/000.jpg", box=(5, 10, 38, 55))

    class Boxed(Folder):
        def records(self, split: str = "all") -> list[Record]:
            return [boxed]

    dataset = CorruptedDataset(Boxed(pictures.root), CorruptionPolicy(types=("none",), height=0, width=0))
    (record,) = dataset.records("all")
    assert record.box is None
    assert open_rgb(dataset.read(record), "picture").size == (33, 45)
    small = CorruptedDataset(Boxed(pictures.root), CorruptionPolicy(types=("fog",), height=0, width=0))
    assert open_rgb(small.read(record), "picture").size == (33, 45)
    rain = CorruptedDataset(Boxed(pictures.root), CorruptionPolicy(types=("rain",), height=0, width=0))
    assert open_rgb(rain.read(record), "picture").size == (48, 65), "45 rows are too few for drops of 60 pixels"
    tiny = replace(boxed, box=(0, 0, 20, 20))
    with pytest.raises(DataError, match="too few"):
        corrupted_sets.corrupt_record(pictures.read(boxed), tiny, small.policy, Assignment("fog", 1, 1))


def test_copy_is_the_data_set_again_and_can_be_resumed(
    pictures: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrupted_sets, "_SHARD", 4)
    policy = CorruptionPolicy(height=64, width=32)
    out = tmp_path / "copy"
    listed = pictures.records("all")
    whole = corrupted_sets.write_copy(pictures, listed, policy, out)
    assert (whole["pictures"], whole["written"], whole["kept"]) == (12, 12, 0)
    copy = Folder(out)
    assert [r.path for r in copy.records("all")] == [r.path for r in listed]
    live = CorruptedDataset(pictures, policy)
    for record in listed:
        images = (open_rgb(data, record.path) for data in (copy.read(record), live.read(record)))
        assert ImageChops.difference(*images).getbbox() is None
    manifest = out / "manifest-1-of-1.jsonl"
    text = manifest.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["path"] for line in lines] == sorted(record.path for record in listed)
    for line in lines:
        record = next(r for r in listed if r.path == line["path"])
        assignment = corrupted_sets.assign(policy, pictures.title, record)
        assert (line["corruption"], line["severity"]) == (assignment.name, assignment.severity)

    # Damage one image, lose one of another shard: these two shards are made again.
    good = {path: (out / path).read_bytes() for path in (line["path"] for line in lines)}
    first = good[lines[0]["path"]]
    (out / lines[0]["path"]).write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    (out / lines[5]["path"]).unlink()
    again = corrupted_sets.write_copy(pictures, listed, policy, out)
    assert (again["written"], again["kept"]) == (8, 4)
    assert all((out / path).read_bytes() == data for path, data in good.items())
    assert manifest.read_text() == text

    labels = (out / "labels.csv").read_bytes()
    (out / "labels.csv").write_bytes(labels[: len(labels) // 2])  # a stump, as full disks left them
    corrupted_sets.write_copy(pictures, listed, policy, out)
    assert (out / "labels.csv").read_bytes() == labels

    with pytest.raises(UsageError, match="seed"):
        corrupted_sets.write_copy(pictures, listed, replace(policy, seed=1), out)
    with pytest.raises(UsageError, match="itself"):
        corrupted_sets.write_copy(pictures, listed, policy, pictures.root)
    with pytest.raises(UsageError, match="not empty"):
        corrupted_sets.write_copy(pictures, listed, policy, tmp_path)


def test_an_unreadable_picture_is_copied_and_counted_or_ends_the_copy(pictures: Folder, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(pictures.root, root)
    dataset = Folder(root)
    broken = dataset.records("all")[0]
    (root / broken.path).write_bytes(b"no picture")
    policy, listed = CorruptionPolicy(("contrast",), "both", height=64, width=32), dataset.records("all")
    counted = corrupted_sets.write_copy(dataset, listed, policy, tmp_path / "copy")
    assert (counted["pictures"], counted["unreadable"], counted["corruptions"]["contrast"]) == (12, 1, 11)
    assert (tmp_path / "copy" / broken.path).read_bytes() == b"no picture", "for whoever reads the copy to count"
    for folder in ("copy", "new"):
        with pytest.raises(ShardsFailed, match=r"no image|not an image"):
            corrupted_sets.write_copy(dataset, listed, policy, tmp_path / folder, on_bad_image="fail")


def test_an_interrupted_copy_is_no_data_set(pictures: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupted_sets, "_SHARD", 4)
    policy, listed, left = CorruptionPolicy(height=64, width=32), pictures.records("all"), 5
    assign = corrupted_sets.assign

    def killed(*arguments: Any) -> Assignment:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return assign(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(corrupted_sets, "assign", killed)
        with pytest.raises(KeyboardInterrupt):
            corrupted_sets.write_copy(pictures, listed, policy, tmp_path / "killed")
    with pytest.raises(DataError, match="is not whole; run its dapg corrupt command again"):
        Folder(tmp_path / "killed")
    assert corrupted_sets.write_copy(pictures, listed, policy, tmp_path / "killed")["kept"] == 4
    corrupted_sets.write_copy(pictures, listed, policy, tmp_path / "whole")
    for name in [record.path for record in listed] + ["manifest-1-of-1.jsonl"]:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_copy_of_a_set_in_an_archive_is_a_set_again(tmp_path: Path) -> None:
    people = Synthetic()
    listed = people.records("test")[:3]
    policy = CorruptionPolicy(types=("contrast",), height=64, width=32)
    corrupted_sets.write_copy(people, listed, policy, tmp_path / "copy")
    copy = Synthetic(tmp_path / "copy")
    assert copy.persons("test") == people.persons("test")
    assert copy.records("test") == listed
    assert copy.truth(listed[0]) == people.truth(listed[0])


def test_sheets_from_the_command_line(pictures: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(pictures.root / "cam0" / "000.jpg")
    small = ["--height", "64", "--width", "32"]
    sheet, chain = tmp_path / "sheet.png", tmp_path / "new" / "chain.jpg"
    words = ["corrupt", "--sheet", picture, "--types", "[noise,rain]", "--out", str(sheet), *small]
    assert cli.main(words) == 0
    with Image.open(sheet) as drawn:
        assert drawn.size == (6 * 36 + 4, 4 * 80 + 24)
    assert cli.main(["corrupt", "--chain", picture, "--rows", "2", "--out", str(chain), *small]) == 0
    with Image.open(chain) as drawn:
        assert (drawn.size, drawn.format) == ((5 * 36 + 4, 2 * 80 + 24), "JPEG")
    capsys.readouterr()
    for more, code, message in (
        ([picture, "--out", str(tmp_path / "sheet.xyz")], 2, "no kind of image"),
        ([str(tmp_path / "lost.png")], 1, "No such file"),
        ([picture, "--types", '["fogg"]'], 2, "did you mean 'fog'"),
        ([picture, "--height", "16"], 2, "32 pixels or more"),
    ):
        assert cli.main(["corrupt", "--sheet", *more]) == code
        assert message in capsys.readouterr().err


def test_sheets_show_every_corruption(pictures: Folder) -> None:
    picture = decode(pictures.read(pictures.records("all")[0]), (64, 32))
    sheet = severity_sheet(picture, ("fog", "rain"))
    assert sheet.size == (6 * 36 + 4, 2 * 80 + 24)
    assert len(sheet.getcolors(1 << 20) or []) > 500
    chain = chain_sheet(picture, rows=2)
    assert chain.size == (5 * 36 + 4, 2 * 80 + 24)


def test_cameras_in_one_place_share_the_weather() -> None:
    """SYSU-MM01's cameras 2 (visible) and 3 (infrared) see one room; RegDB's two lenses one street."""
    records = [
        Record(f"cam{camera}/{person}.jpg", person, camera, Modality.INFRARED if camera in (3, 6) else Modality.VISIBLE)
        for camera in range(1, 7)
        for person in range(8)
    ]

    def weather(name: str, repeat: int) -> dict[int, set[tuple[str, int]]]:
        drawn: dict[int, set[tuple[str, int]]] = {}
        for record in records:
            assignment = assign(policy(f"vi-c-1.0/{name}"), "SYSU-MM01", record, repeat, SysuMM01.places)
            drawn.setdefault(record.camera, set()).add((assignment.name, assignment.severity))
        return drawn

    by_camera, by_place = weather("both-cameras", 0), weather("both-places", 0)
    assert all(len(kinds) == 1 for drawn in (by_camera, by_place) for kinds in drawn.values())
    assert by_place[2] == by_place[3]
    assert len(set(map(str, by_place.values()))) == 5
    assert by_camera[2] != by_camera[3]
    assert weather("both-places", 1) != by_place
    assert max(len(kinds) for kinds in weather("both", 0).values()) > 1
    noise = {assign(policy("vi-c-1.0/both-places"), "SYSU-MM01", record, 0, SysuMM01.places).seed for record in records}
    assert len(noise) == len(records)
    assert set(RegDB.places.values()) == {1}


def test_where_the_weather_saturates_infrared_pictures_stay_clean() -> None:
    saturated = CorruptionPolicy(types=("saturate",), modality="both", weather="place")
    visible, infrared = Record("a.png", 1, 1), Record("b.png", 1, 1, Modality.INFRARED)
    assert assign(saturated, "x", visible).name == "saturate"
    assert assign(saturated, "x", infrared) == CLEAN
