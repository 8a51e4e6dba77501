"""What tests let other processes do (warm_processes.py): functions of a module that those can import."""

import json
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from dapg import cli
from dapg.core import distributed
from dapg.core.errors import TrainingError
from dapg.core.metrics_log import MetricsLog
from dapg.training import checkpoint


def save_too_much(run: Path) -> None:
    """A checkpoint that fits, then weights and then a state above a limit for the size of files."""
    small, large = torch.nn.Linear(2, 2), torch.nn.Linear(200, 200)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (small, large)]
    checkpoint.save(run, 1, small, optimizers[0], {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    for network, optimizer, state in ((large, optimizers[1], {}), (small, optimizers[0], {"x": torch.zeros(20_000)})):
        try:
            checkpoint.save(run, 2, network, optimizer, state)
        except TrainingError as error:
            print(str(error).replace("\n", " "))
    print([whole.step for whole in checkpoint.whole_checkpoints(run)], len(list((run / "checkpoints").iterdir())))


def contrast_rows(data: Path) -> None:
    """One rank's part of a contrastive loss over the rows of both, and its answers to the small questions, as JSON."""
    inputs, weight = torch.load(data, weights_only=True)
    local = inputs.chunk(2)[distributed.rank()]
    weight.requires_grad_(True)
    rows = local @ weight
    everything = distributed.gather(rows)
    targets = torch.arange(len(rows)) + distributed.first_row(len(rows))
    loss = torch.nn.functional.cross_entropy(rows @ everything.T, targets)
    loss.backward()
    dist.all_reduce(weight.grad)
    answers = {
        "loss": loss.item(),
        "gradient": (weight.grad / 2).tolist(),
        "gathered": everything.tolist(),
        "plain": distributed.gather_without_gradient(rows).requires_grad,
        "first": distributed.first_row(len(rows)),
        "any": [distributed.any_process(flag, torch.device("cpu")) for flag in (False, distributed.rank() == 1, True)],
        "active": distributed.active(),
    }
    print(json.dumps(answers))
    distributed.barrier()


def launch_and_wait(talk: Connection) -> None:
    """Start a worker that dies with its parent, tell its number, and wait to be killed."""
    hear, tell = os.pipe()
    worker = os.fork()
    if worker == 0:
        distributed.die_with_parent()
        os.write(tell, b"ready")
    else:
        os.read(hear, 5)
        talk.send(worker)
    while True:
        signal.pause()


def command_that_tells_of_its_first_log(words: list[str], talk: Connection) -> int:
    """A `dapg` command that trains; says "logged" once the first line of its metrics is written."""
    write = MetricsLog.write

    def write_and_tell(self: MetricsLog, step: int, kind: str, values: dict[str, float]) -> None:
        write(self, step, kind, values)
        if not told:
            told.append(True)
            talk.send("logged")

    told: list[bool] = []
    MetricsLog.write = write_and_tell  # type: ignore[method-assign]
    return cli.main(words)
