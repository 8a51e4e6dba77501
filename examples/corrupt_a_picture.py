"""Every corruption on one embedded image, at severity 3, as one sheet.

usage: python examples/corrupt_a_picture.py SHEET.png
"""

import sys
from pathlib import Path

import torch

from dapg.core.images import decode, to_pil
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library
from dapg.data.sets.synthetic import Synthetic


def main(path: Path) -> None:
    """One image, repeated once per corruption; a mixed batch is corrupted in one call."""
    people = Synthetic()
    picture = decode(people.read(people.records("test")[0]), (256, 128))
    names = list(library.VISIBLE_20)
    batch = picture.expand(len(names), -1, -1, -1).contiguous()
    severities = torch.full((len(names),), 3)
    corrupted = library.corrupt(batch, names, severities, SampleGenerator(torch.arange(len(names))))
    rows = [torch.cat(list(row), dim=2) for row in corrupted.split(10)]
    to_pil(torch.cat(rows, dim=1)).save(path)
    print(f"{len(names)} corruptions: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
