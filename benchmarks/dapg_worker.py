"""The same requests as ``imagecorruptions_worker.py``, answered by dapg on uint8 images in one thread."""

import json
import sys
import time

import numpy as np
import picture_statistics as statistics
import torch

from dapg.core.rng import SampleGenerator
from dapg.corruptions import library

torch.set_num_threads(1)
BATCH = 64
PICTURES = torch.from_numpy(statistics.pictures()).permute(0, 3, 1, 2).contiguous()


def speed(name: str, count: int) -> dict[str, float]:
    """Seconds for ``count`` images in batches of 64, drawing included."""
    names = list(library.IMAGENET_C) if name == "mix" else [name]
    batches = []
    for start in range(0, count, BATCH):
        index = torch.arange(start, min(start + BATCH, count))
        kinds = [names[i % len(names)] for i in index.tolist()]
        batches.append((PICTURES[index % 5], kinds, index % 5 + 1, index))
    warm = torch.arange(5)
    for kind in names:
        library.corrupt(PICTURES, kind, 3, SampleGenerator(warm))
        library.corrupt(PICTURES, [kind] * 5, warm + 1, SampleGenerator(warm))
    wall, cpu = time.perf_counter(), time.process_time()
    for images, kinds, severities, index in batches:
        library.corrupt(images, kinds, severities, SampleGenerator(index))
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def describe(name: str, severity: int, draws: int, seed: int, out: str) -> dict[str, float]:
    """Statistics (pictures, draws, NAMES)."""
    sources = statistics.sources(name)
    rows = []
    for number, clean in enumerate(sources):
        images = torch.from_numpy(clean).permute(2, 0, 1)[None].expand(draws, -1, -1, -1).contiguous()
        streams = SampleGenerator(torch.arange(draws) + 1_000_003 * (seed * 10 + number))
        damaged = library.corrupt(images, name, severity, streams).permute(0, 2, 3, 1).numpy()
        rows.append([statistics.describe(clean, picture, name) for picture in damaged])
    np.save(out, np.array(rows))
    return {}


for line in sys.stdin:
    request = json.loads(line)
    function = {"speed": speed, "describe": describe}[request.pop("do")]
    print(json.dumps(function(**request)), flush=True)
