"""From records to batches: labels travel with images, and an unreadable image gives way by a fixed rule."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dapg.core.batch import BadImage, Batch
from dapg.core.errors import DataError
from dapg.core.types import Modality, Record
from dapg.data.identity_sampler import CrossModalSampler
from dapg.data.loading import LoaderConfig, ordered_batches, training_batches
from dapg.data.samplers import InfiniteSampler, LocalBatches
from dapg.data.sets.folder import Folder

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images, each of one grey; three persons in turn; every other image infrared."""
    rows = ["path,person,camera,modality"]
    for number in range(COUNT):
        Image.new("RGB", (8, 16), (number * 20,) * 3).save(tmp_path / f"{number:02d}.png")
        rows.append(f"{number:02d}.png,p{number % 3},{number % 4},{'infrared' if number % 2 else 'visible'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def config(workers: int = 0, **more: object) -> LoaderConfig:
    return LoaderConfig(height=16, width=8, workers=workers, **more)  # type: ignore[arg-type]


def one_epoch(folder: Path, loader: LoaderConfig) -> list[Batch]:
    dataset = Folder(folder)
    batches = LocalBatches(InfiniteSampler(COUNT, 4, seed=0), 0, 3)
    return list(training_batches(dataset, dataset.records(), batches, loader, pin_memory=False))


def same(first: Batch, second: Batch) -> bool:
    tensors = ("images", "persons", "cameras", "modalities", "indices")
    return first.bad_images == second.bad_images and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in tensors
    )


def test_pictures_and_labels_stay_together(folder: Path) -> None:
    batches = one_epoch(folder, config())
    order = InfiniteSampler(COUNT, 4, seed=0)
    assert len(batches) == 3
    for step, batch in enumerate(batches):
        assert batch.indices.tolist() == order.batch(step)
        assert batch.images.shape == (4, 3, 16, 8)
        assert batch.images[:, 0, 0, 0].tolist() == [20 * index for index in batch.indices.tolist()]
        assert batch.persons.tolist() == [index % 3 for index in batch.indices.tolist()]
        assert batch.cameras.tolist() == [index % 4 for index in batch.indices.tolist()]
        assert batch.modalities.tolist() == [1 + index % 2 for index in batch.indices.tolist()]
        assert batch.bad_images == ()
        assert len(batch) == 4


def test_the_reason_is_the_same_in_every_run(folder: Path) -> None:
    damage(folder, 4)
    notes = [[bad for batch in one_epoch(folder, config()) for bad in batch.bad_images] for _ in range(2)]
    assert notes[0] == notes[1]
    assert notes[0][0].reason.startswith("04.png: not an image (unknown or damaged format;")


def damage(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number:02d}.png").write_bytes(b"" if number % 2 else b"no picture")


def test_a_set_that_fits_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(folder, 4)
    seen: list[str] = []
    real = Folder.read

    def read(self: Folder, record: Record) -> bytes:
        seen.append(record.path)
        return real(self, record)

    monkeypatch.setattr(Folder, "read", read)
    dataset = Folder(folder)

    def three_epochs(memory: int) -> list[Batch]:
        seen.clear()
        batches = LocalBatches(InfiniteSampler(COUNT, 4, seed=0), 0, 9)
        loader = config(memory=memory)
        return list(training_batches(dataset, dataset.records(), batches, loader, pin_memory=False))

    kept = three_epochs(1)
    assert sorted(set(seen)) == [f"{number:02d}.png" for number in range(COUNT)]
    assert all(seen.count(name) == (3 if name == "04.png" else 1) for name in seen)  # nothing is kept of a damaged one
    fresh = three_epochs(0)
    assert len(seen) > 3 * COUNT
    assert all(same(a, b) for a, b in zip(kept, fresh, strict=True))


def test_two_workers_give_what_none_gives_with_and_without_damage(folder: Path) -> None:
    damage(folder, 3, 4)
    alone, workers = one_epoch(folder, config(0)), one_epoch(folder, config(2, memory=0))
    assert len(alone) == len(workers) == 3
    assert all(same(a, b) for a, b in zip(alone, workers, strict=True))
    assert sum(len(batch.bad_images) for batch in alone) == 2


def test_the_next_picture_of_the_same_person_and_modality_stands_in(folder: Path) -> None:
    """3 is person 0 in infrared; 4 ... 8 are others or visible, 9 is the next of its kind. Without 9: just the next."""
    damage(folder, 3)
    (note,) = [bad for batch in one_epoch(folder, config()) for bad in batch.bad_images]
    assert note == BadImage("03.png", "03.png: the file is empty", "09.png")
    damage(folder, 9)
    notes = [bad for batch in one_epoch(folder, config()) for bad in batch.bad_images]
    stands_in = {"03.png": "04.png", "09.png": "10.png"}
    assert {note.name for note in notes} == {"03.png", "09.png"}
    for batch in one_epoch(folder, config()):
        assert all(bad.replacement in stands_in.values() for bad in batch.bad_images)
        assert {3, 9}.isdisjoint(batch.indices.tolist())
        assert batch.images[:, 0, 0, 0].tolist() == [20 * index for index in batch.indices.tolist()]
        assert batch.persons.tolist() == [index % 3 for index in batch.indices.tolist()], "labels of the stand-in"


