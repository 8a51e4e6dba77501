"""Full-size copies of published sets in which every image is one pixel of a colour of its own."""

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

from dapg.data.sets.regdb import FOLDERS, PARTITIONS
from dapg.data.sets.sysu import ALL_PER_CAMERA, TRAINVAL_PER_CAMERA, published_counts

# Splits as the published lists have them (README of wuancong/SYSU-MM01).
TEST = sorted(published_counts())
VAL = [*range(334, 347), *range(348, 434)]
NOBODY = [9, 23, 26, 32, 33, 38, 39, 46, 47, 48, 57, 67, 94, 96, 97, 146, 242, 347, 485, 500, 511, 529]
TRAIN_RANGES = (
    "1-2 4-5 7-8 11-16 18-20 22 29-30 35 52-53 55-56 58-62 64-65 70-74 76-79 91-92 95 98-99 107 109-111 "
    "113-115 118-121 123-124 126-128 131-133 135-137 140 142-143 147 149 151 154-161 163-165 168-169 171 "
    "174-175 177-184 186 188-189 193-194 196-201 203 205-206 208-209 211-214 216-222 224-228 230-231 "
    "234-235 240 243-251 254-256 258 260-262 264-265 267-268 270-271 276-281 283-284 286-290 292-299 "
    "304-306 308-311 313-314 316-317 319-330 332 434-484 486-499 501-510 512-528 530-533"
)
TRAIN = [
    person
    for first, _, last in (part.partition("-") for part in TRAIN_RANGES.split())
    for person in range(int(first), int(last or first) + 1)
]


def pixel(number: int) -> bytes:
    """A BMP file of one pixel, different for every number below 2^24."""
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, 1, 1, 1, 24, 0, 4, 2835, 2835, 0, 0)
    return header + struct.pack("<I", number)


def spread(persons: Sequence[int], pictures: int) -> dict[int, int]:
    """Person -> number of images, as even as the total allows."""
    share, rest = divmod(pictures, len(persons))
    return {person: share + (index < rest) for index, person in enumerate(persons)}


def sysu_cells() -> dict[tuple[int, int], int]:
    """(camera, person) -> images, such that every published sum holds."""
    val = {3: (99, 1980), 4: (99, 984), 5: (99, 990)}  # visible 1,974 and infrared 1,980
    cells: dict[tuple[int, int], int] = {}
    for camera in range(1, 7):
        tested = {person: counts[camera - 1] for person, counts in published_counts().items() if counts[camera - 1]}
        validated = spread(VAL, val[camera][1]) if camera in val else {}
        persons, pictures = TRAINVAL_PER_CAMERA[camera]
        number = persons - len(validated)
        seen = TRAIN[-number:] if camera == 6 else TRAIN[:number]  # so that everybody is seen by some camera
        trained = spread(seen, pictures - sum(validated.values()))
        persons, pictures = ALL_PER_CAMERA[camera]
        known = {**tested, **validated, **trained}
        left = spread(NOBODY[: persons - len(known)], pictures - sum(known.values()))
        cells |= {(camera, person): count for person, count in {**known, **left}.items()}
    return cells


def build_sysu(root: Path) -> None:
    numbers = itertools.count()
    for (camera, person), count in sysu_cells().items():
        folder = root / f"cam{camera}" / f"{person:04d}"
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            (folder / f"{number:04d}.jpg").write_bytes(pixel(next(numbers)))
    (root / "exp").mkdir()
    for name, persons in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, persons)) + "\n")


def build_regdb(root: Path) -> None:
    numbers = itertools.count()
    files: dict[tuple[str, int], list[str]] = {}
    for folder, person in itertools.product(FOLDERS.values(), range(1, 413)):
        (root / folder / str(person)).mkdir(parents=True)
        letter = "v" if folder == "Visible" else "t"
        files[folder, person] = []
        for shot in range(10):
            name = f"{folder}/{person}/{'male' if person <= 254 else 'female'}_back_{letter}_{shot:05d}_{person}.bmp"
            (root / name).write_bytes(pixel(next(numbers)))
            files[folder, person].append(name)
    (root / "idx").mkdir()
    for number in PARTITIONS:
        sides: dict[str, list[int]] = {"train": [], "test": []}
        for person in range(1, 413):
            # Shift the parity pattern with the partition: ten different halves of 206.
            sides["train" if (person + person // 2**number) % 2 else "test"].append(person)
        surplus = len(sides["train"]) - 206
        giver, taker = ("train", "test") if surplus > 0 else ("test", "train")
        for _ in range(abs(surplus)):
            sides[taker].append(sides[giver].pop())
        for (side, persons), folder in itertools.product(sides.items(), FOLDERS.values()):
            lines = [f"{path} {label}" for label, person in enumerate(persons) for path in files[folder, person]]
            light = "visible" if folder == "Visible" else "thermal"
            (root / f"idx/{side}_{light}_{number}.txt").write_text("\n".join(lines) + "\n")


def build_market(root: Path) -> None:
    """Published sums: 12,936 of 751 persons; 3,368 of 750; 19,732 of the same 750, distractors 0 and junk -1."""
    numbers = itertools.count()
    train, test = range(2, 1503, 2), range(1, 1500, 2)
    distractors, junk = 2_798, 19_732 - 15_913
    counts = {
        "bounding_box_train": spread(list(train), 12_936),
        "query": spread(list(test), 3_368),
        "bounding_box_test": {**spread(list(test), 15_913 - distractors), 0: distractors, -1: junk},
    }
    for folder, persons in counts.items():
        (root / folder).mkdir(parents=True)
        for person, count in persons.items():
            stem = "-1" if person == -1 else f"{person:04d}"
            for number in range(count):
                name = f"{stem}_c{number % 6 + 1}s1_{number:06d}_00.jpg"
                (root / folder / name).write_bytes(pixel(next(numbers)))


def build_llcm(root: Path) -> None:
    """Published sums: 46,767 images, 713 persons train and 351 test; nine cameras, no infrared camera 3.

    How the sum divides over parts and persons is not published; here every person has about as many.
    """
    numbers = itertools.count()
    per_person = spread(list(range(1, 1065)), 46_767)
    lists: dict[str, list[str]] = {"vis": [], "nir": []}
    made = set()
    for person, count in per_person.items():
        for number in range(count):
            light = "vis" if number % 2 else "nir"
            camera = number // 2 % 9 + 1
            if light == "nir" and camera == 3:
                camera = 4
            name = f"{person:04d}_c{camera:02d}_s{number:06d}_{light}.jpg"
            folder = f"{light}/{person:04d}" if person <= 713 else f"test_{light}/cam{camera}/{person:04d}"
            if folder not in made:
                (root / folder).mkdir(parents=True)
                made.add(folder)
            (root / folder / name).write_bytes(pixel(next(numbers)))
            if person <= 713:
                lists[light].append(f"{folder}/{name} {person - 1}")
    (root / "idx").mkdir()
    for light, lines in lists.items():
        (root / "idx" / f"train_{light}.txt").write_text("\n".join(lines) + "\n")
    (root / "idx/test_id.txt").write_text(",".join(map(str, range(714, 1065))) + "\n")
