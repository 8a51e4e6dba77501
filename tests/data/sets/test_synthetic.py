"""The embedded people: counts, splits, trials by SYSU-MM01's rules, key points, archives in worker processes."""

import io
import json
import multiprocessing
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.core.types import Modality, Record
from dapg.data.sets.synthetic import EMBEDDED, HIDDEN, VERSIONS, Synthetic
from dapg.data.sets.sysu import SysuMM01
from dapg.synth.wardrobe import Person, draw_person


@pytest.fixture(scope="module")
def people() -> Synthetic:
    return Synthetic()


def _picture(colour: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 24), (colour, 40, 10)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, text in Synthetic.example_layout().items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            target.write_bytes(_picture())
        else:
            target.write_text(text)
    return tmp_path


def test_embedded_set_is_small_and_complete(people: Synthetic) -> None:
    assert EMBEDDED.stat().st_size <= 14_000_000
    assert people.version == list(VERSIONS.values())[-1]
    counts = {split: len(people.persons(split)) for split in ("train", "val", "test")}
    assert counts == {"train": 200, "val": 50, "test": 200}
    for split, persons in counts.items():
        records = people.records(split)
        assert len(records) == len(set(records)) == persons * 12
        infrared = [record for record in records if record.modality == Modality.INFRARED]
        assert {record.camera for record in infrared} == {3, 6}
        assert len(infrared) == persons * 4
    assert len(people.records("unlabelled")) == 4000
    assert people.records("unlabelled")[0] == Record("unlabelled/00001.webp")


def test_no_person_is_in_two_splits(people: Synthetic) -> None:
    sets = [set(people.persons(split)) for split in ("train", "val", "test")]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 450


def test_pictures_decode_and_infrared_ones_are_grey(people: Synthetic) -> None:
    records = people.records("test")
    for record in records[:: len(records) // 24]:
        image = decode(people.read(record), (192, 96), where=record.path).int()
        spread = int((image.amax(0) - image.amin(0)).max())
        assert (spread <= 2) == (record.modality == Modality.INFRARED)
        assert image.float().std() > 8  # an image, not a blank


def test_trials_follow_agw(people: Synthetic) -> None:
    trials = people.trials("all")
    assert len(trials) == 10
    # An independent loop over the rule: Python's generator, seeded with the trial, one choice per person and camera.
    test = people.persons("test")
    for number, trial in enumerate(trials):
        generator = random.Random(number)
        expected = [
            generator.choice([f"cam{camera}/{person:04d}/{k:04d}.webp" for k in (1, 2)])
            for person in test
            for camera in (1, 2, 4, 5)
        ]
        assert [record.path for record in trial.gallery] == expected
        assert len(trial.query) == 800
        assert trial.protocol.camera_groups[3] == trial.protocol.camera_groups[2]
        assert trial.protocol.unique_identity_cmc
    assert len({trial.gallery for trial in trials}) == 10


def test_indoor_gallery_is_cameras_one_and_two(people: Synthetic) -> None:
    trial = people.trials("indoor")[0]
    assert len(trial.gallery) == 400
    assert {record.camera for record in trial.gallery} == {1, 2}


def test_visible_mode_scores_across_cameras(people: Synthetic) -> None:
    (trial,) = people.trials("visible")
    assert trial.query == trial.gallery
    assert len(trial.query) == 1600
    assert trial.protocol.same_person_same_camera


def test_galleries_of_a_hundred_are_the_set_cut_in_two(people: Synthetic) -> None:
    trials, test = people.trials("all-100"), people.persons("test")
    assert [trial.name for trial in trials[8:12]] == ["0.8", "0.9", "1.0", "1.1"]
    for number, trial in enumerate(trials):
        expected = set(test[:100] if number < 10 else test[100:])
        assert {record.person for record in trial.query} == expected == {record.person for record in trial.gallery}
        assert len(trial.gallery) == 400
        assert trial.mode == "all-100"
    first, second = people.trials("visible-100")
    assert set(first.query) | set(second.query) == set(people.trials("visible")[0].query)
    assert len(first.query) == len(second.query) == 800


def test_a_hundred_persons_are_needed_for_a_gallery_of_a_hundred(folder: Path) -> None:
    with pytest.raises(UsageError, match="needs 100 test persons"):
        Synthetic(folder).trials("all-100")


def test_no_two_sets_show_the_same_people(people: Synthetic) -> None:
    """Every seed numbers its persons from 1, so what they wear is compared, to the shade of every dye."""
    groups = [(seed, group) for seed in (0, 2, 3, 4, 5, 6, 7) for group in ("labelled", "unlabelled")]
    drawn = {key: [draw_person(*key, number) for number in range(1, 31)] for key in groups}
    assert len({looks(person) for persons in drawn.values() for person in persons}) == 30 * len(groups)
    worn = {r.person: people.garments(r) for split in ("train", "val", "test") for r in people.records(split)}
    assert sorted(worn) == list(range(1, 451))
    assert [worn[number] for number in range(1, 31)] == [person.garments() for person in drawn[3, "labelled"]]
    hidden = dict(hidden_garments(people))
    assert sorted(hidden) == list(range(1, 1001))
    assert [hidden[number] for number in range(1, 31)] == [person.garments() for person in drawn[3, "unlabelled"]]


def looks(person: Person) -> str:
    return repr((person.sex, person.skin, person.upper, person.lower, person.shoes, person.hair))


def hidden_garments(people: Synthetic) -> list[tuple[int, dict[str, str]]]:
    rows = map(json.loads, people._bytes(HIDDEN).decode().splitlines())
    return [(row["person"], row["garments"]) for row in rows]


def test_other_seeds_give_other_galleries(people: Synthetic) -> None:
    assert people.trials("all", seed=1)[0].gallery != people.trials("all")[0].gallery


def test_unknown_split_and_mode_name_the_nearest(people: Synthetic) -> None:
    with pytest.raises(UsageError, match="did you mean 'train'"):
        people.records("trian")
    with pytest.raises(UsageError, match="visible"):
        people.trials("visibel")


def test_key_points_lie_on_the_person(people: Synthetic) -> None:
    for record in [*people.records("test")[::97], *people.records("unlabelled")[::201]]:
        points = people.key_points(record)
        assert points.shape == (len(KEY_POINT_NAMES), 3)
        assert set(points[:, 2].tolist()) <= {0.0, 1.0, 2.0}
        left, top, right, bottom = people.truth(record)["box"]
        seen = points[points[:, 2] == 2]
        assert ((seen[:, 0] >= left - 1) & (seen[:, 0] <= right + 1)).all()
        assert ((seen[:, 1] >= top - 1) & (seen[:, 1] <= bottom + 1)).all()
        height, width = (192, 96) if record.path.startswith("cam") else (128, 64)
        outside = (points[:, 0] < 0) | (points[:, 0] >= width) | (points[:, 1] < 0) | (points[:, 1] >= height)
        assert torch.equal(outside, points[:, 2] == 0)


def test_unlabelled_truth_tells_no_person(people: Synthetic) -> None:
    truth = people.truth(people.records("unlabelled")[5])
    assert truth["person"] is None
    assert "garments" not in truth


def _read_in_worker(people: Synthetic, path: str) -> bytes:
    return people.read(Record(path))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(people: Synthetic, method: str) -> None:
    paths = [record.path for record in people.records("train")[:12]]
    expected = [people.read(Record(path)) for path in paths]  # the parent's archive is open before workers start
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_read_in_worker, [(people, path) for path in paths]) == expected


