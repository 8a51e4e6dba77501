"""Time of the benchmark's grid beside that of evaluation's test sets, image by image: processor milliseconds.

    python benchmarks/grid_speed.py [--pictures 64] [--rounds 3]

One thread, the embedded people, a network of the scale `small`. Three ways to the features of one type at one severity:
evaluation's (each image read, corrupted, stored as BMP, decoded), the benchmark's with an empty cache (decoded once,
corrupted together), and with a full one. The best of the rounds counts, every way in turn. The whole grid of 100 is to
take at most twice what twenty test sets take evaluation, so at most 0.4 of it an image.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dapg.core.images import decode
from dapg.core.runtime import Runtime
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality, Record
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.sets.synthetic import Synthetic
from dapg.evaluation.benchmark_sets import CLEAN_SET, FeatureFolder, Maker, TestSet, cell_name
from dapg.evaluation.corrupted_sets import CorruptedDataset, policy
from dapg.evaluation.image_cache import ImageCache
from dapg.features.build_encoder import build_encoder
from dapg.features.encoders import Encoder
from dapg.features.extract import extract

SIZE = (96, 48)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure each type at severity 3 and print a table and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Synthetic()
    records = [r for r in dataset.records("test") if r.modality == Modality.VISIBLE][: options.pictures]
    network = BackboneConfig("mobilenet_v2", init="imagenet", end="layer3")
    encoder = build_encoder("imagenet", network, SIZE, 0, torch.device("cpu"))
    measure("contrast", dataset, records, encoder)  # what is done once is done now
    best = {name: [math.inf] * 3 for name in library.VISIBLE_20}
    for _ in range(options.rounds):
        for name, row in best.items():
            for way, value in enumerate(measure(name, dataset, records, encoder)):
                row[way] = min(row[way], value)
    print("| type | evaluation | empty cache | full cache |\n|---|---|---|---|")
    for name, row in best.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    mean = [sum(column) / len(best) for column in zip(*best.values(), strict=True)]
    print("| mean | " + " | ".join(f"{value:.2f}" for value in mean) + " |")
    for what, value in (("an empty", mean[1]), ("a full", mean[2])):
        print(
            f"100 test sets with {what} cache: {100 * value / (20 * mean[0]):.2f} times twenty test sets of evaluation"
        )


def measure(name: str, dataset: Dataset, records: Sequence[Record], encoder: Encoder) -> list[float]:
    """Milliseconds an image of the three ways."""
    cell = replace(policy("cil"), types=(name,), severities=(3,))
    view = CorruptedDataset(dataset, cell)
    test_set = TestSet(cell_name(name, 3), cell)
    with tempfile.TemporaryDirectory() as place:
        cache = ImageCache(Path(place) / "cache", 10**9)
        folders = [FeatureFolder(Path(place) / part) for part in ("first", "second")]
        for folder in folders:
            folder.write(CLEAN_SET, records[:1], torch.ones(1, 1))
        maker = Maker(encoder, encoder.headline, dataset, records, Runtime(), cache)
        # The grid decodes its originals once for all hundred sets; here each call would, so that is taken off.
        size = cell.height, cell.width
        decoding = seconds(lambda: [decode(dataset.read(record), size, None, record.path) for record in records])
        ways = [
            seconds(lambda: extract(encoder, view, records, Runtime())),
            seconds(lambda: maker.make([test_set], folders[0])) - 0.99 * decoding,
            seconds(lambda: maker.make([test_set], folders[1])),
        ]
    return [1000 * value / len(records) for value in ways]


if __name__ == "__main__":
    main()
