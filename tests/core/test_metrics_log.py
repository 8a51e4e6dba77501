"""metrics.jsonl and metrics.csv: whole lines, nothing from a try that was undone."""

import csv
import json
import math
from pathlib import Path

import pytest

from dapg.core.metrics_log import MetricsLog, loss_curve, read_metrics


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder)]


def test_lines_and_table(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, "train", {"loss": 2.5, "bad": math.nan, "worse": math.inf})
    log.write(2, "validation", {"mAP": 0.5})
    assert steps(tmp_path) == [1, 2], "lines are on disk while the run goes on"
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 1, "kind": "train", "loss": 2.5, "bad": None, "worse": None},
        {"step": 2, "kind": "validation", "mAP": 0.5},
    ]
    with (tmp_path / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows[0] == {"step": "1", "kind": "train", "loss": "2.5", "bad": "", "worse": "", "mAP": ""}
    assert rows[1] == {"step": "2", "kind": "validation", "loss": "", "bad": "", "worse": "", "mAP": "0.5"}


def test_a_cut_last_line_is_left_out_and_overwritten(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\n{"step": 2, "kin')
    assert steps(tmp_path) == [1]
    log = MetricsLog(tmp_path, last_step=2)
    log.write(3, "train", {"loss": 1.0})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 3], "no half line in between"


def test_a_line_of_zero_bytes_from_a_power_cut_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + b"\0" * 100)
    assert steps(tmp_path) == [1]


def test_damaged_lines_are_counted_once_and_a_cut_last_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": "x"}\n\xff\n{"step": 2}\n{"st')
    assert steps(tmp_path) == [1, 2]
    assert capsys.readouterr().err == f"warning: {tmp_path / 'metrics.jsonl'}: left out 2 of 4 lines, damaged\n"
    MetricsLog(tmp_path, last_step=2).close()
    assert capsys.readouterr().err.count("warning") == 1, "the log goes on without them"
    assert steps(tmp_path) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("last_step", "kept"), [(0, []), (2, [1, 2]), (3, [1, 2, 3]), (99, [1, 2, 3])])
def test_lines_after_the_last_step_are_dropped(tmp_path: Path, last_step: int, kept: list[int]) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": float(step)})
    log.close()
    MetricsLog(tmp_path, last_step=last_step).close()
    assert steps(tmp_path) == kept


def test_no_file_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished = True


def test_trackers_get_what_the_file_gets(tmp_path: Path) -> None:
    tracker = Recorder()
    log = MetricsLog(tmp_path, trackers=[tracker])
    log.write(1, "train", {"loss": 1.0, "lr": 0.5})
    log.write(1, "validation", {"mAP": 0.25})
    assert not tracker.finished
    log.close()
    assert tracker.lines == [(1, {"train/loss": 1.0, "train/lr": 0.5}), (1, {"validation/mAP": 0.25})]
    assert tracker.finished


def test_a_thinned_curve(tmp_path: Path) -> None:
    """Five losses at three places: means of two, two and one; a loss that was not finite is left out."""
    assert loss_curve(tmp_path) == []
    log = MetricsLog(tmp_path)
    for step, loss in ((10, 4.0), (20, 3.0), (30, math.nan), (40, 2.0), (50, 1.0), (60, 0.123456)):
        log.write(step, "train", {"loss": loss})
        log.write(step, "validation", {"loss": 9.0})
    log.close()
    assert loss_curve(tmp_path, most=3) == [(20, 3.5), (50, 1.5), (60, 0.1235)]
    assert loss_curve(tmp_path) == [(10, 4.0), (20, 3.0), (40, 2.0), (50, 1.0), (60, 0.1235)]
