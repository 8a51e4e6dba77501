"""The experiment's further questions: each ends as *holds here*, *does not* or *cannot be told*, with its interval.

They are judged one by one at 5 %, without a correction, and so are exploratory beside the registered comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult, Stored
from dapg.report.experiment_page import Table
from dapg.report.score_tables import Row
from dapg.scoring.bootstrap import PersonScores, compare

_STAGE_1, _VISIBLE = "dapg-1-mixed-outside", "visible-100 centred"
Side = tuple[str, str]
"""Arm, fine-tuning."""


@dataclass(frozen=True)
class Question:
    """A claim that ``second`` scores above ``first``, or with ``above`` false below it."""

    letter: str
    claim: str
    first: Side
    second: Side
    condition: str = "all"
    """Of the test images; ``lost``: what corrupted images add to or take from the difference on clean ones."""
    measure: str = "mAP"
    above: bool = True
    start: str = "imagenet"
    mode: str = ""
    """Empty: the data set's first."""


def _fig_1(tuner: str, name: str) -> tuple[Question, Question]:
    sides = ("in-sup", "agw"), ("in-sup", tuner)
    return (
        Question("a", f"Fig. 1: {name} is above AGW on corrupted images", *sides, measure="rank-1"),
        Question("a", f"Fig. 1: {name} is below AGW on clean images", *sides, "clean", "rank-1", above=False),
    )


def _under(tuner: str, name: str) -> tuple[Question, ...]:
    """What is asked of both fine-tunings."""
    start, both, first = ("in-sup", tuner), ("dapg", tuner), (_STAGE_1, tuner)
    return (
        Question("b", f"both stages are above ImageNet on clean images, {name}", start, both, "clean"),
        Question("b", f"both stages are above ImageNet on corrupted images, {name}", start, both),
        Question("c", f"stage 1 gains more on corrupted than on clean images, {name}", start, first, "lost"),
    )


_START, _FIRST = ("in-sup", "agw"), (_STAGE_1, "agw")
QUESTIONS = (
    *_fig_1("cil", "CIL"),
    *_fig_1("pmwgcn", "PMWGCN (reconstruction)"),
    *_under("agw", "AGW"),
    *_under("cil", "CIL"),
    Question("d", "Table III: L_total is above InfoNCE with one positive", ("dapg-1-single", "agw"), ("dapg-1", "agw")),
    Question(
        "d",
        "Table III: L_total is above one positive with the batch's negatives",
        ("dapg-1-single-batch", "agw"),
        ("dapg-1", "agw"),
    ),
    Question("d", "Table III: both stages are above stage 1", ("dapg-1", "agw"), ("dapg", "agw")),
    Question("d", "Table III: both stages are above stage 2 alone", ("dapg-2", "agw"), ("dapg", "agw")),
    Question("d", "Table III: stage 2 alone is below ImageNet", _START, ("dapg-2", "agw"), above=False),
    Question("e", "stage 1 is above ImageNet on unseen types", _START, _FIRST, "unseen"),
    Question("f", "stage 1 is above ImageNet, visible to visible, clean", _START, _FIRST, "clean", mode=_VISIBLE),
    Question("f", "stage 1 is above ImageNet, visible to visible, corrupted", _START, _FIRST, mode=_VISIBLE),
    Question("g", "both stages are above none from random weights", ("none", "agw"), ("dapg", "agw"), start="random"),
)


def answers(experiment: Experiment, stored: Stored) -> Table:
    """A row for each question whose two sides have run on the synthetic people with at least two seeds."""
    chosen = [result for result in stored.values() if result.data == "synthetic" and result.seed < experiment.seeds]
    rows = [row for question in sorted(QUESTIONS, key=lambda asked: asked.letter) if (row := _answer(question, chosen))]
    note = (
        "Points of mAP (a: rank-1) with 95 % interval over test persons crossed with seeds; each is judged on its own "
        "at 5 %, without a correction, so these are exploratory. Found at 80 %: the difference that an equal study "
        "would find four times in five. Questions whose cells have not run with two seeds are left out."
    )
    return Table("Further questions", rows, note)


def _answer(question: Question, results: Sequence[CellResult]) -> Row | None:
    mode = question.mode or modes_of("synthetic")[0]
    sides = []
    for arm, finetuning in (question.first, question.second):
        side = [result for result in results if result.group == ("synthetic", question.start, finetuning)]
        sides.append([scores for result in side if result.arm == arm and (scores := _scores(result, mode, question))])
    before, after = sides
    if min(len(before), len(after)) < 2:
        return None
    gap = compare(before, after, replicates=20_000)[question.measure]
    low, high = (gap.low, gap.high) if question.above else (-gap.high, -gap.low)
    return {
        "": question.letter,
        "claim": question.claim,
        "seeds": " and ".join(dict.fromkeys(str(len(side)) for side in sides)),
        "difference": f"{100 * gap.value:+.2f} ({100 * gap.low:+.2f} to {100 * gap.high:+.2f})",
        "found at 80 %": f"{100 * gap.detectable():.2f}",
        "verdict": "holds here" if low > 0 else "does not" if high < 0 else "cannot be told",
    }


def _scores(result: CellResult, mode: str, question: Question) -> PersonScores | None:
    if question.condition != "lost":
        return result.persons.get(f"{mode}/{question.condition}")
    corrupted, clean = (result.persons.get(f"{mode}/{condition}") for condition in ("all", "clean"))
    if corrupted is None or clean is None:
        return None
    assert np.array_equal(corrupted.sums[:, -1], clean.sums[:, -1]), (
        "the queries are the same: the gallery is corrupted"
    )
    return replace(clean, sums=np.hstack([corrupted.sums[:, :-1] - clean.sums[:, :-1], clean.sums[:, -1:]]))
