"""Shards: the packed set is the set, bytes and trials; order is even, resumable and split; foreign tars are read."""

import io
import itertools
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapg.core.errors import DataError, UsageError
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record
from dapg.data.base import example_image
from dapg.data.samplers import LocalBatches, Sampler
from dapg.data.sets.folder import Folder
from dapg.data.sets.market1501 import Market1501
from dapg.data.sets.regdb import RegDB
from dapg.data.sets.shards import Shards
from dapg.data.sets.synthetic import Synthetic
from dapg.data.sets.sysu import SysuMM01
from dapg.data.shards.pack import pack, write_tars
from dapg.data.shards.shard_sampler import ShardSampler
from dapg.data.shards.tar_store import write_index
from dapg.data.source import select_records


@pytest.mark.parametrize("kind", [SysuMM01, RegDB, Market1501, Folder])
def test_a_packed_set_is_the_set(tmp_path: Path, kind: Any) -> None:
    kind.write_example(tmp_path / "raw")
    original = kind(tmp_path / "raw")
    pack(original, tmp_path / "packed", per_shard=7)
    packed = Shards(tmp_path / "packed")
    assert packed.title == original.title
    assert packed.splits[0] == original.default_split()
    for split in packed.splits:
        assert packed.records(split) == original.records(split)
        for record in packed.records(split):
            assert packed.read(record) == original.read(record)
    assert packed.modes
    for mode in original.modes:
        try:
            trials = original.trials(mode)
        except UsageError:
            assert mode not in packed.modes
        else:
            assert packed.trials(mode) == trials


@pytest.mark.parametrize("kind", [SysuMM01, RegDB, Market1501, Folder, Synthetic])
def test_a_packed_set_chooses_and_refuses_as_the_set_does(tmp_path: Path, kind: Any) -> None:
    """No test image is trained on unasked, nobody of validation is fitted, near is not taken for thermal."""

    def answers(dataset: Any) -> dict[str, Any]:
        split = dataset.labelled_split()
        try:
            fitting = dataset.fitting_split(split)
        except UsageError as error:
            fitting = str(error)
        trained = select_records(dataset, DataConfig(), 0)
        return {
            "trained": list(trained),
            "splits": (dataset.default_split(), split, fitting),
            "light": (dataset.infrared, dict(dataset.places)),
            "version": dataset.version,
        }

    kind.write_example(tmp_path / "raw")
    original = kind(tmp_path / "raw")
    pack(original, tmp_path / "packed")
    assert answers(Shards(tmp_path / "packed")) == answers(original)


def test_an_index_of_earlier_versions_is_read(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path / "raw")
    pack(SysuMM01(tmp_path / "raw"), tmp_path / "packed")
    with np.load(tmp_path / "packed/index.npz") as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    for later in ("labelled", "fitting", "data_version"):
        del meta[later]
    np.savez(tmp_path / "packed/index.npz", **{**arrays, "meta": np.array(json.dumps(meta))})
    packed = Shards(tmp_path / "packed")
    assert (packed.labelled_split(), packed.fitting_split("trainval")) == ("trainval", "trainval")
    assert (packed.infrared, packed.version) == ("near", None)


def test_a_fitting_part_that_was_not_packed_is_missed(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path / "raw")
    pack(SysuMM01(tmp_path / "raw"), tmp_path / "packed", ["val", "trainval"])
    packed = Shards(tmp_path / "packed")
    assert packed.splits == ("trainval", "val")
    with pytest.raises(UsageError, match="has no split 'train'"):
        packed.records(packed.fitting_split("trainval"))


def test_only_what_was_asked_for_is_packed(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path / "raw")
    original = SysuMM01(tmp_path / "raw")
    counts = pack(original, tmp_path / "packed", ["train"], per_shard=10)
    packed = Shards(tmp_path / "packed")
    assert (packed.splits, packed.modes) == (("train",), ())
    assert counts["pictures"] == len(original.records("train"))
    assert counts["tars"] == len(list((tmp_path / "packed").glob("*.tar"))) == 4
    with pytest.raises(UsageError, match="has no split 'val'"):
        packed.records("val")
    with pytest.raises(UsageError, match="other images or settings"):
        pack(original, tmp_path / "packed")


