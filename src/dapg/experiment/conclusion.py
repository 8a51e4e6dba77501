"""What an experiment shows, in sentences computed from its cells: first what was registered, then our arm."""

from collections.abc import Iterator
from statistics import fmean

from dapg.core.words import counted
from dapg.experiment import registration
from dapg.experiment.figures import difference, ours_and_others, seeds_of
from dapg.experiment.matrix import Group, arm_called
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult, Stored
from dapg.report.experiment_page import Table

_CONDITIONS = {"all": "corrupted", "clean": "clean"}
_TUNERS = {
    "agw": "AGW",
    "cil": "CIL",
    "caj": "CAJ",
    "deen": "DEEN",
    "pmwgcn": "PMWGCN",
    "baseline": "the base method",
    "agw-50": "AGW on 50 persons",
    "agw-100": "AGW on 100 persons",
}
_STARTS = {"imagenet": "ImageNet", "random": "random weights"}
_MODES = {
    "all-100": "infrared to visible",
    "visible-100 centred": "visible to visible, centred per camera",
    "frozen visible-100 centred": "visible to visible before fine-tuning, centred per camera",
    "all": "all cameras",
    "indoor": "indoor cameras",
}
_DATA = {"synthetic": "synthetic people", "sysu": "SYSU-MM01", "regdb": "RegDB", "thermal": "rendered thermal people"}


def in_words(group: Group, experiment: Experiment) -> str:
    """``AGW from ImageNet``, with the data set where the experiment has several."""
    data, start, finetuning = group
    where = f" on {_DATA.get(data, data)}" if len(experiment.sources) > 1 else ""
    return f"{_TUNERS.get(finetuning, finetuning)} from {_STARTS[start]}{where}"


def mode_in_words(mode: str) -> str:
    """What searches what."""
    return _MODES.get(mode, mode.replace("-", " "))


def conclusion(experiment: Experiment, stored: Stored, primary: Table) -> list[str]:
    """The registered comparison's verdicts; then our arm beside the strongest other one, group by group.

    Args:
        experiment: whose cells they are.
        stored: with sums by person.
        primary: the registered comparison; no rows where nothing is registered.
    """
    stated = registration.read(experiment)
    sentences = []
    if stated is None:
        sentences.append("No comparison is registered for these cells, so everything here is exploratory.")
    else:
        condition = _CONDITIONS.get(stated.condition, stated.condition)
        question = f"{_called(stated.arm)} above {_called(stated.baseline)} on {condition} images"
        for row in primary.rows:
            tuner = _TUNERS.get(row["fine-tuning"], row["fine-tuning"])
            gap = f" ({row['difference']} points of mAP, 95 % interval)" if row["difference"] else ""
            sentences.append(f"Registered: {question} under {tuner}: {row['verdict']}{gap}.")
    compared = list(_beside_the_strongest(experiment, stored))
    return [*sentences, *(compared or ["No two arms that this page compares have run yet."])]


def _beside_the_strongest(experiment: Experiment, stored: Stored) -> Iterator[str]:
    """A sentence for each group: ours minus the strongest arm that is no part of it, chosen for each kind of images."""
    groups: dict[Group, dict[str, list[CellResult]]] = {}
    for cell in experiment.cells():
        if cell.name in stored:
            groups.setdefault(cell.group, {}).setdefault(cell.arm, []).append(stored[cell.name])
    for group, arms in groups.items():
        ours, rivals = ours_and_others(arms)
        others = [arm for arm in rivals if not arm.startswith("dapg")]
        if others:
            places = [_place(arms, ours, others, f"{modes_of(group[0])[0]}/{name}") for name in _CONDITIONS]
            seeds, parts = counted(seeds_of(arms[ours]), "seed"), len({result.data for result in arms[ours]})
            seeds += f" on each of {parts} partitions" if parts > 1 else ""
            yield (
                f"{in_words(group, experiment)}, {seeds}: on corrupted images {_called(ours)} is {places[0]}; "
                f"on clean images it is {places[1]}."
            )


def _place(arms: dict[str, list[CellResult]], ours: str, others: list[str], score: str) -> str:
    """Where ours stands beside the strongest other, with the difference in points of mAP."""
    other = max(others, key=lambda arm: fmean(result.scores[score]["mAP"] for result in arms[arm]))
    gap = difference(arms[other], arms[ours], score)["mAP"]
    judged = "ahead of" if gap.low > 0 else "behind" if gap.high < 0 else "not told apart from"
    value, low, high = (100 * number for number in (gap.value, gap.low, gap.high))
    return f"{judged} the strongest other start, {_called(other)}: {value:+.1f} ({low:+.1f} to {high:+.1f})"


def _called(arm: str) -> str:
    """``DAPG (both stages)``: a name for sentences."""
    name, comma, more = arm_called(arm).title.partition(", ")
    return f"{name} ({more})" if comma else name
