"""A log gets a line now and then, a terminal a bar."""

import pytest

from dapg.core import progress
from dapg.core.progress import progress_bar


def test_a_log_gets_whole_lines_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("dapg.core.progress.time.monotonic", lambda: clock[0])
    with progress_bar("training", "step", 1200, done=200) as bar:
        for _ in range(8):
            clock[0] += 10
            bar.set_postfix_str("loss 1.5", refresh=False)
            bar.update(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 350 of 1,200 steps, 5 per second, 02:50 left, loss 1.5",
        "training: 500 of 1,200 steps, 5 per second, 02:20 left, loss 1.5",
    ]


def test_nothing_is_said_where_nothing_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress_bar("a", "step", 3, shown=False) as bar:
        bar.update()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress_bar("a", "step", 3) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
