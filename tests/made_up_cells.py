"""Results of cells that never ran, and a tree on which cells run in seconds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.core.rng import generator_from
from dapg.core.scales import SCALES
from dapg.corruptions.library import DRAWS
from dapg.experiment.matrix import Cell
from dapg.experiment.store import CONDITIONS, CellResult, Machine, TrainingResult
from dapg.scoring.bootstrap import PersonScores

MACHINE = Machine("cpu", 2, 1, "Linux", "2.6")
MODES = ("all-100", "visible-100 centred", "frozen visible-100 centred")


def made_up(cell: Cell, better: float, modes: tuple[str, ...] = MODES) -> CellResult:
    """Four persons with two queries each: every query is a hit, rank-1 and mAP alike, with probability ``better``.

    A pre-training took 36 s for 7 steps, a fine-tuning 72 s, scoring 18 s.
    """
    generator = generator_from("made up", cell.name)
    scores: dict[str, dict[str, float]] = {}
    persons: dict[str, PersonScores] = {}
    for mode in modes:
        for condition in CONDITIONS:
            hits = (torch.rand(4, 2, generator=generator) < better).double().sum(dim=1)
            table = torch.stack([hits, hits, hits, torch.full((4,), 2.0, dtype=torch.float64)], dim=1)
            scores[f"{mode}/{condition}"] = {measure: hits.sum().item() / 8 for measure in ("rank-1", "mAP", "mINP")}
            persons[f"{mode}/{condition}"] = PersonScores((1, 2, 3, 4), table.numpy())
    *before, last = [training.out.rpartition("/")[2] for training in cell.chain] or ["run-0"]
    return CellResult(
        cell.arm,
        cell.finetuning,
        cell.data,
        cell.start,
        cell.seed,
        scale="small",
        repeats=2,
        draws=DRAWS,
        corruptions="0123456789abcdef",
        feature="after_bn",
        scores=scores,
        trainings=(
            *(_training("pretrain", cell.chain[0].name, name, 36.0, {"effective_rank": 5.0}) for name in before),
            _training("finetune", cell.finetuning, last, 72.0, {}),
        ),
        scoring_seconds=18.0,
        pictures_kept=None,
        machine=MACHINE,
        version="0.1.0",
        commit="0123456789abcdef",
        persons=persons,
    )


def _training(stage: str, method: str, run: str, seconds: float, logs: dict[str, float]) -> TrainingResult:
    data: dict[str, str | int | None] = {"hash": "0123", "pictures": 64}
    return TrainingResult(stage, method, run, {"w": run}, data, 7, 448, seconds, logs, [(5, 2.5), (7, 1.5)])


def write_people(root: Path) -> None:
    """SYSU-MM01's layout: 8 persons to train on, 2 to validate, 3 to test, two images in each of six cameras."""
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


def shrink_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each training at 32 x 16 in the scale ``small``."""
    small = SCALES["small"]
    starts = {
        name: replace(
            start, train={stage: replace(train, steps=2, batch_size=16) for stage, train in start.train.items()}
        )
        for name, start in small.starts.items()
    }
    monkeypatch.setitem(SCALES, "small", replace(small, size=(32, 16), decoded=(64, 32), starts=starts))
