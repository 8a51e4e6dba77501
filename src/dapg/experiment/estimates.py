"""How long a cell takes, from the seconds of finished cells.

A training takes its number of steps times the median seconds of a step of others like it: the same arm from the same
start, or where there is none the same method. Scoring takes the median of the same start, of cells that had the
corrupted test images in memory or of those that had to make them, which takes longer than to encode them.
"""

import statistics
from collections.abc import Iterable

from dapg.experiment.store import CellResult

Speeds = dict[tuple[str, str], float]
"""(stage, "arm or method, start") -> seconds of a step; ("score", "kept or made, start") -> of scoring a cell."""


def measured_speeds(results: Iterable[CellResult]) -> Speeds:
    """Median speeds of what is finished; a training that several cells share counts once."""
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for result in results:
        for training in result.trainings:
            per_step = training.seconds / max(training.steps, 1)
            for name in _training_kinds(training.stage, training.method, result.arm):
                seconds.setdefault((training.stage, f"{name}, {result.start}"), {})[training.run] = per_step
        for name in _scoring_kinds(result.start, result.pictures_kept):
            seconds.setdefault(("score", name), {})[result.cell.name] = result.scoring_seconds
    return {kind: statistics.median(values.values()) for kind, values in seconds.items()}


def seconds_of_a_step(speeds: Speeds, stage: str, method: str, arm: str, start: str) -> float | None:
    """Of a training; None where nothing like it has been measured."""
    kinds = [(stage, f"{name}, {start}") for name in _training_kinds(stage, method, arm)]
    return next((speeds[kind] for kind in kinds if kind in speeds), None)


def seconds_of_scoring(speeds: Speeds, start: str, in_memory: bool | None) -> float | None:
    """Of a cell; ``in_memory``: whether corrupted images are in memory, None where nobody knows."""
    return next((speeds["score", name] for name in _scoring_kinds(start, in_memory) if ("score", name) in speeds), None)


def _scoring_kinds(start: str, in_memory: bool | None) -> list[str]:
    """What makes scorings alike, the closer likeness first."""
    return [start] if in_memory is None else [f"{'kept' if in_memory else 'made'}, {start}", start]


def _training_kinds(stage: str, method: str, arm: str) -> list[str]:
    """What makes trainings alike, the closer likeness first: views and negatives, which cost time, are the arm's."""
    return [f"method {method}"] if stage == "finetune" else [f"arm {arm}", f"method {method}"]
