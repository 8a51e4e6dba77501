"""The sheets of docs/reference/synthetic.md: people in all cameras, key points, canonical views, unlabelled images.

python benchmarks/synthetic_sheets.py --assets KIT --out docs/images
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dapg.core.engines.base import EngineSettings
from dapg.core.types import Record
from dapg.data.sets.synthetic import Synthetic
from dapg.synth.render import Settings, render_dataset

BONES = (
    (1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _save(rows: list[list[Image.Image]], path: Path) -> None:
    pixels = [np.concatenate([np.asarray(picture) for picture in row], axis=1) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(pixels)).save(path, quality=80)
    print(path, path.stat().st_size)


def _skeleton(dataset: Synthetic, record: Record) -> Image.Image:
    """Twice the size, visible joints filled, hidden ones hollow."""
    picture = _open(dataset.read(record))
    picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    points = dataset.key_points(record).tolist()
    for a, b in BONES:
        if points[a][2] and points[b][2]:
            draw.line([(2 * points[a][0], 2 * points[a][1]), (2 * points[b][0], 2 * points[b][1])], fill=(255, 220, 0))
    for x, y, flag in points:
        if flag:
            box = (2 * x - 3, 2 * y - 3, 2 * x + 3, 2 * y + 3)
            draw.ellipse(box, fill=(0, 230, 0) if flag == 2 else None, outline=(0, 230, 0))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    people = Synthetic()
    with tempfile.TemporaryDirectory() as scratch:
        regdb = render_dataset(
            Settings(
                Path(scratch) / "regdb", arguments.assets, persons=10, style="regdb", seed=3, engine=EngineSettings()
            )
        )
        views = render_dataset(
            Settings(
                Path(scratch) / "canonical",
                arguments.assets,
                persons=6,
                validation_persons=0,
                test_persons=0,
                poses="canonical",
                seed=3,
                engine=EngineSettings(),
            )
        )
        rows = []
        for person in range(1, 9):
            row = [_open(people.read(Record(f"cam{c}/{person:04d}/0001.webp"))) for c in (1, 2, 4, 5, 3, 6)]
            for folder in ("Visible", "Thermal"):
                row.append(_open(sorted((regdb / folder / str(person)).glob("*.bmp"))[0].read_bytes()))
            rows.append(row)
        _save(rows, arguments.out / "synthetic_people.jpg")
        rows = [
            [_open((views / f"cam{c}/{person:04d}/{k:04d}.jpg").read_bytes()) for c in (2, 3) for k in (1, 2, 3, 4)]
            for person in range(1, 7)
        ]
        _save(rows, arguments.out / "synthetic_canonical.jpg")
    records = people.records("test")
    chosen = [records[i] for i in (0, 27, 110, 245, 310, 472, 561, 690, 825, 1141)]
    points = [_skeleton(people, record) for record in chosen]
    _save([points[:5], points[5:]], arguments.out / "synthetic_key_points.jpg")
    free = [_open(people.read(record)) for record in people.records("unlabelled")[:36]]
    _save([free[:12], free[12:24], free[24:]], arguments.out / "synthetic_unlabelled.jpg")


if __name__ == "__main__":
    main()
