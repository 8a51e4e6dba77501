"""The leaderboard: measured and printed apart, a protocol on every line, the paper's own figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from dapg import cli
from dapg.core.errors import UsageError
from dapg.experiment.leaderboard import COLUMNS, Printed, leaderboard_rows, printed


def measured(name: str, grid: float) -> dict[str, Any]:
    """A result as dapg benchmark writes it, with what the leaderboard reads."""
    interval = {"low": grid - 0.05, "high": grid + 0.05, "persons": 96}
    scores = {"rank-1": grid, "mAP": grid, "mINP": grid}
    summary = {
        "mean": scores,
        "intervals": {"mAP": interval},
        "retention": scores,
        "mCE": None,
        "relative_mCE": None,
        "mCE_missing": "no reference",
        "worst_type": {"type": "fog", "mAP": grid},
        "worst_tenth": {"mAP": grid, "cells": []},
        "families": {"weather": grid},
        "lists": {"seen": grid},
        "overlap": 0.5,
        "overlap_beyond_clean": None,
    }
    mixture = {**scores, "spread": {"mAP": {"repeat": {"std": 0.01}}}}
    cell = {"type": "fog", "family": "weather", "severity": 1, **scores}
    protocol = {"summary": summary, "mixture": mixture, "open_set": {"reason": "few"}, "cells": [cell]}
    return {
        "stage": "benchmark",
        "list": {"list": "vi-c 1.0", "sha256": "0" * 64},
        "data": {"name": "SYSU-MM01", "mode": "all", "comparable": True},
        "model": {"name": name, "source": "here", "reconstruction": name == "rebuilt"},
        "clean": {**scores, "intervals": {"mAP": interval}, "open_set": {"reason": "few"}},
        "protocols": {"visible": protocol},
        "features": "f" * 64,
    }


def test_every_line_has_a_protocol_and_measured_ones_come_first() -> None:
    rows = leaderboard_rows([measured("weak", 0.2), measured("rebuilt", 0.4)], printed())
    assert [row["model"] for row in rows[:2]] == ["rebuilt", "weak"]
    assert [row["reconstruction"] for row in rows[:2]] == ["yes", "no"]
    assert all(tuple(row) == COLUMNS and row["protocol"] and row["source"] for row in rows)
    assert {row["kind"] for row in rows[2:]} == {"printed"}
    assert rows[0]["protocol"] == "vi-c 1.0/visible"
    assert rows[0]["mCE"] == "", "no reference"


def test_printed_figures_are_the_papers() -> None:
    rows = leaderboard_rows([], printed())

    def figure(model: str, mode: str, column: str) -> str:
        (row,) = (row for row in rows if (row["model"], row["mode"]) == (model, mode))
        return row[column]

    assert figure("CIL, ImageNet", "all", "mixture rank-1") == "36.95"
    assert figure("AGW, DAPG, both stages", "all", "mixture mAP") == "51.93"
    assert figure("CIL, DAPG, both stages", "thermal-to-visible", "clean mAP") == "71.52"
    assert figure("CIL, ImageNet", "thermal-to-visible", "mixture mINP") == "11.94"
    assert len(rows) == 4 * (2 + 2 * 6)


def test_a_printed_figure_without_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="needs its protocol"):
        Printed("x", "a paper", "SYSU-MM01", "all", " ", (1.0, 2.0), (3.0, 4.0))


def test_one_name_is_one_model_and_other_results_are_refused() -> None:
    with pytest.raises(UsageError, match="there twice"):
        leaderboard_rows([measured("a", 0.2), measured("a", 0.3)], [])
    with pytest.raises(UsageError, match="'evaluate'"):
        leaderboard_rows([{"stage": "evaluate"}], [])


def test_the_command_writes_table_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(measured("ours", 0.3)))
    out = tmp_path / "board.csv"
    assert cli.main(["leaderboard", str(tmp_path), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0].startswith("model,kind,reconstruction,source")
    assert lines[1].startswith("ours,measured,no,here,SYSU-MM01,all,vi-c 1.0/visible")
    page = (tmp_path / "board.html").read_text()
    assert "In print" in page
    assert "CIL, ImageNet" in page
    assert cli.main(["leaderboard"]) == 2
    assert "needs a result" in capsys.readouterr().err
