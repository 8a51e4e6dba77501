"""PCK of a key-point estimator on synthetic people, whose exact key points are known: by joint, yaw and modality.

    python benchmarks/pose_pck.py TABLE [--data SOURCE] [--json FILE]

TABLE is what ``dapg pose estimate`` wrote for the same data with any estimator. Only true points inside the image
count, hidden ones too; a point counts as hit within a part of the torso's length (neck to middle of the hips).
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from dapg.core.key_points import KEY_POINT_NAMES, usable
from dapg.core.train_config import DataConfig
from dapg.data.source import open_dataset, parse_source
from dapg.pose.estimate import all_records
from dapg.pose.estimators.annotations import Annotations
from dapg.pose.key_point_table import read_table
from dapg.pose.scores import errors

FRACTIONS = (0.1, 0.2)
YAWS = {"front": 0, "right": 90, "back": 180, "left": 270}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = read_table(options.table)
    dataset = open_dataset(parse_source(options.data))
    records = [record for record in all_records(dataset, DataConfig()) if (record.path, record.box) in set(table.keys)]
    size = torch.tensor([192, 96]).expand(len(records), 2)
    truth = Annotations(Annotations.Config(), dataset).estimate(
        torch.zeros(len(records), 3, 1, 1, dtype=torch.uint8), size, records
    )
    estimated = table.of(records)
    found = errors(estimated, truth, torch.full((len(records),), 0.5))
    rows = {}
    for name, chosen in groups(dataset, records, truth):
        rows[name] = scores(found, truth, chosen)
    fine = usable(estimated)
    rows["all usable images"] = scores(found, truth, fine[:, None].expand_as(found))
    print(f"{len(records)} images; {int((estimated[..., 2] > 0).any(1).sum())} detected, {int(fine.sum())} usable")
    print("| points | number | PCK@0.1 | PCK@0.2 | median error |\n|---|---|---|---|---|")
    for name, row in rows.items():
        cells = " | ".join(f"{100 * row[f'pck_{fraction}']:.1f}" for fraction in FRACTIONS)
        print(f"| {name} | {row['points']:,} | {cells} | {row['median']:.3f} |")
    if options.json:
        options.json.write_text(json.dumps({"about": table.about, "rows": rows}, indent=1))


def groups(dataset, records, truth) -> Iterable[tuple[str, torch.Tensor]]:
    """Named masks (N, 18)."""
    truths = [dataset.truth(record) for record in records]
    everything = torch.ones_like(truth[..., 2], dtype=torch.bool)
    yield "all", everything
    yield "visible points", truth[..., 2] == 1
    yield "hidden points", truth[..., 2] == 0.5
    for light in sorted({row["modality"] for row in truths}):
        yield f"modality {light}", torch.tensor([row["modality"] == light for row in truths])[:, None] & everything
    yaw = torch.tensor([float(row["yaw"]) for row in truths])
    for name, middle in YAWS.items():
        turned = ((yaw - middle + 180) % 360 - 180).abs() <= 45
        yield f"yaw {name}", turned[:, None] & everything
    yield "covered by something", torch.tensor([row["occluder"] != "none" for row in truths])[:, None] & everything
    joints = sorted({name.removeprefix("left_").removeprefix("right_") for name in KEY_POINT_NAMES})
    for joint in joints:
        yield f"joint {joint}", torch.tensor([name.endswith(joint) for name in KEY_POINT_NAMES])[None] & everything


def scores(found, truth, chosen) -> dict[str, float]:
    counted = chosen & (truth[..., 2] > 0)
    values = found[counted]
    hits = {f"pck_{fraction}": float((values <= fraction).float().mean()) for fraction in FRACTIONS}
    return {"points": int(counted.sum()), "median": float(values.median()), **hits}


if __name__ == "__main__":
    main()
