"""Two processes against one: gathered rows, their gradients, and the small questions."""

import json
import multiprocessing
import os
import select
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import process_jobs
import warm_processes
from dapg.core import distributed
from dapg.core.errors import UsageError


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """Contrastive: every row against the rows of both processes; gradients averaged as data-parallel training does."""
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(6, 4, generator=generator), torch.randn(4, 3, generator=generator)
    torch.save((inputs, weight), tmp_path / "data.pt")
    ranks = warm_processes.start_ranks(process_jobs.contrast_rows, tmp_path / "data.pt", folder=tmp_path)
    first, second = (json.loads(rank.succeed().splitlines()[-1]) for rank in ranks)

    weight.requires_grad_(True)
    rows = inputs @ weight
    loss = torch.nn.functional.cross_entropy(rows @ rows.T, torch.arange(6))
    loss.backward()
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(loss.item(), abs=1e-5)
    for result in (first, second):
        torch.testing.assert_close(torch.tensor(result["gradient"]), weight.grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.tensor(result["gathered"]), rows.detach(), atol=1e-6, rtol=1e-6)
        assert result["any"] == [False, True, True]
        assert result["active"]
        assert not result["plain"]
    assert (first["first"], second["first"]) == (0, 3)


def test_alone_everything_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert not distributed.gather_without_gradient(rows).requires_grad
    assert (distributed.rank(), distributed.world_size(), distributed.first_row(5)) == (0, 1, 0)
    assert distributed.any_process(True, torch.device("cpu"))
    assert not distributed.any_process(False, torch.device("cpu"))
    distributed.barrier()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (distributed.rank(), distributed.world_size()) == (3, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_under_torchrun_a_worker_dies_with_its_launcher(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    environment = {"TORCHELASTIC_RUN_ID": "x"}
    launcher = warm_processes.start(process_jobs.launch_and_wait, theirs, log=tmp_path / "log", environment=environment)
    worker = launcher.hear(ours)
    assert isinstance(worker, int)
    handle = os.pidfd_open(worker)
    launcher.send(signal.SIGKILL)
    select.select([handle], [], [])  # until the worker has ended
    os.close(handle)


class WithActivation(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


def test_batch_norms_that_compute_more_are_not_exchanged() -> None:
    """PyTorch's exchange would drop the activation without a word."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert isinstance(distributed.with_synchronised_batch_norms(plain)[1], nn.SyncBatchNorm)
    with pytest.raises(UsageError, match="WithActivation of Sequential"):
        distributed.with_synchronised_batch_norms(nn.Sequential(WithActivation(4)))
