"""Speeds against seconds worked out by hand."""

from dataclasses import replace

import pytest

from dapg.commands.reproduce_plan import _cost
from dapg.experiment.estimates import measured_speeds, seconds_of_a_step, seconds_of_scoring
from dapg.experiment.matrix import Cell
from dapg.experiment.store import CellResult, TrainingResult
from made_up_cells import made_up


def result(arm: str, seed: int, scoring: float, *trainings: tuple[str, str, str, int, float]) -> CellResult:
    """A cell's times; a training is (stage, method, run, steps, seconds)."""
    blank = TrainingResult("", "", "", {}, {}, 0, 0, 0.0, {})
    made = made_up(Cell(arm, "agw", "synthetic", "random", seed), 0.5, ("all",))
    chain = tuple(
        replace(blank, stage=stage, method=method, run=run, steps=steps, seconds=seconds)
        for stage, method, run, steps, seconds in trainings
    )
    return replace(made, trainings=chain, scoring_seconds=scoring)


PLAIN = result("simclr", 0, 10.0, ("pretrain", "simclr", "p0", 100, 50.0), ("finetune", "agw", "f0", 100, 20.0))
SECOND = result("simclr", 1, 12.0, ("pretrain", "simclr", "p1", 100, 60.0), ("finetune", "agw", "f1", 100, 22.0))
SHARED = result("simclr", 2, 11.0, ("pretrain", "simclr", "p0", 100, 50.0), ("finetune", "cil", "f2", 100, 90.0))
SLOW = result(
    "simclr-corrupted", 0, 50.0, ("pretrain", "simclr", "p3", 100, 200.0), ("finetune", "agw", "f3", 100, 24.0)
)


def test_speeds_are_medians_by_arm_then_by_method() -> None:
    speeds = measured_speeds([PLAIN, SECOND, SHARED, SLOW])
    assert seconds_of_a_step(speeds, "pretrain", "simclr", "simclr", "random") == pytest.approx(0.55)  # 0.5 and 0.6
    assert seconds_of_a_step(speeds, "pretrain", "simclr", "simclr-corrupted", "random") == pytest.approx(2.0)
    assert seconds_of_a_step(speeds, "pretrain", "simclr", "other", "random") == pytest.approx(0.6)  # 0.5, 0.6, 2.0
    assert seconds_of_a_step(speeds, "finetune", "agw", "other", "random") == pytest.approx(0.22)
    assert seconds_of_a_step(speeds, "pretrain", "byol", "byol", "random") is None
    assert seconds_of_a_step(speeds, "pretrain", "simclr", "simclr", "imagenet") is None
    assert speeds["score", "random"] == pytest.approx(11.5)


def test_scoring_takes_longer_where_corrupted_pictures_must_be_made() -> None:
    """Cells stored before it was noted count where nothing narrower is known."""
    made = [
        replace(result("a", seed, seconds), pictures_kept=False) for seed, seconds in enumerate((100.0, 110.0, 120.0))
    ]
    kept = [replace(result("a", seed, seconds), pictures_kept=True) for seed, seconds in ((3, 20.0), (4, 40.0))]
    speeds = measured_speeds([*made, *kept, result("a", 9, 70.0)])
    assert seconds_of_scoring(speeds, "random", False) == pytest.approx(110.0)
    assert seconds_of_scoring(speeds, "random", True) == pytest.approx(30.0)
    assert seconds_of_scoring(speeds, "random", None) == pytest.approx(85.0)  # 20, 40, 70, 100, 110, 120
    assert seconds_of_scoring(measured_speeds(kept), "random", False) == pytest.approx(30.0), "better than nothing"
    assert seconds_of_scoring(speeds, "imagenet", True) is None


@pytest.mark.parametrize(
    "seconds, said",
    [
        ([60.0, 90.0], "about 2.5 min and 1.5 GB of disk"),
        ([60.0, None], "about 1.0 min and 1.5 GB of disk; the time of 1 more cell is unknown: nothing like it was"),
        ([None, None], "1.5 GB of disk; time unknown: none of these 2 cells is like one that was measured here"),
        ([None], "1.5 GB of disk; time unknown: this cell is not like one that was measured here"),
    ],
)
def test_a_plan_says_what_it_costs_and_what_it_does_not_know(seconds: list[float | None], said: str) -> None:
    assert _cost(seconds, 1_500_000_000).startswith(said)