def test_boxes_share_one_picture(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.png").write_bytes(example_image("a.png"))
    (tmp_path / "raw/labels.csv").write_text("path,left,top,right,bottom\na.png,0,0,4,8\na.png,2,2,8,16\n")
    pack(Folder(tmp_path / "raw"), tmp_path / "packed")
    packed = Shards(tmp_path / "packed")
    assert [record.box for record in packed.records("all")] == [(0, 0, 4, 8), (2, 2, 8, 16)]
    with tarfile.open(tmp_path / "packed/shard-000000.tar") as archive:
        assert archive.getnames() == ["000000000.png", "000000000.json"]


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path / "raw")
    for name in ("one", "two"):
        pack(RegDB(tmp_path / "raw"), tmp_path / name, ["train-1"], per_shard=9)
    for path in (tmp_path / "one").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_webdataset_reads_the_tars(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    Shards.write_example(tmp_path)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["png"] for sample in samples] == [example_image(name) for name in Shards.example_layout()]


def test_tars_of_other_programs_are_indexed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        long_name = "x" * 150 + "/b.v2.png"  # longer than a plain header holds
        for name, data in (("a.png", b""), (long_name, b""), ("a.cls", b"3"), ("notes.txt", b"hello")):
            data = data or example_image(name)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    dataset = Shards(tmp_path)
    assert [record.path for record in dataset.records()] == ["a.png", long_name]
    assert [dataset.read(record) for record in dataset.records()] == [
        example_image("a.png"),
        example_image(long_name),
    ]
    assert (tmp_path / "index.npz").is_file()


