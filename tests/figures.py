"""Drawn figures: a labelled toy data set made in a second, for tests of the machinery."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CAMERAS = ((1, "visible"), (2, "visible"), (3, "infrared"))


def draw_person(person: int, camera: int, picture: int, infrared: bool) -> Image.Image:
    """A head, a torso and legs whose colours belong to the person; place and background to camera and image."""
    look = np.random.default_rng((1, person))
    scene = np.random.default_rng((2, person, camera, picture))
    background = tuple(int(v) for v in np.random.default_rng((3, camera)).integers(60, 190, 3))
    image = Image.new("RGB", (64, 128), background)
    pen = ImageDraw.Draw(image)
    skin, shirt, trousers = (tuple(int(v) for v in look.integers(0, 256, 3)) for _ in range(3))
    x, y = 32 + int(scene.integers(-6, 7)), int(scene.integers(-4, 5))
    wide = 11 + int(look.integers(0, 6))
    pen.ellipse((x - 8, 8 + y, x + 8, 28 + y), fill=skin)
    pen.rectangle((x - wide, 30 + y, x + wide, 74 + y), fill=shirt)
    pen.rectangle((x - wide + 2, 75 + y, x - 2, 120 + y), fill=trousers)
    pen.rectangle((x + 2, 75 + y, x + wide - 2, 120 + y), fill=trousers)
    noise = scene.normal(0, 6, (128, 64, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255)
    if infrared:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def colour_at(image: Image.Image, place: tuple[int, int]) -> tuple[int, ...]:
    """Red, green and blue of a pixel (column, row) of a colour image."""
    colour = image.getpixel(place)
    assert isinstance(colour, tuple)
    return colour


def make_figures(root: Path, persons: int = 8, pictures: int = 2) -> Path:
    """``persons`` x 3 cameras x ``pictures`` PNG files with labels.csv, the second half of the persons for testing."""
    rows = []
    for person in range(persons):
        for camera, modality in CAMERAS:
            for picture in range(pictures):
                path = f"camera{camera}/{person:03d}_{picture}.png"
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                draw_person(person, camera, picture, modality == "infrared").save(root / path)
                rows.append(
                    (path, f"person {person:03d}", camera, modality, "train" if person < persons / 2 else "test")
                )
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("path", "person", "camera", "modality", "split"))
        writer.writerows(rows)
    return root
