"""RegDB's ten partitions in one command: ten trainings, each scored on its own test persons, and their mean."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dapg.core import distributed
from dapg.core.errors import UsageError
from dapg.core.files import write_json
from dapg.core.types import JsonObject
from dapg.data.sets.regdb import PARTITIONS
from dapg.evaluation.evaluate import EvaluateSettings, evaluate
from dapg.recipes import make_validate
from dapg.training.finetune import finetune
from dapg.training.training_settings import FinetuneSettings

SUMMARY = "summary.json"
MODES = ("visible-to-thermal", "thermal-to-visible")


def parse_partitions(text: str) -> list[int]:
    """Numbers from ``all``, ``3``, ``1,4`` or ``2-5``, ascending.

    Raises:
        UsageError: something else, or a number outside 1 ... 10.
    """
    if text == "all":
        return list(PARTITIONS)
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise UsageError(f"--partitions takes all, or numbers like 1,4 or 2-5, not {text!r}")
        numbers |= set(range(int(first), int(last or first) + 1))
    if not numbers or not numbers <= set(PARTITIONS):
        raise UsageError(f"RegDB's partitions are {min(PARTITIONS)} to {max(PARTITIONS)}; got {text!r}")
    return sorted(numbers)


def partition_settings(settings: FinetuneSettings, number: int) -> FinetuneSettings:
    """The settings for one partition, in a folder of its own.

    Raises:
        UsageError: another data set, or a split that was chosen by hand.
    """
    if settings.data.name != "regdb":
        raise UsageError(f"--partitions belongs to --data regdb=PATH, not to {settings.data.name}")
    if settings.data.split:
        raise UsageError("--partitions chooses the split of each partition; leave --data.split out")
    out = str(Path(settings.out) / f"partition-{number}")
    return replace(settings, data=replace(settings.data, split=f"train-{number}"), out=out)


def run_partitions(settings: FinetuneSettings, numbers: list[int], say: Callable[[str], None]) -> JsonObject:
    """Train and score each partition (finished ones are reused) and write their mean and spread to summary.json.

    Returns:
        The summary: for both directions and each feature rank-1, mAP and mINP of every partition, mean and standard
        deviation.
    """
    plans = [(number, partition_settings(settings, number)) for number in numbers]
    scores: dict[str, dict[int, JsonObject]] = {mode: {} for mode in MODES}
    comparable = True
    for number, plan in plans:
        say(f"partition {number}: {plan.out}")
        finetune(plan, make_validate(plan))
        if distributed.rank() > 0:
            continue
        for mode in MODES:
            result = evaluate(_evaluation(plan, mode))
            comparable = comparable and result["comparable"]
            scores[mode][number] = result["scores"]
    summary = {
        "method": settings.name,
        "partitions": numbers,
        "comparable": comparable and numbers == list(PARTITIONS),
        "scores": {mode: _mean_and_spread(results) for mode, results in scores.items() if results},
    }
    if distributed.rank() == 0:
        write_json(Path(settings.out) / SUMMARY, summary)
    return summary


def _evaluation(plan: FinetuneSettings, mode: str) -> EvaluateSettings:
    return EvaluateSettings(
        model=plan.out,
        data=plan.data.whole(),
        mode=mode,
        device=plan.device,
        workers=plan.loader.workers,
        out=str(Path(plan.out) / f"evaluate-{mode}"),
    )


def _mean_and_spread(results: dict[int, JsonObject]) -> dict[str, dict[str, JsonObject]]:
    """Feature -> measure -> value of each partition, mean and standard deviation (None for a single partition)."""
    table: dict[str, dict[str, JsonObject]] = {}
    for feature in next(iter(results.values())):
        for measure in ("rank-1", "mAP", "mINP"):
            values = {number: _value(scores[feature], measure) for number, scores in results.items()}
            numbers = list(values.values())
            spread = statistics.stdev(numbers) if len(numbers) > 1 else None
            line = {"each": values, "mean": statistics.fmean(numbers), "std": spread}
            table.setdefault(feature, {})[measure] = line
    return table


def _value(scores: JsonObject, measure: str) -> float:
    return float(scores["cmc"][0] if measure == "rank-1" else scores[measure])
