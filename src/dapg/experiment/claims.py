"""What the paper says in words, checked: against its own tables, against its sources, and beside what was run here."""

import itertools
from collections.abc import Iterable, Sequence

from dapg.experiment import paper
from dapg.experiment.figures import OURS, PAPERS, difference, in_common
from dapg.experiment.matrix import arm_called
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult, Stored
from dapg.report.experiment_page import Table
from dapg.report.score_tables import Row, to_markdown
from dapg.scoring.bootstrap import Difference

_HERE = "Measured here: points of rank-1 with 95 % interval"
_OTHERS = "on other people than the paper's it says nothing about the claim itself"
Results = Sequence[CellResult]
_TUNERS = {"cil": "CIL", "pmwgcn": "PMWGCN (reconstruction)"}


def checks(experiment: Experiment, stored: Stored) -> list[Table]:
    """Tables for the page: stated gains, what robust fine-tuning costs, misprints, cells that others win."""
    results = [
        result for result in stored.values() if result.seed < experiment.seeds and result.start in experiment.starts
    ]
    return [
        Table("Gains stated in the text, points of rank-1", _gains(results), f"{_HERE}, – if not run; {_OTHERS}."),
        Table(
            "Robust fine-tuning gains on corrupted images and costs on clean ones (Fig. 1), points of rank-1",
            [*_printed_costs(), *_measured_costs(results)],
            f"The paper's rows are from its Tables I and II, as Fig. 1 prints no values. {_HERE}: yes and no where the "
            f"intervals decide, open where they do not; {_OTHERS}.",
        ),
        Table("Copied ImageNet figures that differ from their source", _misprints(), "Marked † in the tables above."),
        Table("Printed cells in which another pre-training is ahead of the paper's own", _lost()),
    ]


def markdown(tables: Iterable[Table]) -> str:
    """The same as text."""
    text = ["## The paper's own text, checked", ""]
    for table in tables:
        text += [f"### {table.heading}", "", *([table.note, ""] if table.note else []), to_markdown(table.rows)]
    return "\n".join(text)


def _gains(results: Results) -> list[Row]:
    measured = {claim.text: "; ".join(_measured_gains(results, claim)) for claim in paper.CLAIMS}
    return [
        {
            "claim": claim.text,
            "stated": f"{claim.stated:.2f}",
            "from its tables": f"{claim.recomputed():.2f}",
            "agrees": "yes" if claim.recomputed() == claim.stated else "no",
            **({"here": measured[claim.text] or "–"} if any(measured.values()) else {}),
        }
        for claim in paper.CLAIMS
    ]


def _measured_gains(results: Results, claim: paper.Claim) -> list[str]:
    """Our arms minus ImageNet's, on each data set that has the claim's mode or one like it."""
    gains = []
    for data in ("synthetic", *PAPERS):
        modes = [mode for mode in modes_of(data) if paper.printed_mode(mode) == claim.mode]
        for mode, ours in itertools.product(modes, OURS):
            pair = (claim.finetuning, "in-sup"), (claim.finetuning, ours)
            gap = _gap(results, data, "imagenet", *pair, mode, "all" if claim.corrupted else "clean")
            if gap is not None:
                gains.append(f"{_points(gap)} by {arm_called(ours).title} on {data}")
    return gains


def _printed_costs() -> list[Row]:
    """CIL against AGW, both from ImageNet, as printed."""
    rows = {row.finetuning: row for row in paper.TABLES_1_AND_2 if row.pretraining == "in-sup"}
    costs = []
    for mode in paper.SEARCHES:
        clean = round(rows["cil"].clean[mode][0] - rows["agw"].clean[mode][0], 2)
        corrupted = round(rows["cil"].corrupted[mode][0] - rows["agw"].corrupted[mode][0], 2)
        where = f"the paper, {'SYSU-MM01' if mode in modes_of('sysu') else 'RegDB'} {mode}"
        as_claimed = "yes" if clean < 0 < corrupted else "no"
        costs.append(_cost(where, "in-sup", "cil", f"{clean:+.2f}", f"{corrupted:+.2f}", as_claimed))
    return costs


def _measured_costs(results: Results) -> list[Row]:
    """CIL and PMWGCN against AGW in each mode of each data set where both have run."""
    costs = []
    starts, tuners = (("imagenet", "in-sup"), ("random", "none")), ("cil", "pmwgcn")
    for data, (start, arm), tuner in itertools.product(("synthetic", *PAPERS), starts, tuners):
        for mode in modes_of(data):
            pair = ("agw", arm), (tuner, arm)
            clean, corrupted = (_gap(results, data, start, *pair, mode, kind) for kind in ("clean", "all"))
            if clean is None or corrupted is None:
                continue
            agrees, differs = clean.high < 0 < corrupted.low, clean.low > 0 or corrupted.high < 0
            as_claimed = "yes" if agrees else "no" if differs else "open"
            costs.append(_cost(f"here, {data} {mode}", arm, tuner, _points(clean), _points(corrupted), as_claimed))
    return costs


def _cost(where: str, arm: str, tuner: str, clean: str, corrupted: str, as_claimed: str) -> Row:
    return {
        "where": where,
        "first weights": arm_called(arm).title,
        "fine-tuning minus AGW": _TUNERS[tuner],
        "clean": clean,
        "corrupted": corrupted,
        "as claimed": as_claimed,
    }


def _gap(
    results: Results,
    data: str,
    start: str,
    first: tuple[str, str],
    second: tuple[str, str],
    mode: str,
    condition: str,
) -> Difference | None:
    """rank-1 of ``second`` (fine-tuning, arm) minus ``first``'s; None where one of them has not run."""
    sides = []
    for finetuning, arm in (first, second):
        wanted = ((data, start, finetuning), arm)
        chosen = [result for result in results if (result.group, result.arm) == wanted]
        sides.append(chosen)
    before, after = sides
    return difference(before, after, f"{mode}/{condition}")["rank-1"] if in_common(before, after) else None


def _points(gap: Difference) -> str:
    return f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def _misprints() -> list[Row]:
    rows = []
    for (finetuning, corrupted, mode, place), source in paper.ORIGINALS.items():
        row = next(r for r in paper.TABLES_1_AND_2 if (r.finetuning, r.pretraining) == (finetuning, "in-sup"))
        printed = (row.corrupted if corrupted else row.clean)[mode][place]
        rows.append(
            {
                "fine-tuning": finetuning,
                "pictures": "corrupted" if corrupted else "clean",
                "mode": mode,
                "measure": ("rank-1", "mAP")[place],
                "printed": f"{printed:.2f}",
                "source": f"{source:.2f}",
                "printed less source": f"{printed - source:+.2f}",
            }
        )
    return rows


def _lost() -> list[Row]:
    return [dict(zip(("cell", "figures"), line.split(": "), strict=True)) for line in paper.not_the_best()]