def test_loader_workers_share_one_open_set(people: Synthetic) -> None:
    class Pictures(torch.utils.data.Dataset[int]):
        def __getitem__(self, index: int) -> int:
            return sum(people.read(people.records("val")[index]))

        def __len__(self) -> int:
            return 24

    alone = [Pictures()[index] for index in range(24)]
    loader = torch.utils.data.DataLoader(Pictures(), batch_size=4, num_workers=2)
    assert torch.cat(list(loader)).tolist() == alone


def test_pickled_copy_reads_the_same(people: Synthetic) -> None:
    record = people.records("train")[0]
    people.read(record)
    assert pickle.loads(pickle.dumps(people)).read(record) == people.read(record)


def test_folder_and_archive_are_read_alike(folder: Path) -> None:
    archive = folder / "packed" / "people.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as stream:
        for path in Synthetic.example_layout():
            stream.write(folder / path, path)
    loose, packed = Synthetic(folder), Synthetic(archive.parent)
    for split in Synthetic.splits:
        assert loose.records(split) == packed.records(split)
    record = loose.records("test")[0]
    assert loose.read(record) == packed.read(record) == _picture()
    assert torch.equal(loose.key_points(record), packed.key_points(record))


def test_missing_and_damaged_things_are_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="not found"):
        Synthetic(folder / "nowhere")
    with pytest.raises(DataError, match="expected cam1"):
        Synthetic(tmp_path_factory.mktemp("empty"))
    people = Synthetic(folder)
    record = people.records("train")[0]
    (folder / record.path).unlink()
    with pytest.raises(DataError, match=record.path):
        people.read(record)
    (folder / "exp/test_id.txt").write_text("six,seven\n")
    with pytest.raises(DataError, match="test_id"):
        people.trials("all")
    broken = folder / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        Synthetic(broken)


def test_damaged_member_is_named(people: Synthetic, tmp_path: Path) -> None:
    record = people.records("train")[0]
    whole = bytearray(EMBEDDED.read_bytes())
    start = bytes(whole).index(people.read(record))
    whole[start + 200] ^= 0xFF
    copy = tmp_path / "people.zip"
    copy.write_bytes(whole)
    with pytest.raises(DataError, match="damaged"):
        Synthetic(copy).read(record)


@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_galleries_equal_those_of_the_sysu_reader(folder: Path, mode: str) -> None:
    ours, theirs = Synthetic(folder).trials(mode), SysuMM01(folder).trials(mode)
    assert [trial.gallery for trial in ours] == [trial.gallery for trial in theirs]
    assert set(ours[0].query) == set(theirs[0].query)
