"""Two processes against one: gathered rows, their gradients, and the small questions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dapg
from dapg.core import distributed

SOURCE = Path(dapg.__file__).resolve().parents[1]

WORKER = """
import json, os, sys
import torch
import torch.distributed as dist
from dapg.core import distributed as d

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=d.rank(), world_size=d.world_size())
inputs, weight = torch.load(sys.argv[2], weights_only=True)
local = inputs.chunk(2)[d.rank()]
weight.requires_grad_(True)
rows = local @ weight
everything = d.gather(rows)
targets = torch.arange(len(rows)) + d.first_row(len(rows))
loss = torch.nn.functional.cross_entropy(rows @ everything.T, targets)
loss.backward()
dist.all_reduce(weight.grad)
print(json.dumps({
    "loss": loss.item(),
    "gradient": (weight.grad / 2).tolist(),
    "gathered": everything.tolist(),
    "plain": d.gather_without_gradient(rows).requires_grad,
    "first": d.first_row(len(rows)),
    "any": [d.any_process(flag, torch.device("cpu")) for flag in (False, d.rank() == 1, True)],
    "active": d.active(),
}))
d.barrier()
dist.destroy_process_group()
"""


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """Contrastive: every row against the rows of both processes; gradients averaged as data-parallel training does."""
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(6, 4, generator=generator), torch.randn(4, 3, generator=generator)
    torch.save((inputs, weight), tmp_path / "data.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "store"), str(tmp_path / "data.pt")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)

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


ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import time; from dapg.core.distributed import die_with_parent; die_with_parent(); "
    "print('ready', flush=True); time.sleep(600)"], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "ready\\n"
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_under_torchrun_a_worker_dies_with_its_launcher() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TORCHELASTIC_RUN_ID": "x"}
    launcher = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, env=environment)
    assert launcher.stdout is not None
    worker = int(launcher.stdout.readline())
    handle = os.pidfd_open(worker)
    try:
        launcher.kill()
        launcher.wait()
        import select

        ready, _, _ = select.select([handle], [], [], 120)
        assert ready, "the worker lives on without its launcher"
    finally:
        os.close(handle)
        launcher.communicate()
