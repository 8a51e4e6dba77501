"""Images with companions: the right ones, somebody else's, true ones; and what the loader makes of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.core.errors import DataError, UsageError
from dapg.core.types import Record, Trial
from dapg.data.base import Dataset
from dapg.data.companions import WithCompanions, generated_companions, shuffled_companions, true_companions
from dapg.data.loading import LoaderConfig, ordered_batches, training_batches
from dapg.data.manifest import GeneratedImage, Manifest
from dapg.data.samplers import InfiniteSampler, LocalBatches
from dapg.data.sets.folder import Folder
from dapg.data.sets.sysu import SysuMM01
from figures import colour_at

POSES = ("front", "left")
LOADER = LoaderConfig(height=16, width=8, workers=0)


def grey(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (level, level, level)).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Folder, list[Record], Manifest]:
    """Six images of three persons, levels 0 ... 5; generated ones have 100 + 10 * number + pose."""
    rows, lines = ["path,person"], []
    for number in range(6):
        grey(tmp_path / "data" / f"{number}.png", number)
        rows.append(f"{number}.png,{'abc'[number % 3]}")
        for pose, name in enumerate(POSES):
            grey(tmp_path / "made" / f"{number}_{name}.png", 100 + 10 * number + pose)
            lines.append(GeneratedImage(f"{number}.png", None, name, f"{number}_{name}.png", 0.2 * number))
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    folder = Folder(tmp_path / "data")
    return folder, folder.records("all"), Manifest(tmp_path / "made", tuple(lines))


Companions = Mapping[tuple[str, tuple[int, int, int, int] | None], Sequence[Path]]


def levels(companions: Companions, record: Record) -> list[int]:
    return [colour_at(Image.open(path), (0, 0))[0] for path in companions[record.path, record.box]]


def test_generated_pictures_belong_to_their_source_and_must_hit_the_pose(
    pictures: tuple[Folder, list[Record], Manifest],
) -> None:
    _, records, manifest = pictures
    found = generated_companions(manifest, records, POSES, 0.0)
    assert levels(found, records[4]) == [140, 141]
    strict = generated_companions(manifest, records, ("left",), 0.5)
    assert [len(strict[r.path, r.box]) for r in records] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UsageError, match="has poses front, left, not back"):
        generated_companions(manifest, records, ("back",), 0.0)


def test_shuffled_pictures_are_all_used_and_never_the_person_s_own(
    pictures: tuple[Folder, list[Record], Manifest],
) -> None:
    _, records, manifest = pictures
    own = generated_companions(manifest, records, POSES, 0.0)
    given = shuffled_companions(own, records, seed=3)
    person_of = {number: number % 3 for number in range(6)}
    used: Counter[int] = Counter()
    for record in records:
        source = (levels(given, record)[0] - 100) // 10
        used[source] += 1
        assert person_of[source] != record.person
    assert used == Counter(range(6))
    assert shuffled_companions(own, records, 3) == given
    with pytest.raises(UsageError, match="two persons"):
        shuffled_companions(own, records[:1], 0)


def test_shuffling_unlabelled_pictures_gives_each_another_s() -> None:
    records = [Record(f"{number}.png") for number in range(5)]
    own: Companions = {(r.path, None): [Path(r.path)] for r in records}
    given = shuffled_companions(own, records, 0)
    assert sorted(str(given[r.path, None][0]) for r in records) == sorted(r.path for r in records)
    assert all(str(given[r.path, None][0]) != r.path for r in records)


def test_true_companions_are_other_pictures_of_the_person(pictures: tuple[Folder, list[Record], Manifest]) -> None:
    _, records, _ = pictures
    found = true_companions(records, 4, seed=0)
    for record in records:
        others = found[record.path, record.box]
        assert [other.person for other in others] == [record.person]
        assert record not in others
    with pytest.raises(UsageError, match="need labels"):
        true_companions([Record("a.png")], 4, 0)


def test_the_loader_hands_companions_along_and_fills_up_with_black(
    pictures: tuple[Folder, list[Record], Manifest],
) -> None:
    folder, records, manifest = pictures
    dataset = WithCompanions(folder, generated_companions(manifest, records, POSES, 0.0))
    some = dict(dataset._companions)
    some[records[1].path, None] = []
    dataset = WithCompanions(folder, some)
    batch = next(ordered_batches(dataset, records, 6, LOADER))
    assert batch.extras["companions"].shape == (6, 2, 3, 16, 8)
    assert batch.extras["companions"][4, 1].unique().tolist() == [141]
    assert batch.extras["companions_valid"].tolist() == [[True, True], [False, False], *[[True, True]] * 4]
    assert float(batch.extras["companions"][1].max()) == 0
    assert next(ordered_batches(folder, records, 6, LOADER)).extras == {}


def test_unreadable_and_missing_companions(pictures: tuple[Folder, list[Record], Manifest]) -> None:
    folder, records, manifest = pictures
    (manifest.folder / "2_left.png").write_bytes(b"damaged")
    dataset = WithCompanions(folder, generated_companions(manifest, records, POSES, 0.0))
    batches = LocalBatches(InfiniteSampler(6, 6, 0), 0, 1)
    batch = next(training_batches(dataset, records, batches, LOADER, False))
    row = batch.indices.tolist().index(2)
    assert batch.extras["companions_valid"][row].tolist() == [True, False]
    assert [bad.name.endswith("2_left.png") for bad in batch.bad_images] == [True]
    (manifest.folder / "2_left.png").unlink()
    with pytest.raises(DataError, match=r"2_left\.png: .*run dapg pose generate again"):
        dataset.companions(records[2])


def test_nothing_to_align_with_is_an_error(pictures: tuple[Folder, list[Record], Manifest]) -> None:
    folder, records, manifest = pictures
    with pytest.raises(DataError, match="not one image has another"):
        WithCompanions(folder, generated_companions(manifest, records, POSES, 1.1))


class Versioned(SysuMM01):
    """Whatever a data set can say differs from what one says by itself."""

    smallest = (9, 9)
    embedded = True
    version = "7"
    shard_numbers = [3]

    def default_split(self) -> str:
        return "test"

    def labelled_split(self) -> str:
        return "val"


def test_everything_but_companions_is_the_inner_data_set_s(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    inner = Versioned(tmp_path)
    records = inner.records("train")
    outer = WithCompanions(inner, true_companions(records, 1, seed=0))
    kept = {"companion_slots", "companions", "example_layout", "write_example", "scale_grey"}
    for name in {name for name in dir(Dataset) if not name.startswith("_")} - kept:
        value = getattr(outer, name)
        assert callable(value) or value == getattr(inner, name), name
    assert (outer.default_split(), outer.labelled_split(), outer.fitting_split("trainval")) == ("test", "val", "train")
    trials: list[Trial] = outer.trials("validation")
    assert trials == inner.trials("validation")


def test_workers_can_open_it(pictures: tuple[Folder, list[Record], Manifest]) -> None:
    import pickle

    folder, records, manifest = pictures
    dataset = WithCompanions(folder, generated_companions(manifest, records, POSES, 0.0))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.companion_slots == 2
    assert again.title == folder.title
    torch.testing.assert_close(
        next(ordered_batches(again, records, 3, LOADER)).extras["companions"],
        next(ordered_batches(dataset, records, 3, LOADER)).extras["companions"],
    )
