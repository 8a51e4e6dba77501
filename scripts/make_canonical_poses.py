"""Makes src/dapg/assets/poses/canonical.json: mean key points of standing synthetic people, seen from four sides.

    python scripts/make_canonical_poses.py --assets KIT

Renders a small set with ``--poses canonical`` (framing and pose do not hang on the camera), reads its annotations and
averages positions over persons. The confidence is 1 where most persons' point is visible, 0.5 where it is hidden.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from dapg.augment.skeleton import CANONICAL_FILE
from dapg.core.engines.base import EngineSettings
from dapg.core.files import atomic_write_text
from dapg.data.sets.synthetic import Synthetic
from dapg.synth.poses import CANONICAL_YAWS
from dapg.synth.render import Settings, render_dataset

PERSONS, HEIGHT, WIDTH = 24, 256, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=CANONICAL_FILE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            out=Path(folder) / "people", assets=options.assets, persons=PERSONS, validation_persons=0, test_persons=0,
            poses="canonical", height=HEIGHT, width=WIDTH, engine=EngineSettings(),
        )  # fmt: skip
        people = Synthetic(render_dataset(settings))
        rows: dict[str, list[torch.Tensor]] = {name: [] for name in CANONICAL_YAWS}
        for record in people.records("train"):
            kind = people.truth(record)["pose"]["kind"]
            rows[kind.removeprefix("canonical ")].append(people.key_points(record))
    poses = {name: _mean(torch.stack(points)) for name, points in rows.items()}
    source = f"mean of {PERSONS} standing synthetic people; scripts/make_canonical_poses.py"
    lines = ",\n".join(f'    "{name}": {json.dumps(points)}' for name, points in poses.items())
    atomic_write_text(options.out, f'{{\n  "source": "{source}",\n  "poses": {{\n{lines}\n  }}\n}}\n')


def _mean(points: torch.Tensor) -> list[list[float]]:
    """(N, 18, 3) in pixels and flags -> x, y as parts of the image, confidence."""
    places = points[..., :2].mean(dim=0) / torch.tensor([WIDTH, HEIGHT])
    visible = (points[..., 2] == 2).float().mean(dim=0) > 0.5
    return [
        [round(float(x), 4), round(float(y), 4), 1.0 if seen else 0.5]
        for (x, y), seen in zip(places, visible, strict=True)
    ]


if __name__ == "__main__":
    main()
