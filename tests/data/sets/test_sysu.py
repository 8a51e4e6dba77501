"""SYSU-MM01: the published galleries on rebuilt lists, splits, official permutations and AGW's arrays."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode
from dapg.core.types import Modality
from dapg.data.base import example_image
from dapg.data.sets.sysu import SysuMM01, published_counts

# Sum of the 0-based positions and the first 12 digits of the MD5 of the positions joined by commas, of the galleries
# that mangye16/Cross-Modal-Re-ID-baseline draws in trials 0 ... 9.
ALL_SEARCH = [
    (3348, "6a64b5f17eb4"),
    (3265, "28d649d3bd9c"),
    (3168, "e28e8fd49558"),
    (3338, "2854f46e99c6"),
    (3118, "5dd6dfccc548"),
    (3181, "f9917cbeb43d"),
    (3404, "f52514cf962b"),
    (3244, "3871444e3bb2"),
    (3285, "4b5e5facb49c"),
    (3152, "67f82c9577af"),
]
INDOOR = [
    (1535, "10f4e00532e3"),
    (1456, "38df618b7e75"),
    (1610, "85c79c19a79d"),
    (1569, "9adea4b84a68"),
    (1346, "9735be2b70c4"),
    (1375, "11d253728a3c"),
    (1488, "9c11542ddb97"),
    (1370, "4c4991d1c4d9"),
    (1417, "aab84899756b"),
    (1264, "5c264f0ade8c"),
]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> SysuMM01:
    """The test persons of SYSU-MM01 with the published number of (empty) files in every folder."""
    root = tmp_path_factory.mktemp("sysu")
    for person, counts in published_counts().items():
        for camera, count in enumerate(counts, start=1):
            if count:
                folder = root / f"cam{camera}" / f"{person:04d}"
                folder.mkdir(parents=True)
                for number in range(1, count + 1):
                    (folder / f"{number:04d}.jpg").touch()
    (root / "exp").mkdir()
    (root / "exp/test_id.txt").write_text(",".join(map(str, published_counts())) + "\n")
    (root / "exp/train_id.txt").write_text("1,2\n")
    (root / "exp/val_id.txt").write_text("334\n")
    return SysuMM01(root)


@pytest.mark.parametrize(
    ("mode", "size", "fixtures", "first"),
    [
        ("all", 301, ALL_SEARCH, [24, 24, 13, 1, 16, 16, 15, 12, 9, 15]),
        ("indoor", 112, INDOOR, [24, 24, 26, 1, 4, 32, 15, 12, 29, 9]),
    ],
)
def test_published_galleries(
    rebuilt: SysuMM01, mode: str, size: int, fixtures: list[tuple[int, str]], first: list[int]
) -> None:
    trials = rebuilt.trials(mode)
    for trial, (total, digest) in zip(trials, fixtures, strict=True):
        positions = [int(record.path[-8:-4]) - 1 for record in trial.gallery]
        assert len(positions) == size
        assert sum(positions) == total
        assert hashlib.md5(",".join(map(str, positions)).encode()).hexdigest()[:12] == digest
        assert trial.comparable
    assert [int(record.path[-8:-4]) - 1 for record in trials[0].gallery[:10]] == first


def test_published_query_set(rebuilt: SysuMM01) -> None:
    query = rebuilt.trials("all")[0].query
    assert rebuilt.trials("indoor")[0].query == query
    assert len(query) == 3803
    assert [sum(record.camera == camera for record in query) for camera in (3, 6)] == [1883, 1920]


@pytest.mark.parametrize(("mode", "valid"), [("all", 3803), ("indoor", 2208)])
def test_published_number_of_queries_with_a_match(rebuilt: SysuMM01, mode: str, valid: int) -> None:
    trial = rebuilt.trials(mode)[0]
    gallery: dict[int, set[int]] = {}
    for record in trial.gallery:
        gallery.setdefault(record.person, set()).add(record.camera)
    cameras_left = [
        gallery.get(record.person, set()) - ({2} if record.camera == 3 else set()) for record in trial.query
    ]
    assert sum(bool(cameras) for cameras in cameras_left) == valid


def test_multi_shot_has_ten_pictures_per_cell(rebuilt: SysuMM01) -> None:
    for mode, size in (("all-multi", 3010), ("indoor-multi", 1120)):
        trial = rebuilt.trials(mode)[3]
        assert len(set(trial.gallery)) == size
        assert not trial.comparable


def test_another_seed_gives_other_galleries_and_says_so(rebuilt: SysuMM01) -> None:
    published, other = rebuilt.trials("all"), rebuilt.trials("all", seed=1)
    assert not any(trial.comparable for trial in other)
    assert {trial.gallery for trial in published}.isdisjoint({trial.gallery for trial in other})


def test_official_permutations(tmp_path: Path) -> None:
    """Row t of each cell of the permutation file says which images, counted from 1, trial t takes."""
    SysuMM01.write_example(tmp_path)
    with pytest.raises(UsageError, match=r"rand_perm_cam\.mat"):
        SysuMM01(tmp_path).trials("all-official")
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(6):
        persons = np.empty((333, 1), dtype=object)
        for person in range(333):
            persons[person, 0] = np.array([np.roll([1, 2, 3], trial) for trial in range(10)], dtype=np.uint8)
        cameras[camera, 0] = persons
    savemat(tmp_path / "exp/rand_perm_cam.mat", {"rand_perm_cam": cameras})
    trials = SysuMM01(tmp_path).trials("indoor-official")
    assert [trial.gallery[0].path for trial in trials[:4]] == [f"cam1/0006/000{number}.jpg" for number in (1, 3, 2, 1)]
    assert [record.path[:9] for record in trials[0].gallery] == ["cam1/0006", "cam2/0006", "cam1/0010", "cam2/0010"]
    multi = SysuMM01(tmp_path).trials("indoor-multi-official")[1]
    assert [record.path[-8:-4] for record in multi.gallery[:3]] == ["0003", "0001", "0002"]
    assert not multi.comparable, "an example is not the published set"
    (tmp_path / "cam1/0006/0004.jpg").write_bytes(example_image("x.jpg"))
    with pytest.raises(DataError, match="camera 1, person 6 has 10 x 3 entries, but there are 4"):
        SysuMM01(tmp_path).trials("all-official")


@pytest.mark.parametrize(
    ("mode", "sums"),
    [
        ("all-official", [3671, 3668, 3453, 3491, 3745, 3497, 3485, 3490, 3450, 3591]),
        ("indoor-official", [1570, 1544, 1553, 1401, 1723, 1498, 1415, 1459, 1485, 1525]),
    ],
)
def test_official_permutations_of_ones_own_copy(mode: str, sums: list[int]) -> None:
    """Sums of the 1-based image numbers that the authors' file gives in trials 1 ... 10; needs the real data set."""
    root = os.environ.get("DAPG_DATA_SYSU", "")
    if not any((Path(root) / place / "rand_perm_cam.mat").is_file() for place in ("exp", ".")):
        pytest.skip("DAPG_DATA_SYSU names no copy with rand_perm_cam.mat")
    trials = SysuMM01(root).trials(mode)
    assert [sum(int(record.path[-8:-4]) for record in trial.gallery) for trial in trials] == sums


