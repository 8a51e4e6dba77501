"""What is registered counts only the cells that ran under it, and its verdicts follow from intervals and margins."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dapg.core.errors import UsageError
from dapg.core.settings import to_dict
from dapg.experiment import registration
from dapg.experiment.page import write_report
from dapg.experiment.plan import Experiment
from dapg.experiment.registration import (
    FILE,
    Registration,
    detectable_gain,
    registered,
    report,
    statement,
    summary,
    verdict,
)
from dapg.experiment.store import CellResult, Stored, add_cell, read_cells
from made_up_cells import made_up

pytest.importorskip("matplotlib")
STATED = Registration(
    written="2026-01-01",
    arm="dapg-1",
    baseline="simclr",
    reason="SimCLR was best of six on validation persons.",
    finetunings=("agw", "cil"),
    start="imagenet",
    scale="small",
    test="test1000",
    tested="0123456789ab",
    mode="all-100",
    condition="all",
    smallest_effect=1.0,
    detectable=1.5,
    margin=2.0,
    seeds=2,
    repeats=5,
)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / FILE).write_text(yaml.safe_dump(to_dict(STATED)))
    only = "dapg-1+* simclr+*"
    return Experiment(
        ("table1", "beyond"), starts=("imagenet",), seeds=2, repeats=5, only=only, results=tmp_path, test="/p/test1000"
    )


def results(experiment: Experiment, tuners: tuple[str, ...] = ("agw", "cil")) -> dict[str, CellResult]:
    """Made-up cells that ran under the registration: stage 1 always hits, SimCLR never."""
    digest = {cell.name: registered(experiment, cell) for cell in experiment.cells()}
    return {
        cell.name: replace(
            made_up(cell, float(cell.arm == "dapg-1")), tested=STATED.tested, registration=digest[cell.name]
        )
        for cell in experiment.cells()
        if cell.finetuning in tuners
    }


def rows(experiment: Experiment, stored: Stored) -> dict[str, dict[str, str]]:
    return {row["fine-tuning"]: dict(row) for row in report(experiment, stored).rows}


def test_cells_that_ran_under_it_are_judged(experiment: Experiment) -> None:
    judged = rows(experiment, results(experiment))
    for tuner in ("agw", "cil"):
        assert judged[tuner]["difference"] == "+100.00 (+100.00 to +100.00)"
        assert judged[tuner]["verdict"] == "holds here"
        assert judged[tuner]["not lower by 2"] == "holds"
    turned = replace(STATED, arm="simclr", baseline="dapg-1")
    (experiment.results / FILE).write_text(yaml.safe_dump(to_dict(turned)))
    judged = rows(experiment, results(experiment))
    assert judged["agw"]["verdict"] == "does not"
    assert judged["agw"]["not lower by 2"] == "not shown"


def test_cells_from_before_it_or_on_other_persons_do_not_count(experiment: Experiment) -> None:
    stored = results(experiment)
    name = "simclr+agw-synthetic-imagenet-1"
    result = stored[name]
    for other in (
        replace(result, registration=""),
        replace(result, registration="f" * 16),
        replace(result, tested="2"),
        replace(result, start="random"),
    ):
        judged = rows(experiment, {**stored, name: other})
        assert judged["agw"]["verdict"] == "not finished: 1 and 2 of 2 seeds of the two arms"
        assert judged["cil"]["verdict"] == "holds here"
    before = result.registration
    (experiment.results / FILE).write_text(yaml.safe_dump(to_dict(replace(STATED, smallest_effect=0.1))))
    (cell,) = [cell for cell in experiment.cells() if cell.name == name]
    assert registered(experiment, cell) != before, "a changed file is another registration"
    assert {row["verdict"] for row in rows(experiment, stored).values()} == {
        "not finished: 0 and 0 of 2 seeds of the two arms"
    }


def test_only_its_own_cells_are_part_of_it(experiment: Experiment) -> None:
    cells = {cell.name: cell for cell in replace(experiment, seeds=3, only="*", starts=("random", "imagenet")).cells()}
    inside = {name for name, cell in cells.items() if registered(experiment, cell)}
    assert inside == {
        f"{arm}+{tuner}-synthetic-imagenet-{seed}"
        for arm in ("dapg-1", "simclr")
        for tuner in ("agw", "cil")
        for seed in (0, 1)
    }
    with pytest.raises(UsageError, match="registered with --repeats 5, not 2"):
        registered(replace(experiment, repeats=2), cells["simclr+agw-synthetic-imagenet-0"])
    assert registered(replace(experiment, test=""), cells["simclr+agw-synthetic-imagenet-0"]) == ""


def test_it_is_shown_first_and_the_rest_is_exploratory(experiment: Experiment) -> None:
    for result in results(experiment, ("agw",)).values():
        add_cell(experiment.folder, result)
    assert len(read_cells(experiment.folder)) == 4
    text = write_report(experiment)
    assert text.startswith("## Registered comparison\n\nRegistered on 2026-01-01 (registration.yaml ")
    assert "after “DAPG, stage 1” minus that after “SimCLR”," in text
    assert "under agw and cil from imagenet, with 2 seeds on test1000." in text
    assert "Everything else is exploratory." in text
    assert "not finished: 0 and 0 of 2 seeds" in text
    said = summary(experiment.results)
    assert "after “DAPG, stage 1” minus that after “SimCLR”: under agw +" in said
    assert "; under cil not finished: 0 and 0 of 2 seeds" in said
    assert text.index("holds here") < text.index("## Table I")
    (experiment.results / FILE).unlink()
    assert statement(experiment) == registration.EXPLORATORY
    assert write_report(experiment).startswith(registration.EXPLORATORY)


def test_a_file_that_says_less_is_refused(experiment: Experiment) -> None:
    values = to_dict(STATED)
    del values["baseline"]
    (experiment.results / FILE).write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match="baseline"):
        registration.read(experiment)
    (experiment.results / FILE).write_text(yaml.safe_dump({**to_dict(STATED), "margin": 0.0}))
    with pytest.raises(UsageError, match="margin"):
        registration.read(experiment)


@pytest.mark.parametrize(
    "p, low, high, expected",
    [
        (0.01, 0.3, 2.0, "holds here"),
        (0.06, 0.1, 2.0, "cannot be told"),
        (0.01, -2.0, -0.3, "does not"),
        (0.5, -0.5, 0.9, "does not"),
        (0.5, -0.5, 1.1, "cannot be told"),
    ],
)
def test_verdicts(p: float, low: float, high: float, expected: str) -> None:
    assert verdict(p, low, high, smallest=1.0) == expected


def test_the_detectable_gain_is_detected_in_four_of_five_experiments() -> None:
    """Simulated: persons' paired differences and the seeds of both arms, 20,000 times."""
    persons, seeds, person_deviation, seed_deviation = 200, 5, 8.0, 1.2
    gain = detectable_gain(person_deviation, seed_deviation, persons, seeds)
    generator = np.random.default_rng(0)
    of_persons = generator.normal(gain, person_deviation, (20_000, persons)).mean(axis=1)
    of_seeds = generator.normal(0, seed_deviation, (2, 20_000, seeds)).mean(axis=2)
    error = np.sqrt(person_deviation**2 / persons + 2 * seed_deviation**2 / seeds)
    assert np.mean((of_persons + of_seeds[0] - of_seeds[1]) / error > 1.959964) == pytest.approx(0.8, abs=0.01)
