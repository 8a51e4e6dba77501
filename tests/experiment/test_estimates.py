"""Estimates against seconds worked out by hand."""

from typing import Any

import pytest

from dapg.experiment.estimates import estimates, seconds_of_a_step, seconds_of_scoring, speeds

CPU = {"device": "cpu", "cores": 2, "threads": 1, "torch": "2.6", "platform": "Linux"}


def result(arm: str, seed: int, scoring: float, *trainings: tuple[str, str, str, int, float]) -> dict[str, Any]:
    """A cell's times; a training is (stage, method, run, steps, seconds)."""
    keys = ("stage", "method", "run", "steps", "seconds")
    return {
        "cell": {"arm": arm, "finetuning": "agw", "data": "synthetic", "start": "random", "seed": seed},
        "trainings": [dict(zip(keys, training, strict=True)) for training in trainings],
        "scoring_seconds": scoring,
        "machine": CPU,
    }


PLAIN = result("simclr", 0, 10.0, ("pretrain", "simclr", "p0", 100, 50.0), ("finetune", "agw", "f0", 100, 20.0))
SECOND = result("simclr", 1, 12.0, ("pretrain", "simclr", "p1", 100, 60.0), ("finetune", "agw", "f1", 100, 22.0))
SHARED = result("simclr", 0, 11.0, ("pretrain", "simclr", "p0", 100, 50.0), ("finetune", "cil", "f2", 100, 90.0))
SLOW = result(
    "simclr-corrupted", 0, 50.0, ("pretrain", "simclr", "p3", 100, 200.0), ("finetune", "agw", "f3", 100, 24.0)
)


def test_speeds_are_medians_by_arm_then_by_method() -> None:
    known = speeds([PLAIN, SECOND, SHARED, SLOW])
    assert seconds_of_a_step(known, "pretrain", "simclr", "simclr", "random") == pytest.approx(0.55)  # 0.5 and 0.6
    assert seconds_of_a_step(known, "pretrain", "simclr", "simclr-corrupted", "random") == pytest.approx(2.0)
    assert seconds_of_a_step(known, "pretrain", "simclr", "other", "random") == pytest.approx(0.6)  # 0.5, 0.6, 2.0
    assert seconds_of_a_step(known, "finetune", "agw", "other", "random") == pytest.approx(0.22)
    assert seconds_of_a_step(known, "pretrain", "byol", "byol", "random") is None
    assert seconds_of_a_step(known, "pretrain", "simclr", "simclr", "imagenet") is None
    assert known["score", "random"] == pytest.approx(11.5)


def test_each_cell_is_told_by_the_others_without_its_own_trainings() -> None:
    """Cell 0's pre-training is cell 2's too, so that only cell 1's speed tells it."""
    stored = {"a": PLAIN, "b": SECOND, "c": SHARED, "d": SLOW}
    found = {each.cell: each for each in estimates(stored)}
    assert set(found) == {"a", "b", "d"}, "nothing else was fine-tuned by CIL"
    assert found["a"].actual == pytest.approx(80.0)
    assert found["a"].estimated == pytest.approx(60.0 + 23.0 + 12.0)  # scoring: 12, 11, 50; AGW: 22, 24
    assert found["a"].error == pytest.approx(95 / 80 - 1)
    assert found["d"].estimated == pytest.approx(55.0 + 21.0 + 11.0), "by method: the arm has no other cell"


def test_other_machines_tell_nothing() -> None:
    gpu = {**SECOND, "machine": {**CPU, "device": "NVIDIA H200"}}
    assert estimates({"a": PLAIN, "b": gpu}) == []
    assert [each.cell for each in estimates({"a": PLAIN, "b": SECOND})] == ["a", "b"]


def test_scoring_takes_longer_where_corrupted_pictures_must_be_made() -> None:
    """Cells stored before it was noted count where nothing narrower is known."""
    made = [
        {**result("a", seed, seconds), "pictures_kept": False} for seed, seconds in enumerate((100.0, 110.0, 120.0))
    ]
    kept = [{**result("a", seed, seconds), "pictures_kept": True} for seed, seconds in enumerate((20.0, 40.0))]
    known = speeds([*made, *kept, result("a", 9, 70.0)])
    assert seconds_of_scoring(known, "random", False) == pytest.approx(110.0)
    assert seconds_of_scoring(known, "random", True) == pytest.approx(30.0)
    assert seconds_of_scoring(known, "random", None) == pytest.approx(85.0)  # 20, 40, 70, 100, 110, 120
    assert seconds_of_scoring(speeds(kept), "random", False) == pytest.approx(30.0), "better than nothing"
    assert seconds_of_scoring(known, "imagenet", True) is None
    by_name = dict(zip("abcde", [*made, *kept], strict=True))
    told = {each.cell: each.estimated for each in estimates(by_name)}
    assert told == {"a": 115.0, "b": 110.0, "c": 105.0, "d": 40.0, "e": 20.0}
