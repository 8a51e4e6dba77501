"""How the gain of stage 1 over its start grows: with its images, with its length, with the persons of fine-tuning."""

from dapg.experiment.figures import difference, in_common, seeds_of
from dapg.experiment.matrix import ARMS
from dapg.experiment.paper import modes_of
from dapg.experiment.store import CellResult, Stored
from dapg.report.plots import Gain

_OURS = "dapg-1-mixed-outside"
_CURVES = {
    "images of stage 1": (
        ("1,000", f"{_OURS}-1000", "agw"),
        ("2,000", f"{_OURS}-2000", "agw"),
        ("all", _OURS, "agw"),
    ),
    "length of stage 1": (
        ("half", f"{_OURS}-half", "agw"),
        ("as it is", _OURS, "agw"),
        ("twice", f"{_OURS}-again", "agw"),
    ),
    "persons of fine-tuning": (("50", _OURS, "agw-50"), ("100", _OURS, "agw-100"), ("all", _OURS, "agw")),
}
"""Panel -> place on its axis, arm, fine-tuning."""
_BASELINES = {"imagenet": "in-sup", "random": "none"}
assert all(arm in ARMS for points in _CURVES.values() for _, arm, _ in points)


def gains(stored: Stored) -> dict[str, list[Gain]]:
    """Panel -> mAP after stage 1 less mAP after its start alone, in points; panels with one point are left out."""
    seeds: dict[tuple[str, str, str, str], list[CellResult]] = {}
    for result in stored.values():
        data, start, finetuning = result.group
        seeds.setdefault((data, start, finetuning, result.arm), []).append(result)
    panels = {}
    for data, start in sorted({(data, start) for data, start, _, _ in seeds}):
        for name, points in _CURVES.items():
            measured = [
                _gain(place, before, after)
                for place, arm, finetuning in points
                if (before := seeds.get((data, start, finetuning, _BASELINES[start])))
                and (after := seeds.get((data, start, finetuning, arm)))
                and in_common(before, after)
            ]
            if len(measured) > 1:
                panels[f"{name}, {data}, from {start}"] = measured
    return panels


def _gain(place: str, before: list[CellResult], after: list[CellResult]) -> Gain:
    mode = modes_of(before[0].data)[0]
    gaps = {}
    for condition in ("clean", "all"):
        gap = difference(before, after, f"{mode}/{condition}")["mAP"]
        gaps[condition] = (100 * gap.value, 100 * gap.low, 100 * gap.high)
    return Gain(place, gaps["clean"], gaps["all"], min(seeds_of(before), seeds_of(after)))
