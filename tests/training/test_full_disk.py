"""No room for a checkpoint: a named error, whichever file did not fit, and the earlier checkpoint stays."""

from pathlib import Path

import pytest
import torch

import process_jobs
import warm_processes
from dapg.core import distributed
from dapg.core.errors import TrainingError
from dapg.training import checkpoint


def test_weights_or_state_that_do_not_fit_are_reported_and_cleared_away(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk."""
    run = tmp_path / "run"
    printed = warm_processes.start(process_jobs.save_too_much, run, log=tmp_path / "log").succeed()
    weights, state, left = printed.splitlines()
    for line in (weights, state):
        assert line.startswith(f"could not write checkpoint {run}/checkpoints/step_00000002: ")
        assert line.endswith(f"; last good checkpoint: {run}/checkpoints/step_00000001")
    assert left == "[1] 1"


def test_where_no_folder_can_be_made_every_process_asks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 alone makes the folder; one that left out a question would have the others wait for ever."""
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    asked: list[list[str]] = []
    for rank in (0, 1):
        run, mine = tmp_path / str(rank), list[str]()
        run.mkdir()
        if rank == 0:
            (run / checkpoint.FOLDER).write_text("a file in the way stands for a disk without room for a folder")
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "barrier", lambda mine=mine: mine.append("barrier"))
        monkeypatch.setattr(distributed, "any_process", lambda flag, device, mine=mine: mine.append("any") or True)
        with pytest.raises(TrainingError, match="File exists|Not a directory" if rank == 0 else "another process"):
            checkpoint.save(run, 1, layer, optimizer, {})
        asked.append(mine)
    assert asked[0] == asked[1]
