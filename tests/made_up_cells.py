"""Results of cells that never ran, as ``dapg reproduce`` stores them, and a tree on which cells run in seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dapg.core.rng import generator_from
from dapg.core.scales import SCALES
from dapg.experiment.cell import CONDITIONS
from dapg.experiment.matrix import Cell

MACHINE = {"device": "cpu", "cores": 2, "threads": 1, "torch": "2.6", "platform": "Linux"}
MODES = ("all", "indoor", "visible", "visible centred", "frozen visible", "frozen visible centred")


def made_up(cell: Cell, better: float, modes: tuple[str, ...] = MODES) -> dict[str, Any]:
    """Four persons with two queries each: every query is a hit, rank-1 and mAP alike, with probability ``better``.

    A pre-training took 36 s for 7 steps, a fine-tuning 72 s, scoring 18 s.
    """
    generator = generator_from("made up", cell.name)
    scores: dict[str, Any] = {}
    sums: dict[str, Any] = {}
    for mode in modes:
        for condition in CONDITIONS:
            hits = (torch.rand(4, 2, generator=generator) < better).double().sum(dim=1)
            table = torch.stack([hits, hits, hits, torch.full((4,), 2.0, dtype=torch.float64)], dim=1)
            scores[f"{mode}/{condition}"] = {measure: hits.sum().item() / 8 for measure in ("rank-1", "mAP", "mINP")}
            sums[f"{mode}/{condition}"] = {"persons": [1, 2, 3, 4], "sums": table.tolist()}
    *before, last = [training.out.rpartition("/")[2] for training in cell.chain]
    run = {"steps": 7, "pictures_seen": 448, "logs": {}, "curve": [[5, 2.5], [7, 1.5]], "weights": {"w": cell.name}}
    first = {**run, "stage": "pretrain", "method": cell.chain[0].name, "seconds": 36.0, "logs": {"effective_rank": 5.0}}
    tuned = {**run, "stage": "finetune", "method": cell.finetuning, "seconds": 72.0, "run": last}
    return {
        "cell": {name: getattr(cell, name) for name in ("arm", "finetuning", "data", "start", "seed")},
        "tables": ["beyond"],
        "repeats": 2,
        "trainings": [*({**first, "run": name} for name in before), tuned],
        "scores": scores,
        "persons": sums,
        "scoring_seconds": 18.0,
        "machine": MACHINE,
        "commit": "0123456789abcdef",
    }


def write_people(root: Path) -> None:
    """SYSU-MM01's layout: 8 persons to train on, 2 to validate, 3 to test, two pictures in each of six cameras."""
    (root / "exp").mkdir(parents=True)
    for split, persons in (("train", range(1, 9)), ("val", range(9, 11)), ("test", range(11, 14))):
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, persons)) + "\n")
        for person in persons:
            for camera in range(1, 7):
                folder = root / f"cam{camera}" / f"{person:04d}"
                folder.mkdir(parents=True)
                for number in (1, 2):
                    noise = torch.randint(
                        0, 256, (24, 12, 3), generator=generator_from("picture", person, camera, number)
                    )
                    Image.fromarray(noise.byte().numpy()).save(folder / f"{number:04d}.jpg")


def shrink_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each training at 32 x 16 in the scale ``tiny``."""
    tiny = SCALES["tiny"]
    starts = {
        name: replace(start, train={stage: replace(train, steps=2) for stage, train in start.train.items()})
        for name, start in tiny.starts.items()
    }
    monkeypatch.setitem(SCALES, "tiny", replace(tiny, size=(32, 16), decoded=(64, 32), starts=starts))