def test_validation_searches_validation_persons(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    trial = SysuMM01(tmp_path).trials("validation")[0]
    assert {record.person for record in (*trial.query, *trial.gallery)} == {334}
    assert not trial.comparable


def test_order_within_a_person(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    cameras = [record.camera for record in SysuMM01(tmp_path).records("train") if record.person == 2]
    assert cameras == [1] * 3 + [2] * 3 + [4] * 3 + [5] * 3 + [3] * 3 + [6] * 3


def write_arrays(folder: Path, prefix: str = "", persons: int = 3) -> None:
    generator = np.random.default_rng(0)
    for light, count in (("rgb", 5), ("ir", 4)):
        pictures = generator.integers(0, 256, (count, 12, 6, 3), dtype=np.uint8)
        np.save(folder / f"{prefix}train_{light}_resized_img.npy", pictures)
        np.save(folder / f"{prefix}train_{light}_resized_label.npy", np.arange(count) % persons)


@pytest.mark.parametrize("prefix", ["", "ori_data"])
def test_arrays_of_agw_in_both_places(tmp_path: Path, prefix: str) -> None:
    """Where AGW's loader looks, and where its writer puts them (a slash is missing there)."""
    root = tmp_path / "ori_data"
    SysuMM01.write_example(root)
    write_arrays(tmp_path if prefix else root, prefix)
    dataset = SysuMM01(root)
    records = dataset.records("trainval-arrays")
    assert [record.person for record in records] == [1, 2, 334, 1, 2, 1, 2, 334, 1]
    assert [record.modality for record in records] == [Modality.VISIBLE] * 5 + [Modality.INFRARED] * 4
    pixels = np.load(next(tmp_path.rglob("*train_ir_resized_img.npy")))
    image = decode(dataset.read(records[6]), (12, 6))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels[1])


def test_arrays_alone_can_train_but_not_test(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    dataset = SysuMM01(tmp_path)
    assert [record.person for record in dataset.records()][:3] == [0, 1, 2]
    with pytest.raises(DataError, match="only AGW's arrays are there"):
        dataset.trials("all")


def test_agw_folder_name_is_found(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path / "ori_data")
    assert SysuMM01(tmp_path).root == tmp_path / "ori_data"


@pytest.mark.parametrize("missing", ["cam4", "exp/val_id.txt"])
def test_first_missing_path_is_named(tmp_path: Path, missing: str) -> None:
    SysuMM01.write_example(tmp_path)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=rf"expected {missing}. See docs/reference/datasets.md"):
        SysuMM01(tmp_path)


def test_a_list_that_is_none_is_named(tmp_path: Path) -> None:
    SysuMM01.write_example(tmp_path)
    (tmp_path / "exp/test_id.txt").write_text("6;10\n")
    with pytest.raises(DataError, match="whole numbers between commas"):
        SysuMM01(tmp_path).records("test")
