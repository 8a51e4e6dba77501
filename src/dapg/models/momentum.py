"""What contrastive methods remember: a momentum copy of a network, a first-in-first-out queue of keys, both (MoCo)."""

import copy
import math
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dapg.core import distributed
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.core.types import UNKNOWN
from dapg.models.blocks.pooling import average_pool

Module = TypeVar("Module", bound=nn.Module)


def momentum_copy(online: Module) -> Module:
    """A copy with equal weights that takes no gradient and shares no memory with the original."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def update_momentum(
    target: nn.Module, online: nn.Module, momentum: float, buffers: Literal["own", "copy"] = "own"
) -> None:
    """Set target = momentum * target + (1 - momentum) * online for every parameter (He et al. 2020, Eq. 2).

    Args:
        target: the momentum copy, changed in place.
        online: the network that is trained.
        momentum: in [0, 1]; 1 leaves the target as it is, 0 copies.
        buffers: ``own`` leaves the target its own batch-norm statistics, which it gathers by running in training
            mode (MoCo, BYOL); ``copy`` takes the online network's, for a target that only runs in evaluation mode.
    """
    if not 0 <= momentum <= 1:
        raise UsageError(f"momentum is in [0, 1], got {momentum}")
    targets, sources = dict(target.named_parameters()), dict(online.named_parameters())
    if targets.keys() != sources.keys():
        raise ValueError(f"not a copy of the online network: {sorted(targets.keys() ^ sources.keys())[:3]} differ")
    torch._foreach_lerp_(list(targets.values()), [sources[name] for name in targets], 1 - momentum)
    if buffers == "own":
        return
    online_buffers = dict(online.named_buffers())
    for name, buffer in target.named_buffers():
        buffer.copy_(online_buffers[name])


def momentum_at(step: int, total_steps: int, base: float, final: float = 1.0) -> float:
    """Momentum of a step when it rises from ``base`` to ``final`` along half a cosine (BYOL, section 3.3)."""
    progress = min(max(step / max(total_steps, 1), 0.0), 1.0)
    return final - (final - base) * (math.cos(math.pi * progress) + 1) / 2


class KeyQueue(nn.Module):
    """The last K keys with their labels, oldest replaced first; all of it is state, so a checkpoint carries it.

    A label says where a key comes from (its record, or its person), so that a method can leave out keys of the
    query's own image, or find positives among them.
    """

    keys: Float[Tensor, "K D"]
    labels: Int[Tensor, "K"]
    position: Int[Tensor, ""]
    filled: Int[Tensor, ""]

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise UsageError(f"a queue holds at least one key of one value, got {size} of {dim}")
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), UNKNOWN, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def contents(self) -> tuple[Float[Tensor, "K D"], Int[Tensor, "K"], Bool[Tensor, "K"]]:
        """Keys, labels, and which slots have been filled; zeros and ``UNKNOWN`` stand in the others.

        The tensors are copies: a push before ``backward`` does not disturb a loss computed from them.
        """
        slots = torch.arange(len(self.keys), device=self.keys.device)
        return self.keys.clone(), self.labels.clone(), slots < self.filled

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "B D"], labels: Int[Tensor, "B"] | None = None) -> None:
        """Store keys in order, wrapping around at K; of more than K keys the last K stay.

        With several processes, push the keys of all of them in the same order everywhere, so that the queues agree.
        No value is read back to the host, so a GPU is not made to wait.
        """
        size = len(self.keys)
        count = len(keys)
        labels = labels if labels is not None else torch.full((count,), UNKNOWN, device=self.labels.device)
        start = max(count - size, 0)
        offsets = torch.arange(start, count, device=self.keys.device)
        slots = (self.position + offsets) % size
        self.keys[slots] = keys[start:].to(self.keys.dtype)
        self.labels[slots] = labels[start:]
        self.position.copy_((self.position + count) % size)
        self.filled.copy_((self.filled + count).clamp(max=size))


class KeyEncoder(nn.Module):
    """MoCo's other half: a momentum copy of backbone and head, and the queue of the keys it made.

    Keys handed to ``remember`` during a step enter the queue in ``update``, after the optimiser's step, so that the
    step's own images are no negatives of each other.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, momentum: float, size: int, dim: int) -> None:
        """Copy ``backbone`` and ``head``; the queue holds ``size`` keys of ``dim`` values."""
        super().__init__()
        self.momentum = momentum
        self.backbone, self.head = momentum_copy(backbone), momentum_copy(head)
        self.queue = KeyQueue(size, dim)
        self._new: list[tuple[Tensor, Tensor | None]] = []

    @torch.no_grad()
    def forward(self, view: Float[Tensor, "B 3 h w"], generator: SampleGenerator) -> Float[Tensor, "B D"]:
        """Unit keys of this process's images.

        With several processes each image is encoded in another process's batch, so that batch norm leaks nothing. The
        order is the same everywhere: it hangs on the seeds of all samples (MoCo's "shuffling BN"). None is sent where
        there is no batch norm (transformers), nor where all images are in one batch already, as the loop synchronises
        batch norms on GPUs.
        """
        if not distributed.active() or not self._has_own_statistics():
            return self._encode(view)
        seeds = distributed.gather_without_gradient(generator.fork("shuffle").seeds.to(view.device))
        order = seeds.argsort(stable=True)
        first = distributed.first_row(len(view))
        mine = order[first : first + len(view)]
        shuffled = distributed.gather_without_gradient(view)[mine]
        keys = distributed.gather_without_gradient(self._encode(shuffled))
        return keys[order.argsort()][first : first + len(view)]

    def remember(self, keys: Float[Tensor, "B D"], labels: Int[Tensor, "B"] | None = None) -> None:
        """Keep this step's keys (and what to call them), of all processes, for the queue."""
        gather = distributed.gather_without_gradient
        self._new.append((gather(keys), None if labels is None else gather(labels)))

    def update(self, backbone: nn.Module, head: nn.Module) -> None:
        """After the optimiser's step: follow the online network, and store the keys."""
        update_momentum(self.backbone, backbone, self.momentum)
        update_momentum(self.head, head, self.momentum)
        for keys, labels in self._new:
            self.queue.push(keys, labels)
        self._new.clear()

    def _has_own_statistics(self) -> bool:
        """Whether a batch norm sees this process's images alone."""
        norms = (module for module in self.modules() if isinstance(module, _BatchNorm))
        return not all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)

    def _encode(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        return functional.normalize(self.head(average_pool(self.backbone(view))))
