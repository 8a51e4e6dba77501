"""Sweeps: every cell is a complete, different recipe, and the command trains them one after the other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dapg import cli
from dapg.core.errors import UsageError
from dapg.core.files import read_json
from dapg.core.settings import flat, to_dict
from dapg.pipelines import sweep
from dapg.recipes import pretraining


@pytest.mark.parametrize("name", sweep.SWEEPS)
def test_cells_differ_from_the_preset_in_what_they_say_and_from_each_other(name: str) -> None:
    base, cells = flat(to_dict(pretraining("dapg", "tiny"))), sweep.sweep(name)
    seen = []
    for cell, changes in sweep.SWEEPS[name].items():
        values = flat(to_dict(cells[cell]))
        changed = {key: value for key, value in values.items() if value != base[key]}
        assert set(changed) <= {f"method.{key}" for key in flat(changes)}
        assert values not in seen or not changed  # one cell may name what the preset has already
        seen.append(values)
    with pytest.raises(UsageError, match="no sweep"):
        sweep.sweep(name + "x")


def test_the_command_trains_every_cell_and_reuses_finished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few_steps(name: str, preset: str) -> Any:
        base = pretraining("mocov2", "demo")
        small = replace(base, train=replace(base.train, steps=2, batch_size=4), data=replace(base.data, subset=8))
        return {"one": small, "two": replace(small, method=replace(small.method, temperature=0.2))}

    monkeypatch.setattr(sweep, "sweep", few_steps)
    words = ["sweep", "temperature", "--seeds", "[0,1]", "--out", str(tmp_path), "--device", "cpu"]
    assert cli.main(words) == 0
    runs = sorted(path.name for path in (tmp_path / "temperature").iterdir())
    assert runs == ["one-seed0", "one-seed1", "two-seed0", "two-seed1"]
    losses = {name: read_json(tmp_path / "temperature" / name / "result.json")["logs"]["loss"] for name in runs}
    assert len(set(losses.values())) >= 2
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("one-seed0") == 2
