"""Parts of the renderer that need no kit: rasteriser, skinning, poses, wardrobe, framing, lists."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapg.core.errors import DataError, UsageError
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.synth.arrays import random_from
from dapg.synth.cameras import View, draw_view, occlusion, project
from dapg.synth.kit import _ranges, components, find_kit
from dapg.synth.paint import pattern
from dapg.synth.poses import align, draw_pose, rotation
from dapg.synth.raster import Scene, rasterise, skin, vertex_normals
from dapg.synth.render import Settings, _jobs, _lists, _visibility, _zip_store
from dapg.synth.wardrobe import LUMINANCE, Garment, _colour, _reflectance, draw_person


def _scene(vertices: list[list[float]], surface: list[int], **changes: np.ndarray) -> Scene:
    count, surfaces = len(vertices), max(surface) + 1
    textures = np.zeros((surfaces, 4, 4, 4), np.uint8)
    for number in range(surfaces):
        textures[number] = [40 * number + 10, 0, 0, 255]
    values: dict[str, np.ndarray] = {
        "vertices": np.array(vertices, np.float32),
        "normals": np.tile(np.array([0, 0, 1], np.float32), (count, 1)),
        "rest": np.array(vertices, np.float32),
        "clip": np.ones(count, np.float32),
        "triangles": np.arange(count).reshape(-1, 3),
        "uv": np.zeros((count // 3, 3, 2), np.float32),
        "surface": np.array(surface),
        "bias": np.zeros(surfaces, np.float32),
        "see_through": np.zeros(surfaces, bool),
        "textures": textures,
    }
    return Scene(**(values | changes))


FAR: list[list[float]] = [[0, 0, 0], [8, 0, 0], [0, 8, 0]]
NEAR: list[list[float]] = [[0, 0, 1], [4, 0, 1], [0, 4, 1]]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, [100, 20, 100]),  # SYSU-MM01's shares: 1/11 and 5/11
        ({"test_persons": 200}, [0, 20, 200]),
        ({"test_persons": 201}, None),
        ({"validation_persons": 121}, None),
        ({"validation_persons": 0, "test_persons": 220}, [0, 0, 220]),
    ],
)
def test_no_person_is_in_two_splits(given: dict[str, int], sizes: list[int] | None) -> None:
    chosen = Settings(Path("out"), persons=220, **given)  # type: ignore[arg-type]
    if sizes is None:
        with pytest.raises(UsageError, match="do not fit into 220 persons"):
            chosen.check()
        return
    chosen.check()
    assert [len(persons) for persons in chosen.splits().values()] == sizes
    assert [*itertools.chain.from_iterable(chosen.splits().values())] == list(range(1, 221))


def test_triangle_covers_the_pixels_whose_centres_it_holds() -> None:
    scene = _scene(FAR, [0])
    mask = rasterise(scene, scene.vertices, 8, 8).mask
    rows, columns = np.mgrid[:8, :8]
    assert np.array_equal(mask, (rows + 0.5) + (columns + 0.5) <= 8)


def test_nearer_surface_hides_the_farther_one_in_either_order() -> None:
    for order in ([*FAR, *NEAR], [*NEAR, *FAR]):
        scene = _scene(order, [0, 1])
        buffer = rasterise(scene, scene.vertices, 8, 8)
        near = 1 if order[0] == FAR[0] else 0
        assert buffer.surface[0] == near
        assert buffer.depth[0, 0] == 1
        assert buffer.surface[buffer.mask.ravel().nonzero()[0] == 7][0] == 1 - near
        assert np.allclose(buffer.rest[:, 2], buffer.depth[buffer.mask])


def test_bias_lifts_a_surface_above_another() -> None:
    scene = _scene([*FAR, *NEAR], [0, 1], bias=np.array([2, 0], np.float32))
    assert (rasterise(scene, scene.vertices, 8, 8).surface == 0).all()


def test_clip_cuts_where_the_interpolated_value_is_negative() -> None:
    # Clip is 2 - y at the corners, so rows whose centres lie below y = 2 stay.
    scene = _scene(FAR, [0], clip=np.array([2, 2, -6], np.float32))
    mask = rasterise(scene, scene.vertices, 8, 8).mask
    assert mask[:2].any(axis=1).all()
    assert not mask[2:].any()


def test_holes_of_a_texture_show_what_is_behind() -> None:
    hidden = _scene([*FAR, *NEAR], [0, 1])
    textures = hidden.textures.copy()
    textures[1, ..., 3] = 0
    scene = _scene([*FAR, *NEAR], [0, 1], textures=textures, see_through=np.array([False, True]))
    assert (rasterise(scene, scene.vertices, 8, 8).surface == 0).all()


def test_skinning_equals_the_sum_it_is() -> None:
    generator = np.random.default_rng(0)
    rest, transforms = generator.normal(size=(20, 3)), generator.normal(size=(5, 4, 4))
    index, weight = generator.integers(0, 5, (20, 4)), generator.dirichlet(np.ones(4), 20)
    expected = [sum(weight[v, k] * (transforms[index[v, k]] @ [*rest[v], 1])[:3] for k in range(4)) for v in range(20)]
    assert np.allclose(skin(rest, index, weight, transforms), expected)


def test_normals_of_a_flat_square_point_up() -> None:
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, -1], [0, 0, -1]])
    normals = vertex_normals(square, np.array([[0, 1, 2], [0, 2, 3]]))
    assert np.allclose(normals, [0, 1, 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_align_turns_one_direction_into_another(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 3))
    turn = align(a, b)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.allclose(turn @ a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-6)


def test_rotations_are_right_handed() -> None:
    assert np.allclose(rotation("z", 90.0) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(rotation("x", 90.0) @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(rotation("y", 90.0) @ [0, 0, 1], [1, 0, 0])


def test_poses_stay_human() -> None:
    poses = [draw_pose(np.random.default_rng(seed)) for seed in range(400)]
    assert {pose.kind for pose in poses} == {"walk", "stand", "turn", "hold", "phone", "pockets"}
    for pose in poses:
        assert all(0 <= knee <= 60 for knee in pose.knee)
        assert all(0 <= elbow <= 142 for elbow in pose.elbow)
        if pose.kind == "walk":
            assert max(pose.elbow) <= 40
            # Opposite arms and legs: the left leg goes forward with the right arm.
            assert pose.leg_swing[0] * pose.arm_swing[1] >= 0


def test_a_person_is_a_function_of_seed_group_and_number() -> None:
    assert draw_person(3, "labelled", 7) == draw_person(3, "labelled", 7)
    others = [draw_person(4, "labelled", 7), draw_person(3, "unlabelled", 7), draw_person(3, "labelled", 8)]
    assert all(other != draw_person(3, "labelled", 7) for other in others)


def test_persons_share_garments_but_are_not_the_same() -> None:
    persons = [draw_person(0, "labelled", number) for number in range(1, 221)]
    uppers = [person.upper for person in persons]
    shared = sum(uppers.count(upper) > 1 for upper in uppers) / len(uppers)
    assert 0.1 < shared < 0.5
    assert len({str(person.garments()) for person in persons}) > 215


def test_near_infrared_is_only_partly_a_function_of_luminance() -> None:
    generator = np.random.default_rng(1)
    dyes = ("black", "navy", "blue", "red", "green", "khaki", "white", "grey", "pink", "brown")
    pairs = []
    for number in range(600):
        dye = dyes[number % len(dyes)]
        colour = _colour(generator, dye)
        fabric = ("cotton", "polyester", "wool")[number % 3]
        pairs.append((float(np.array(colour) @ LUMINANCE), _reflectance(generator, colour, dye, fabric)))
    correlation = np.corrcoef(np.array(pairs).T)[0, 1]
    assert 0.5 < correlation < 0.95


def test_patterns_cover_what_their_names_say() -> None:
    place = np.array([[0, 5, 0.5], [0, 3.4, 0.9], [3, 4, 0], [0, 1, 0]], np.float32)

    def second(kind: str) -> list[bool]:
        return list(pattern(place, Garment("t-shirt", pattern=kind), "upper"))

    assert second("yoke") == [True, False, False, False]
    assert second("print") == [False, True, False, False]
    assert second("raglan") == [False, False, True, False]
    assert second("lower half") == [False, False, False, True]
    assert second("plain") == [False] * 4


def test_view_puts_the_person_where_it_says() -> None:
    box = np.random.default_rng(0).uniform(-1, 1, (60, 3)) * [2, 8, 1]
    triangles = np.arange(60).reshape(-1, 3)
    scene = _scene(box.tolist(), [0] * len(triangles))
    for fill, shift in ((0.8, (0.0, 0.0)), (1.2, (0.1, 0.05))):
        view = View(40.0, 10.0, 60.0, fill, shift)
        projection = project(scene, np.arange(60), view, 200, 100)
        seen = projection(scene.vertices.astype(np.float64))
        low, high = seen.min(0), seen.max(0)
        assert np.isclose(high[1] - low[1], 200 * fill)
        assert np.allclose((low + high)[:2] / 2, [100 * (0.5 + shift[0]), 200 * (0.5 + shift[1])])


def test_a_person_who_faces_right_shows_their_right_side() -> None:
    # yaw 90 turns the front (+z) to the picture's right (+x); the left hand (+x) ends up behind.
    scene = _scene([[0, 0, 0], [1, 1, 1], [-1, -1, -1]], [0])
    view = View(90.0, 0.0, 1e6, 0.9, (0.0, 0.0))
    projection = project(scene, np.arange(3), view, 100, 100)
    front, left, middle = projection(np.array([[0, 0, 2.0], [2.0, 0, 0], [0, 0, 0]]))
    assert front[0] > middle[0]
    assert left[2] < middle[2]


def test_occluders_and_cuts_happen_and_stay_rare() -> None:
    from dapg.synth.cameras import SYSU_CAMERAS

    views = [draw_view(np.random.default_rng(s), SYSU_CAMERAS[0], 0.0, 1.0, 0.0) for s in range(500)]
    occluded = [view for view in views if view.occluder[0] != "none"]
    assert 0.08 < len(occluded) / 500 < 0.22
    assert 0.06 < sum(view.fill > 1 for view in views) / 500 < 0.22
    part = occlusion(occluded[0], 100, 50).mean()
    assert 0.1 < part < 0.45


def test_key_points_are_visible_hidden_or_outside() -> None:
    points = np.zeros((len(KEY_POINT_NAMES), 3))
    points[:, :2] = 5.0
    points[0] = [5, 5, 0]
    points[1] = [-3, 5, 0]
    points[2] = [15, 5, 0]
    depth = np.full((20, 20), -1e9, np.float32)
    depth[5, 5] = 0.1
    covered = np.zeros((20, 20), bool)
    covered[:, 12:] = True
    rows = _visibility(points, depth, covered, 2)
    assert [row[2] for row in rows[:3]] == [2, 0, 1]
    assert rows[0][:2] == [2.5, 2.5]
    depth[5, 5] = 5.0  # something is half a metre in front of the nose
    assert _visibility(points, depth, covered, 2)[0][2] == 1


def test_splits_are_disjoint_and_jobs_cover_every_name(tmp_path: Path) -> None:
    chosen = Settings(tmp_path, persons=44, unlabelled=100)
    parts = chosen.splits()
    assert [len(parts[name]) for name in ("train", "val", "test")] == [20, 4, 20]
    assert sorted(number for part in parts.values() for number in part) == list(range(1, 45))
    jobs = _jobs(chosen)
    names = [path for job in jobs for path in job.paths]
    assert sorted(names) == [f"unlabelled/{number:05d}.jpg" for number in range(1, 101)]
    assert names != sorted(names)  # the order of names does not tell who is who
    assert sum(job.pictures for job in jobs) == 44 * 12 + 100
    hidden = [job for job in jobs if job.group == "unlabelled"]
    assert {job.pictures for job in hidden[:-1]} == {1, 2, 3, 4, 5}
    dealt = _jobs(Settings(tmp_path, persons=0, unlabelled=400, unlabelled_persons=100))
    assert len(dealt) == 100
    assert sum(job.pictures for job in dealt) == len({path for job in dealt for path in job.paths}) == 400
    assert min(job.pictures for job in dealt) == 2


def test_lists_have_the_published_form(tmp_path: Path) -> None:
    lists = _lists(Settings(tmp_path, persons=11), [])
    assert lists["exp/train_id.txt"] == "1,2,3,4,5\n"
    assert lists["exp/val_id.txt"] == "6\n"
    assert lists["exp/test_id.txt"] == "7,8,9,10,11\n"


def test_regdb_lists_halve_the_persons_anew_in_each_trial(tmp_path: Path) -> None:
    truths = [
        {"path": f"{folder}/{person}/male_front_{letter}_{k:05d}_{person}.bmp", "person": person}
        for person in range(1, 9)
        for k in range(3)
        for folder, letter in (("Visible", "v"), ("Thermal", "t"))
    ]
    lists = _lists(Settings(tmp_path, persons=8, style="regdb"), truths)
    assert len(lists) == 40
    halves = set()
    for trial in range(1, 11):
        rows = {split: lists[f"idx/{split}_visible_{trial}.txt"].splitlines() for split in ("train", "test")}
        ids = {split: {row.split("/")[1] for row in part} for split, part in rows.items()}
        assert ids["train"] | ids["test"] == set("12345678")
        assert not ids["train"] & ids["test"]
        for part in rows.values():
            assert len(part) == 12
            assert {row.split(" ")[1] for row in part} == {"0", "1", "2", "3"}
        halves.add(frozenset(ids["train"]))
    assert len(halves) > 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"persons": 0}, "nothing to render"),
        ({"persons": 10, "test_persons": 11}, "do not fit"),
        ({"persons": 3, "style": "regdb"}, "even"),
        ({"style": "regdb", "unlabelled": 5}, "go with --style sysu"),
        ({"quality": 0}, "quality"),
        ({"height": 8}, "32 rows"),
        ({"unlabelled": 9, "unlabelled_height": 8}, "32 rows"),
        ({"unlabelled": 9, "unlabelled_persons": 5}, "two --unlabelled"),
        ({"persons": 10_000}, "four digits"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Settings(tmp_path, **changes).check()


def test_missing_kit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAPG_SYNTH_ASSETS", raising=False)
    with pytest.raises(DataError, match="DAPG_SYNTH_ASSETS"):
        find_kit(None)
    with pytest.raises(DataError, match="makehuman_cc0/base"):
        find_kit(tmp_path)
    for name in ("base", "rig", "targets", "clothes", "hair", "textures"):
        (tmp_path / "makehuman_cc0" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="background"):
        find_kit(tmp_path)


def test_number_ranges_of_clothes_files() -> None:
    assert _ranges(["12", "-", "15", "40", "7", "-", "8"]) == [12, 13, 14, 15, 40, 7, 8]


def test_components_join_what_triangles_join() -> None:
    triangles = np.array([[0, 1, 2], [2, 3, 4], [7, 6, 5]])
    assert components(9, triangles).tolist() == [0, 0, 0, 0, 0, 5, 5, 5, 8]


def test_archives_of_equal_content_are_equal(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        with _zip_store(tmp_path / name) as store:
            store.write("cam1/0001/0001.jpg", b"picture")
            store.write("annotations.jsonl", b"{}\n" * 50)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_random_streams_of_other_names_differ() -> None:
    assert random_from(0, "a", 1).random() == random_from(0, "a", 1).random()
    assert random_from(0, "a", 1).random() != random_from(0, "a", 2).random()


@pytest.mark.parametrize(("package", "module"), [("numba", "raster"), ("cv2", "cameras")])
def test_missing_package_is_named(package: str, module: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import dapg.synth.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install 'dapg[synth]'" in done.stderr
