"""Answers JSON requests, one a line, in the environment of imagecorruptions and albumentations (for rain).

{"do": "speed", "name", "count"}: seconds (wall, CPU) for ``count`` images, severities 1 to 5 in turn; "mix" as name
takes the 15 types in turn. {"do": "describe", "name", "severity", "draws", "seed", "out"}: statistics of ``draws``
corrupted copies of each image, saved as a NumPy file. {"do": "chain", "count", "severities"}: seconds for ``count``
samples of the noise chain: three types without replacement, one on the other, and their mixture.
"""

import json
import random
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import picture_statistics as statistics  # noqa: E402
from imagecorruptions import corrupt as corrupt_published  # noqa: E402
from imagecorruptions import get_corruption_names  # noqa: E402

for part in ("albumentations.imgaug", "albumentations.imgaug.transforms"):  # needs a package that NumPy 2 breaks
    sys.modules[part] = types.ModuleType(part)
import albumentations  # noqa: E402

cv2.setNumThreads(1)
# This fork draws frost from all six photographs; bethgelab's and hendrycks' own code from the first five.
_randint = np.random.randint
np.random.randint = lambda low, *rest, **options: _randint(5 if low == 6 and not rest else low, *rest, **options)
PICTURES = statistics.pictures()
COMMON = get_corruption_names("common")


RAIN = {1: "drizzle", 2: "heavy", 3: "heavy", 4: "torrential", 5: "torrential"}


def corrupt(picture: np.ndarray, corruption_name: str, severity: int) -> np.ndarray:
    """The published corruption; rain with CIL-ReID's settings of albumentations."""
    if corruption_name != "rain":
        return corrupt_published(picture, corruption_name=corruption_name, severity=severity)
    darkening = -(0.05 + 0.05 * severity)
    blur = 2 + severity
    steps = [
        albumentations.RandomRain(
            rain_type=RAIN[severity], blur_value=blur, brightness_coefficient=1, always_apply=True
        ),
        albumentations.RandomBrightness(limit=[darkening, darkening], always_apply=True),
    ]
    return albumentations.Compose(steps)(image=picture)["image"]


def speed(name: str, count: int) -> dict[str, float]:
    """Seconds for ``count`` images; compiled code is warmed up before."""
    names = COMMON if name == "mix" else [name]
    for kind in names:
        corrupt(PICTURES[0], corruption_name=kind, severity=3)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        kind = names[number % len(names)]
        corrupt(PICTURES[number % 5], corruption_name=kind, severity=number % 5 + 1)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def chain(count: int, severities: list[int]) -> dict[str, float]:
    """Seconds for ``count`` samples: what a data set's ``__getitem__`` would do after decoding."""
    for kind in COMMON:
        corrupt(PICTURES[0], corruption_name=kind, severity=3)
    generator = np.random.default_rng(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        clean = PICTURES[number % 5]
        views = [clean]
        for kind in generator.choice(COMMON, 3, replace=False):
            level = int(generator.integers(severities[0], severities[1] + 1))
            views.append(corrupt(views[-1], corruption_name=str(kind), severity=level))
        weights, share = generator.dirichlet([1.0, 1.0, 1.0]), generator.uniform()
        mixed = (1 - share) * clean + share * sum(w * view for w, view in zip(weights, views[1:], strict=True))
        mixed.astype(np.uint8)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def describe(name: str, severity: int, draws: int, seed: int, out: str) -> dict[str, float]:
    """Statistics (pictures, draws, NAMES)."""
    np.random.seed(seed)  # noqa: NPY002  # the package draws from the global generator
    random.seed(seed)  # albumentations from this one
    sources = statistics.sources(name)
    table = np.stack(
        [
            statistics.describe(clean, corrupt(clean, corruption_name=name, severity=severity), name)
            for clean in sources
            for _ in range(draws)
        ]
    ).reshape(len(sources), draws, -1)
    np.save(out, table)
    return {}


for line in sys.stdin:
    request = json.loads(line)
    function = {"speed": speed, "describe": describe, "chain": chain}[request.pop("do")]
    print(json.dumps(function(**request)), flush=True)
