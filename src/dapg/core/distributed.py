"""The little that several processes need: who am I, how many are we, gather with or without gradient."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dapg.core.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)


def rank() -> int:
    """This process's number, 0 when there is only one. Works before the group is initialised (torchrun's variable)."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def active() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_without_gradient(local: Tensor) -> Tensor:
    """All processes' tensors, concatenated along the first axis in rank order. Shapes must agree."""
    if not active():
        return local.detach()
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.detach().contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Forward: all processes' rows. Backward: the sum over processes of the gradient of this process's rows.

    With gradients averaged over processes afterwards (as DDP does), the result equals that of one process which
    holds the whole batch and a loss that is the mean over all rows.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather_without_gradient(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        size = len(total) // dist.get_world_size()
        start = dist.get_rank() * size
        return total[start : start + size]


def gather(local: Float[Tensor, "b ..."]) -> Float[Tensor, "B ..."]:
    """All processes' rows in rank order, with gradient to every process's own rows."""
    if not active():
        return local
    return _Gather.apply(local)  # type: ignore[no-any-return,no-untyped-call]


def first_row(local_rows: int) -> int:
    """Where this process's rows begin in a gathered tensor."""
    return dist.get_rank() * local_rows if active() else 0


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process."""
    if not active():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item() > 0)


def with_synchronised_batch_norms(network: Module) -> Module:
    """The network with batch norms over the images of all processes.

    Raises:
        UsageError: a batch norm computes more than one (an activation, say), which the exchange would drop.
    """
    plain = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    norms = (type(module) for module in network.modules() if isinstance(module, _BatchNorm))
    more = {kind for kind in norms if kind.forward not in plain}
    convert: Callable[[Module], Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    timm = sys.modules.get("timm.layers")  # there where a network of timm is; its own exchange keeps activations
    if timm is not None and more <= {timm.BatchNormAct2d, timm.SyncBatchNormAct}:
        convert = timm.convert_sync_batchnorm
    elif more:
        raise UsageError(
            f"{min(kind.__qualname__ for kind in more)} of {type(network).__name__} is a batch norm with a forward of "
            "its own, which cannot be synchronised over several GPUs: train on one, or make it nn.BatchNorm2d and more"
        )
    return convert(network)


def barrier() -> None:
    """Wait for all processes."""
    if active():
        dist.barrier()


def die_with_parent() -> None:
    """Under torchrun: when the launcher is killed, this process is killed too, so that no orphan goes on writing.

    Linux only (``PR_SET_PDEATHSIG``); elsewhere the folder lock still keeps a second run from starting beside it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:  # the launcher died before the call
        os.kill(os.getpid(), signal.SIGKILL)
