"""The embedded detector on walking synthetic people and on things that move without being people."""

import numpy as np

from dapg.core.images import open_rgb
from dapg.data.cropping.boxes import iou
from dapg.data.cropping.detectors.hog import Hog
from dapg.data.sets.synthetic import Synthetic

HEIGHT, WIDTH = 240, 360


def street(things: list[np.ndarray], frames: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames in which the things walk side by side to the right from frame 3 on, and their boxes."""
    background = np.random.default_rng(0).integers(100, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pictures, truth = [], []
    for number in range(frames):
        pixels, boxes = background.copy(), []
        for index, thing in enumerate(things if number >= 3 else []):
            left, top = 10 + 110 * index + 5 * number, 60
            pixels[top : top + thing.shape[0], left : left + thing.shape[1]] = thing
            boxes.append((left, top, left + thing.shape[1], top + thing.shape[0]))
        pictures.append(pixels)
        truth.append(np.array(boxes, dtype=np.float32).reshape(-1, 4))
    return pictures, truth


def test_walking_people_are_found_again_and_again_and_little_else() -> None:
    """Pasted with a rectangle of their own background, whose edges hide the outline that HOG looks for: on real video
    far more are found, here three in ten boxes.
    """
    people = Synthetic()
    records = people.records(people.splits[0])
    chosen = records[:: len(records) // 12][:12]
    found = boxes = wrong = 0
    for start in range(0, 12, 2):
        things = [np.asarray(open_rgb(people.read(r), r.path).resize((48, 110))) for r in chosen[start : start + 2]]
        detector = Hog(Hog.Config())
        for picture, truth in zip(*street(things), strict=True):
            answer = detector.detect(picture)
            overlap = iou(truth, answer.boxes)
            found += int((overlap.max(axis=1, initial=0) > 0.6).sum())
            wrong += int((overlap.max(axis=0, initial=0) < 0.3).sum())
            boxes += len(truth)
    assert boxes == 12 * 9
    assert found > 0.28 * boxes
    assert wrong < 0.05 * boxes


def test_a_still_scene_a_ball_and_a_van_are_nobody() -> None:
    rows, columns = np.mgrid[:60, :60]
    ball = np.full((60, 60, 3), 115, np.uint8)
    ball[(rows - 30) ** 2 + (columns - 30) ** 2 < 900] = (200, 30, 30)
    van = np.full((50, 90, 3), 230, np.uint8)
    van[5:25, 10:35] = van[5:25, 50:80] = 40
    detector = Hog(Hog.Config())
    assert sum(len(detector.detect(picture).boxes) for picture in street([ball, van])[0]) <= 2
