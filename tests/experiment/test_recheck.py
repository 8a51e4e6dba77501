"""Which cell is run again, what it may be off, and what is said: against numbers worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dapg.cli import main
from dapg.core.errors import UsageError
from dapg.experiment import recheck
from dapg.experiment.matrix import Cell, Source
from dapg.experiment.plan import Experiment
from dapg.experiment.queue import run
from dapg.experiment.recheck import compare, draw, tolerances
from dapg.experiment.store import CellResult, TrainingResult, add_cell, read_cells
from made_up_cells import MACHINE, made_up, shrink_small, write_people

CLEAN, ALL = "all/clean", "all/all"
OTHERS = (TrainingResult("finetune", "agw", "agw-0", {"w": "others"}, {}, 0, 0, 0.0, {}),)


def result(arm: str, clean: float, corrupted: float = 0.5, **changed: Any) -> CellResult:
    """A cell with two scores."""
    scores = {CLEAN: {"mAP": clean}, ALL: {"mAP": corrupted}}
    trained = TrainingResult("finetune", "agw", "agw-0", {"w": "same"}, {}, 0, 0, 0.0, {})
    made = made_up(Cell(arm, "agw", "synthetic", "random", 0), 0.5, ())
    return replace(made, **{"scores": scores, "trainings": (trained,), **changed})


def test_tolerance_is_pooled_over_arms() -> None:
    """Arm a: 10 and 12, arm b: 20, 20 and 23: squares about the means 2 and 6, three degrees of freedom."""
    values = {"a0": ("a", 0.10), "a1": ("a", 0.12), "b0": ("b", 0.20), "b1": ("b", 0.20), "b2": ("b", 0.23)}
    stored = {name: result(*each) for name, each in values.items()} | {"c0": result("c", 0.9)}
    stored["other"] = result("a", 0.99, start="imagenet")
    found = tolerances(stored, stored["c0"])
    assert found == {CLEAN: pytest.approx(7 * math.sqrt(2 * 8 / 3)), ALL: 0.0}


def test_verdicts() -> None:
    allowed = {CLEAN: 1.0, ALL: 4.0}
    before = result("a", 0.50, 0.40)
    same = compare("cell", before, result("a", 0.50, 0.40), allowed)
    assert same.equal
    assert same.passed
    assert str(same) == "cell: equal to the last bit"
    # Corrupted is farther off in points, clean by its tolerance.
    near = compare("cell", before, result("a", 0.509, 0.42, machine=replace(MACHINE, torch="2.7")), allowed)
    assert (near.passed, near.equal, near.score) == (True, False, CLEAN)
    assert near.gap == pytest.approx(0.9)
    assert "within the tolerance, not equal bit by bit on another machine" in str(near)
    far = compare("cell", before, result("a", 0.50, 0.35), allowed)
    assert (far.passed, far.score) == (False, ALL)
    assert "OUTSIDE the tolerance, not equal bit by bit on the same machine" in str(far)
    assert "mAP of all/all by -5.00 points, tolerance 4.00" in str(far)
    network = compare("cell", before, result("a", 0.50, 0.40, trainings=OTHERS), allowed)
    assert (network.passed, network.equal) == (True, False), "equal scores of another network are luck"
    with pytest.raises(UsageError, match="indoor/clean"):
        compare("cell", before, replace(before, scores={**before.scores, "indoor/clean": {"mAP": 1.0}}), allowed)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"draws": 7}, "random draws version 7 there"), ({"corruptions": "other"}, "corrupted by another list")],
)
def test_other_corrupted_pictures_are_not_compared(changed: dict[str, Any], reason: str) -> None:
    """The corrupted score is far outside; the clean one is compared alone, and the verdict says so."""
    allowed = {CLEAN: 1.0, ALL: 4.0}
    before, again = result("a", 0.50, 0.40, **changed), result("a", 0.50, 0.10)
    verdict = compare("cell", before, again, allowed)
    assert verdict.equal
    assert "equal to the last bit; clean images only: " in str(verdict)
    assert reason in str(verdict)
    assert not compare("cell", before, replace(again, scores={CLEAN: {"mAP": 0.48}, ALL: {"mAP": 0.4}}), allowed).passed


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Four seeds without pre-training, three of which are drawn from, and four after each of three others."""
    arms = "none+agw-* simclr+agw-* byol+agw-* mocov2+agw-*"
    made = Experiment(("beyond",), starts=("random",), seeds=4, only=arms, results=tmp_path)
    for cell in made.cells():
        add_cell(made.folder, made_up(cell, 0.5, ("all", "indoor")))
    return made


