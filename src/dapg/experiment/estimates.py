"""How long a cell takes, from the seconds of finished cells; and how near such an estimate came, leaving each one out.

A training takes its number of steps times the median seconds of a step of others like it: the same arm from the same
start, or where there is none the same method. Scoring takes the median of the same start, of cells that found the
corrupted test pictures in memory or of those that had to make them, which takes longer than to encode them.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Speeds = dict[tuple[str, str], float]
"""(stage, "arm or method, start") -> seconds of a step; ("score", "kept or made, start") -> of scoring a cell."""
Result = Mapping[str, Any]
"""Content of a cell's result file."""


@dataclass(frozen=True)
class Estimate:
    """A finished cell's estimate from the other cells beside what it took."""

    cell: str
    estimated: float
    """Seconds."""
    actual: float
    """Seconds of its trainings, shared ones among them, and of scoring."""

    @property
    def error(self) -> float:
        """Estimated over actual, less one."""
        return self.estimated / self.actual - 1


def speeds(results: Iterable[Result]) -> Speeds:
    """Median speeds of what is finished; a training that several cells share counts once."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number, result in enumerate(results):
        arm, start = result["cell"]["arm"], result["cell"]["start"]
        for training in result["trainings"]:
            per_step = training["seconds"] / max(training["steps"], 1)
            for name in _likes(training["stage"], training["method"], arm):
                found.setdefault((training["stage"], f"{name}, {start}"), {})[training["run"]] = per_step
        for name in _scorings(start, result.get("pictures_kept")):
            found.setdefault(("score", name), {})[str(number)] = result["scoring_seconds"]
    return {key: statistics.median(values.values()) for key, values in found.items()}


def seconds_of_a_step(known: Speeds, stage: str, method: str, arm: str, start: str) -> float | None:
    """Of a training; None where nothing like it has been measured."""
    keys = [(stage, f"{name}, {start}") for name in _likes(stage, method, arm)]
    return next((known[key] for key in keys if key in known), None)


def seconds_of_scoring(known: Speeds, start: str, kept: bool | None) -> float | None:
    """Of a cell; ``kept``: whether corrupted pictures are in memory, None where nobody knows."""
    return next((known["score", name] for name in _scorings(start, kept) if ("score", name) in known), None)


def _scorings(start: str, kept: bool | None) -> list[str]:
    """What makes scorings alike, the narrower likeness first."""
    return [start] if kept is None else [f"{'kept' if kept else 'made'}, {start}", start]


def _likes(stage: str, method: str, arm: str) -> list[str]:
    """What makes trainings alike, the narrower likeness first: views and negatives, which cost time, are the arm's."""
    return [f"method {method}"] if stage == "finetune" else [f"arm {arm}", f"method {method}"]


def estimates(stored: Mapping[str, Result]) -> list[Estimate]:
    """Each finished cell, by name, as the others on such machines would have told it, shared trainings left out.

    Cells whose like the others do not hold are left out.
    """
    found = []
    for name, result in sorted(stored.items()):
        arm, start = result["cell"]["arm"], result["cell"]["start"]
        runs = {training["run"] for training in result["trainings"]}
        known = speeds(
            {**other, "trainings": [each for each in other["trainings"] if each["run"] not in runs]}
            for key, other in stored.items()
            if key != name and machine_words(other["machine"]) == machine_words(result["machine"])
        )
        parts = [seconds_of_scoring(known, start, result.get("pictures_kept"))]
        for training in result["trainings"]:
            per_step = seconds_of_a_step(known, training["stage"], training["method"], arm, start)
            parts.append(None if per_step is None else per_step * training["steps"])
        told = [part for part in parts if part is not None]
        if len(told) == len(parts):
            found.append(Estimate(name, sum(told), seconds(result)))
    return found


def seconds(result: Result) -> float:
    """What a cell took, its trainings included, also those that it shares."""
    return float(sum(training["seconds"] for training in result["trainings"]) + result["scoring_seconds"])


def machine_words(made: Mapping[str, Any]) -> str:
    """The kind of machine, from a result's ``machine``."""
    cores = f"{made['cores']} cores, " if made["device"] == "cpu" else ""
    threads = f"{made['threads']} thread{'s' if made['threads'] > 1 else ''}"
    return f"{made['device']} ({cores}{threads}, torch {made['torch']})"