def test_damage_is_named(tmp_path: Path) -> None:
    Shards.write_example(tmp_path)
    tar = tmp_path / "shard-000001.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:-512])
    with pytest.raises(DataError, match=r"shard-000001\.tar has .* pack it again"):
        Shards(tmp_path)
    tar.unlink()
    with pytest.raises(DataError, match=r"expected shard-000001\.tar"):
        Shards(tmp_path)
    tar.write_bytes(content)
    with pytest.raises(DataError, match="is not in the tars"):
        Shards(tmp_path).read(Record("c/1.png"))
    (tmp_path / "index.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="delete it to make it anew"):
        Shards(tmp_path)


def test_a_record_without_picture_is_refused(tmp_path: Path) -> None:
    write_tars(tmp_path, ["a.png"], example_image, per_shard=1)
    with pytest.raises(DataError, match=r"first b\.png"):
        write_index(tmp_path, {"all": [Record("b.png")]}, {}, "x")


def test_a_read_store_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    Shards.write_example(tmp_path)
    dataset = Shards(tmp_path)
    record = dataset.records()[3]
    expected = dataset.read(record)  # opens a file, whose number must not travel
    assert pickle.loads(pickle.dumps(dataset)).read(record) == expected


def sampler(batch: int = 8, seed: int = 0, window: int = 3) -> ShardSampler:
    return ShardSampler(np.repeat(np.arange(10), 13).tolist(), batch, seed, window)


def test_stream_uses_every_record_once_per_epoch() -> None:
    assert isinstance(sampler(), Sampler)
    stream = list(itertools.chain.from_iterable(sampler(batch=10).batch(step) for step in range(26)))
    assert set(Counter(stream[:130]).values()) == {1}
    assert set(Counter(stream[130:]).values()) == {1}
    assert stream[:130] != stream[130:]


def test_no_picture_is_twice_in_a_batch() -> None:
    """13 x 10 images make 16 batches of 8; two images sit each epoch out."""
    assert all(len(set(sampler().batch(step))) == 8 for step in range(50))
    assert max(Counter(itertools.chain.from_iterable(sampler().batch(step) for step in range(16))).values()) == 1


def test_stream_stays_within_a_few_tars() -> None:
    first = [number // 13 for step in range(3) for number in sampler(batch=13).batch(step)]
    assert len(set(first)) == 3
    assert first != sorted(first)


def test_stream_resumes_by_number_and_splits_over_processes() -> None:
    walked = [sampler().batch(step) for step in range(40)]
    assert sampler().batch(37) == walked[37]
    backwards = sampler()
    assert [backwards.batch(step) for step in (39, 5, 22)] == [walked[39], walked[5], walked[22]]
    parts = [next(iter(LocalBatches(sampler(), 11, 12, rank, 2))) for rank in (0, 1)]
    assert parts[0] + parts[1] == walked[11]
    assert sampler(seed=1).batch(0) != walked[0]


def test_stream_of_uneven_tars() -> None:
    numbers = torch.randint(0, 6, (101,), generator=torch.Generator().manual_seed(0)).tolist()
    uneven = ShardSampler(numbers, 101, 0, 2)
    assert sorted(uneven.batch(5)) == list(range(101))
    with pytest.raises(UsageError, match="too few"):
        ShardSampler(numbers, 102, 0)


def test_stream_over_a_packed_set(tmp_path: Path) -> None:
    RegDB.write_example(tmp_path / "raw")
    pack(RegDB(tmp_path / "raw"), tmp_path / "packed", ["all"], per_shard=6)
    dataset = Shards(tmp_path / "packed")
    records = dataset.records("all")
    for number in ShardSampler(dataset.shard_numbers, 5, 0).batch(2):
        assert dataset.read(records[number])[:2] == b"BM"
    assert {record.modality for record in records} == set(Modality)


class PartOf(Folder):
    """Images that can be read only so many times, as if the process were killed then."""

    left = 5

    def read(self, record: Record) -> bytes:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().read(record)


def test_killed_packing_is_no_data_set_and_goes_on(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / f"pictures/{number}.png").write_bytes(example_image(f"{number}.png"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pack(Folder(tmp_path / "pictures"), whole, per_shard=2)
    with pytest.raises(KeyboardInterrupt):
        pack(PartOf(tmp_path / "pictures"), killed, per_shard=2)
    assert sorted(path.name for path in killed.glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]
    with pytest.raises(DataError, match="interrupted; run its dapg data shard command again"):
        Shards(killed)
    with pytest.raises(UsageError, match="other images or settings"):
        pack(Folder(tmp_path / "pictures"), killed, per_shard=3)
    rest = PartOf(tmp_path / "pictures")
    rest.left = 4  # what is packed is not read again
    pack(rest, killed, per_shard=2)
    assert {path.name: path.read_bytes() for path in killed.iterdir() if path.suffix == ".tar"} == {
        path.name: path.read_bytes() for path in whole.iterdir() if path.suffix == ".tar"
    }
    assert Shards(killed).records() == Shards(whole).records()
    index = (killed / "index.npz").stat().st_mtime_ns
    assert pack(Folder(tmp_path / "pictures"), killed, per_shard=2)["tars"] == 4, "the same again finds nothing to do"
    assert (killed / "index.npz").stat().st_mtime_ns == index
    with pytest.raises(UsageError, match="other images or settings"):
        pack(Folder(tmp_path / "pictures"), whole, per_shard=3)


def hostile_tar(file: Path, *names: str) -> None:
    with tarfile.open(file, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(example_image("a.png"))
            archive.addfile(member, io.BytesIO(example_image("a.png")))


def test_names_in_tars_and_indexes_cannot_lead_out(tmp_path: Path) -> None:
    for number, name in enumerate(("../../x.png", "/etc/x.png")):
        root = tmp_path / str(number)
        root.mkdir()
        hostile_tar(root / "a.tar", name)
        with pytest.raises(DataError, match="data set's folder"):
            Shards(root).records()
    root = tmp_path / "macos"
    root.mkdir()
    hostile_tar(root / "a.tar", "./._a.png", "./a.png", "__MACOSX/._a.png")
    assert [record.path for record in Shards(root).records()] == ["a.png"]
    with np.load(root / "index.npz") as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    meta["tars"] = ["../macos/a.tar"]
    np.savez(root / "index.npz", **{**arrays, "meta": np.array(json.dumps(meta))})
    with pytest.raises(DataError, match="outside its folder"):
        Shards(root)
