"""Boxes, tracks, quality and reading of videos, each against numbers worked out by hand or a slow loop."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.settings import check, merge
from dapg.data.cropping.boxes import best_of_overlapping, inside, iou
from dapg.data.cropping.crop_quality import (
    FilterConfig,
    perceptual_hash,
    reason_to_drop,
    sharpness,
    without_duplicates,
)
from dapg.data.cropping.segments import Plan, Sampling
from dapg.data.cropping.tracks import TrackConfig, greedy_tracks
from dapg.data.cropping.videos import Reader, Video, find_videos


def test_iou_by_hand() -> None:
    first = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], np.float32)
    second = np.array([[2, 0, 6, 4], [4, 4, 8, 8], [0, 0, 4, 4]], np.float32)
    assert iou(first, second).tolist() == [[pytest.approx(8 / 24), 0, 1], [0, 0, 0]]


def test_suppression_equals_a_slow_loop() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 40, (80, 2))], axis=1).astype(np.float32)
    scores = generator.integers(0, 20, 80).astype(np.float32)
    kept: list[int] = []
    for row in sorted(range(80), key=lambda row: (-scores[row], row)):
        if all(iou(boxes[row : row + 1], boxes[other : other + 1])[0, 0] <= 0.4 for other in kept):
            kept.append(row)
    assert best_of_overlapping(boxes, scores, 0.4).tolist() == kept
    assert 5 < len(kept) < 80


def test_boxes_are_cut_at_the_edge() -> None:
    assert inside(np.array([[-5, 3, 99, 40]], np.float32), 30, 50).tolist() == [[0, 3, 50, 30]]


def walk(start: float, speed: float, frames: int, first: int = 0) -> dict[int, tuple[float, float, float, float]]:
    return {n: (start + speed * n, 10.0, start + speed * n + 20, 60.0) for n in range(first, first + frames)}


def tracked(*people: dict[int, tuple[float, float, float, float]], gap: float = 1.0) -> list[list[int]]:
    """Track numbers of each person in time, at ten frames a second."""
    frames, owners = [], []
    for number in range(60):
        present = [index for index, person in enumerate(people) if number in person]
        boxes = np.array([people[index][number] for index in present]).reshape(-1, 4)
        frames.append((number / 10, boxes))
        owners.append(present)
    answers: list[list[int]] = [[] for _ in people]
    for numbers, present in zip(greedy_tracks(frames, TrackConfig(max_gap=gap)), owners, strict=True):
        for index, number in zip(present, numbers.tolist(), strict=True):
            answers[index].append(number)
    return answers


def test_two_people_who_pass_each_other_keep_their_numbers() -> None:
    """They meet at frame 25 with opposite speeds, 3 pixels a frame: only the expected place tells them apart."""
    left, right = tracked(walk(0, 3, 50), walk(150, -3, 50))
    assert left == [0] * 50
    assert right == [1] * 50


def test_a_gap_is_bridged_and_a_long_one_is_not() -> None:
    person = walk(0, 2, 10) | walk(0, 2, 10, first=18)
    assert tracked(person) == [[0] * 20]
    assert tracked(person, gap=0.5) == [[0] * 10 + [1] * 10]


def test_nobody_twice_in_a_frame() -> None:
    first, second = tracked(walk(0, 1, 20), walk(4, 1, 20))
    assert set(first) == {0}
    assert set(second) == {1}
    assert greedy_tracks([(0.0, np.zeros((0, 4)))], TrackConfig())[0].tolist() == []


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 40, 90), ""),
        ((2, 10, 40, 90), "at the edge"),
        ((60, 19, 90, 98), "at the edge"),
        ((10, 10, 40, 57), "size"),
        ((10, 10, 10, 90), "size"),
        ((10, 10, 70, 90), "shape"),
        ((10, 10, 27, 90), "shape"),
    ],
)
def test_each_filter_names_its_reason(box: tuple[int, int, int, int], reason: str) -> None:
    assert reason_to_drop(box, (100, 200), FilterConfig()) == reason


def test_boxes_at_the_edge_are_kept_where_asked_for() -> None:
    kept = merge(FilterConfig(), {"edge": -1})
    check(kept)
    assert reason_to_drop((0, 10, 40, 100), (100, 200), kept) == ""
    assert reason_to_drop((0, 10, 40, 100), (100, 200), FilterConfig(edge=0)) == "at the edge"


def texture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((40, 80), Image.Resampling.BICUBIC))


def test_blur_lowers_sharpness_and_size_does_not() -> None:
    crop = np.ascontiguousarray(texture(0))
    blurred = cv2.GaussianBlur(crop, (0, 0), 3)
    assert sharpness(blurred) < 0.3 * sharpness(crop)
    enlarged = cv2.resize(crop, (120, 240), interpolation=cv2.INTER_CUBIC)
    assert sharpness(enlarged) == pytest.approx(sharpness(crop), rel=0.25)
    assert sharpness(np.full((50, 20, 3), 90, np.uint8)) == 0


def test_hash_stays_under_small_changes_and_differs_between_pictures() -> None:
    def bits(first: np.ndarray, second: np.ndarray) -> int:
        return (perceptual_hash(first) ^ perceptual_hash(second)).bit_count()

    crop = texture(0)
    noisy = np.clip(crop + np.random.default_rng(1).normal(0, 4, crop.shape), 0, 255).astype(np.uint8)
    assert bits(crop, noisy) <= 5
    assert bits(crop, np.clip(crop * 0.8 + 20, 0, 255).astype(np.uint8)) <= 5
    others = [bits(texture(a), texture(b)) for a in range(6) for b in range(a)]
    assert min(others) > 12


def test_duplicates_equal_a_slow_loop() -> None:
    generator = np.random.default_rng(0)
    bases = generator.integers(0, 2**63, 6)
    hashes = [
        int(bases[n % 6]) ^ (1 << int(generator.integers(63))) ^ (1 << int(generator.integers(63))) for n in range(90)
    ]
    seconds = sorted(generator.uniform(0, 30, 90).tolist())
    config = FilterConfig(duplicate_bits=3, duplicate_seconds=4.0)
    kept: list[int] = []
    expected = []
    for number, code in enumerate(hashes):
        near = [k for k in kept if seconds[k] >= seconds[number] - 4 and (hashes[k] ^ code).bit_count() <= 3]
        expected.append(not near)
        kept += [] if near else [number]
    assert without_duplicates(hashes, seconds, config) == expected
    assert 0 < sum(expected) < 90
    assert all(without_duplicates(hashes, seconds, FilterConfig(duplicate_bits=-1)))


@pytest.mark.parametrize(
    ("rate", "frames", "expected"),
    [
        (10.0, 795, (1, 5, 600, 2)),
        (30.0, 3600, (3, 15, 1800, 2)),
        (5.0, 10, (1, 2, 300, 1)),
        (25.0, 0, (2, 12, 1500, 1)),
        (1.0, 120, (1, 1, 60, 2)),
    ],
)
def test_plans_by_hand(rate: float, frames: int, expected: tuple[int, int, int, int]) -> None:
    plan = Plan.of(Video("v", Path("v"), rate, frames, ""), Sampling())
    assert (plan.step, plan.crop_step, plan.length, plan.count) == expected
    assert plan.segment(10**9) == plan.count - 1


def write_video(path: Path, frames: int, code: str = "MJPG") -> bytes:
    """Brightness tells each frame's number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (96, 64))
    for number in range(frames):
        writer.write(np.full((64, 96, 3), 20 + 200 // frames * number, np.uint8))
    writer.release()
    return path.read_bytes()


def read_all(path: Path, frames: int) -> tuple[list[int], int]:
    """Numbers that the brightness of the frames tells, and how many were missing."""
    reader = Reader(find_videos(path, 25.0)[0][0], lambda number: True)
    levels = [float(moment.pixels.mean()) for moment in reader if moment.pixels is not None]
    return [round((level - 20) / (200 // frames)) for level in levels], reader.missing


def test_whole_video(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 40)
    (video,), problems = find_videos(tmp_path / "v.avi", 25.0)
    assert (video.name, video.frames_per_second, video.frames, problems) == ("v.avi", 10.0, 40, [])
    assert read_all(tmp_path / "v.avi", 40) == (list(range(40)), 0)
    moments = list(Reader(video, lambda number: number % 10 == 5))
    assert [moment.number for moment in moments] == [5, 15, 25, 35]
    assert [moment.seconds for moment in moments] == pytest.approx([0.5, 1.5, 2.5, 3.5])


def test_a_cut_off_video_gives_what_it_has(tmp_path: Path) -> None:
    data = write_video(tmp_path / "v.avi", 40)
    (tmp_path / "v.avi").write_bytes(data[: len(data) * 6 // 10])
    numbers, missing = read_all(tmp_path / "v.avi", 40)
    assert 15 < len(numbers) < 30
    assert missing == 40 - len(numbers)
    assert numbers[:15] == list(range(15))


@pytest.mark.parametrize(("name", "code"), [("v.avi", "MJPG"), ("v.mp4", "mp4v")])
def test_damage_in_the_middle_is_passed_over(tmp_path: Path, name: str, code: str) -> None:
    """Of MPEG-4, too, where OpenCV reports the end of the video at the first damaged frame."""
    data = bytearray(write_video(tmp_path / name, 100, code))
    middle = data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 4 if code == "mp4v" else len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(1).integers(0, 256, 300, dtype=np.uint8).tobytes()
    (tmp_path / name).write_bytes(data)
    numbers, missing = read_all(tmp_path / name, 100)
    assert len(numbers) + missing == 100
    assert len(numbers) > 60
    assert numbers[-1] >= 97, "what follows the damage is read"


def test_folders_of_pictures_are_videos(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "a" / "deep").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (2 * number,) * 3).save(tmp_path / "a" / "deep" / f"{number}.png")
    (tmp_path / "a" / "deep" / "3.png").write_bytes(b"torn")
    write_video(tmp_path / "b.avi", 5)
    (tmp_path / "broken.mp4").write_bytes(b"no index")
    videos, problems = find_videos(tmp_path, 5.0)
    assert [(video.name, video.frames) for video in videos] == [("a/deep", 5), ("b.avi", 5)]
    assert len(problems) == 1
    assert "broken.mp4: not a video that can be opened" in problems[0]
    moments = list(Reader(videos[0], lambda number: True))
    assert [moment.seconds for moment in moments] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [moment.pixels is None for moment in moments] == [False, False, False, True, False]


def test_nothing_to_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a video nor a folder"):
        find_videos(tmp_path / "nowhere", 25.0)
    with pytest.raises(DataError, match="nothing to crop below"):
        find_videos(tmp_path, 25.0)
    (tmp_path / "v.mp4").write_bytes(b"no index")
    with pytest.raises(DataError, match="not a video that can be opened"):
        find_videos(tmp_path / "v.mp4", 25.0)