def test_a_cheap_cell_with_the_settings_of_now_is_drawn(experiment: Experiment) -> None:
    cells, stored = experiment.cells(), read_cells(experiment.folder)
    drawn = {draw(cells, stored, f"commit {number}") for number in range(40)}
    assert drawn == {f"none+agw-synthetic-random-{seed}" for seed in range(3)}
    assert draw(cells, stored, "one word") == draw(cells, stored, "one word")
    for seed in range(4):
        name = f"none+agw-synthetic-random-{seed}"
        changed = replace(stored[name].trainings[-1], run="agw-0123456789")  # another hash: other settings
        stored[name] = replace(stored[name], trainings=(changed,))
    assert draw(cells, stored, "commit").partition("+")[0] in ("simclr", "byol", "mocov2")
    few = {name: result for name, result in read_cells(experiment.folder).items() if name.startswith("none")}
    with pytest.raises(UsageError, match="4 beyond the first of an arm"):  # four seeds of one arm have three
        draw(cells, few, "commit")
    with pytest.raises(UsageError, match="of 0 finished cells none"):
        draw(cells, {}, "commit")


def test_command(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code tells; the run happens in a folder of its own, with the stored number of threads and repeats."""
    stored = read_cells(experiment.folder)
    seen = []

    def again(elsewhere: Experiment, cell: Cell, _: object) -> CellResult:
        seen.append((elsewhere.runs != experiment.runs, elsewhere.repeats, torch.get_num_threads()))
        return stored[cell.name]

    words = [
        "reproduce",
        "recheck",
        "beyond",
        "--starts",
        "random",
        "--seeds",
        "4",
        "--results",
        str(experiment.results),
    ]
    words += ["--repeats", "7", "--only", experiment.only, "--word", "abc"]
    monkeypatch.setattr(recheck, "run_cell", again)
    assert main(words) == 0
    assert seen == [(True, 2, 1)]
    out = capsys.readouterr().out
    assert "took 1.2 min to train and 0.3 min to score when it was run" in out
    assert "equal to the last bit" in out

    def worse(elsewhere: Experiment, cell: Cell, kept: object) -> CellResult:
        made = again(elsewhere, cell, kept)
        return replace(
            made, scores={score: {**values, "mAP": values["mAP"] - 10} for score, values in made.scores.items()}
        )

    monkeypatch.setattr(recheck, "run_cell", worse)
    with pytest.raises(SystemExit, match="1"):
        main(words)
    assert "OUTSIDE" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_cell_comes_out_equal_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds of two steps each on thirteen persons, one of them run again."""
    write_people(tmp_path / "sysu")
    shrink_small(monkeypatch)
    sources = (Source("sysu", str(tmp_path / "sysu")),)
    monkeypatch.setattr(recheck, "FREEDOM", 1)
    monkeypatch.setattr(recheck, "DEVIATIONS", {1: 7.0})
    experiment = Experiment(
        ("beyond",), "small", sources, ("random",), 2, 1, "none+agw-*", tmp_path / "runs", tmp_path / "results", "cpu"
    )
    assert run(experiment) == {}
    verdict = recheck.recheck(experiment, "word", print)
    assert verdict.equal
    assert verdict.same_machine