def test_nobody_else_stands_in_where_a_batch_is_made_of_persons(tmp_path: Path) -> None:
    """Person a's second image lies far behind; between come b, seen in one light only, and c."""
    rows = ["a0,a,1", "b0,b,1", *(f"c{n},c,1" for n in range(120)), "a1,a,1", "a2,a,2", "c200,c,2"]
    records = []
    for row in rows:
        name, person, modality = row.split(",")
        Image.new("RGB", (8, 16)).save(tmp_path / f"{name}.png")
        records.append(Record(f"{name}.png", ord(person), 1, Modality(int(modality))))
    (tmp_path / "a0.png").write_bytes(b"")
    batches = LocalBatches(CrossModalSampler(records, persons=2, images=2, seed=0), 0, 4)

    def read() -> list[Batch]:
        return list(training_batches(Folder(tmp_path), records, batches, config(), pin_memory=False))

    for batch in read():
        assert sorted(batch.persons.tolist()) == 4 * [ord("a")] + 4 * [ord("c")]
        assert {bad.replacement for bad in batch.bad_images} <= {"a1.png"}
    (tmp_path / "a1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"person 97 has no visible image that can be read \(a[01]\.png, a[01]\.png\)"):
        read()


def test_a_missing_file_counts_as_unreadable(folder: Path) -> None:
    dataset = Folder(folder)
    (folder / "05.png").unlink()
    batches = LocalBatches(InfiniteSampler(COUNT, 4, seed=0), 0, 3)
    notes = [
        bad
        for batch in training_batches(dataset, dataset.records(), batches, config(), pin_memory=False)
        for bad in batch.bad_images
    ]
    assert [(note.name, note.replacement) for note in notes] == [("05.png", "11.png")]
    assert "No such file" in notes[0].reason


@pytest.mark.parametrize("workers", [0, 2])
def test_fail_stops_and_names_the_picture_without_a_worker_s_traceback(folder: Path, workers: int) -> None:
    damage(folder, 3)
    with pytest.raises(DataError) as caught:
        one_epoch(folder, config(workers, on_bad_image="fail"))
    assert str(caught.value) == "03.png: the file is empty"
    assert not multiprocessing.active_children(), "workers end with the error, not when memory is next tidied"


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_damage_ends_with_the_first_names(folder: Path, workers: int) -> None:
    damage(folder, *range(COUNT))
    with pytest.raises(DataError, match=r"12 images in a row cannot be read \(\d\d\.png, .*; first: \d\d\.png: "):
        one_epoch(folder, config(workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_test_pictures_come_in_order_and_never_give_way(folder: Path, workers: int) -> None:
    dataset = Folder(folder)
    batches = list(ordered_batches(dataset, dataset.records(), 5, config(workers)))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    damage(folder, 7)
    with pytest.raises(DataError, match=r"^07\.png: the file is empty$"):
        list(ordered_batches(dataset, dataset.records(), 5, config(workers)))


def test_a_box_is_cut_before_resizing(tmp_path: Path) -> None:
    halves = np.zeros((16, 8, 3), np.uint8)
    halves[:, 4:] = 200
    Image.fromarray(halves).save(tmp_path / "a.png")
    dataset = Folder(tmp_path)
    records = [Record("a.png", box=(4, 0, 8, 16)), Record("a.png", modality=Modality.INFRARED, box=(0, 0, 4, 16))]
    (batch,) = ordered_batches(dataset, records, 2, config())
    assert batch.images[0].unique().tolist() == [200]
    assert batch.images[1].unique().tolist() == [0]


def test_each_unreadable_box_of_a_file_is_listed(tmp_path: Path) -> None:
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    boxes = [(0, 0, 4, 8), (90, 0, 94, 8), (95, 0, 99, 8)]
    records = [Record("a.png", box=box) for box in boxes]
    (batch,) = ordered_batches(Folder(tmp_path), records, 3, config(), skip=True)
    said = {note.name: note.reason for note in batch.bad_images}
    assert said == {
        f"a.png#{box}": f"a.png#{box}: box ({box.replace(',', ', ')}) has no area inside an image of 8 x 16"
        for box in ("90,0,94,8", "95,0,99,8")
    }


def test_resuming_in_mid_epoch_gives_the_same_batches(folder: Path) -> None:
    damage(folder, 3)
    dataset = Folder(folder)
    sampler = InfiniteSampler(COUNT, 4, seed=0)
    rest = LocalBatches(sampler, 1, 3)
    resumed = list(training_batches(dataset, dataset.records(), rest, config(), pin_memory=False))
    assert all(same(a, b) for a, b in zip(one_epoch(folder, config())[1:], resumed, strict=True))
