"""No room for a checkpoint: a named error, whichever file did not fit, and the earlier checkpoint stays."""

from pathlib import Path

import process_jobs
import warm_processes


def test_weights_or_state_that_do_not_fit_are_reported_and_cleared_away(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk."""
    run = tmp_path / "run"
    printed = warm_processes.start(process_jobs.save_too_much, run, log=tmp_path / "log").succeed()
    weights, state, left = printed.splitlines()
    for line in (weights, state):
        assert line.startswith(f"could not write checkpoint {run}/checkpoints/step_00000002: ")
        assert line.endswith(f"; last good checkpoint: {run}/checkpoints/step_00000001")
    assert left == "[1] 1"
