"""What the size of an image when it is corrupted does to each type, for a network that sees 96 x 48.

The table of docs/explanation/experiment.md.

python benchmarks/corruption_size.py

Embedded validation images are corrupted at four sizes with equal draws and shrunk to 96 x 48. The table says how far
(root mean square of grey levels) the result is from the clean image: a type whose strength is counted in pixels is
weaker, the larger the image it was applied to.
"""

import torch
from torch.nn import functional

from dapg.core.images import decode
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library
from dapg.data.sets.synthetic import VISIBLE_CAMERAS, Synthetic

SIZES, SEEN_SIZE = ((96, 48), (128, 64), (192, 96), (256, 128)), (96, 48)
SEVERITY, EVERY = 3, 10


def main() -> None:
    torch.set_num_threads(1)
    people = Synthetic()
    records = [record for record in people.records("val") if record.camera in VISIBLE_CAMERAS][::EVERY]
    sizes = " | ".join(f"{height} x {width}" for height, width in SIZES)
    print(f"| type (severity {SEVERITY}, {len(records)} images) | {sizes} |")
    print("|---" * (len(SIZES) + 1) + "|")
    for name in library.names():
        row = []
        for size in SIZES:
            images = torch.stack([decode(people.read(record), size) for record in records])
            streams = SampleGenerator(torch.arange(len(records)))
            corrupted, clean = (
                functional.interpolate(part.float(), SEEN_SIZE, mode="bilinear", antialias=True)
                for part in (library.corrupt(images, name, SEVERITY, streams), images)
            )
            row.append(float((corrupted - clean).square().mean().sqrt()))
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
