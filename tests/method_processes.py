"""Steps of every method in processes of their own: as one rank of two, and compiled."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, fx
from torch.nn.parallel import DistributedDataParallel

from dapg.contracts.methods import COUNT, built, optimizer_of, some_batch, train_steps
from dapg.core import plugins
from dapg.core.batch import Batch
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Stage
from dapg.methods.runs import FOLDERS, method_class

METHODS = [(stage, name) for stage, folder in FOLDERS.items() for name in plugins.names(folder)]


def _part(rows: Tensor) -> Batch:
    """Some rows of the contract's batch."""
    whole = some_batch()
    return Batch(
        whole.images[rows], whole.persons[rows], whole.cameras[rows], whole.modalities[rows], whole.indices[rows]
    )


def two_parallel_steps(settings: str, folder: Path) -> None:
    """Losses and weights of every method on this rank of two. Wrapped as in the loop: no parameter may go unused."""
    torch.set_num_threads(1)
    rows = torch.arange(COUNT)[dist.get_rank() :: 2]  # both modalities of the same three persons
    ends: dict[str, Any] = {}
    for stage, name in METHODS:
        kind = method_class(stage, name)
        with built(stage, name, kind.paper() if settings == "paper" else kind.recommended()) as method:
            fresh = {key: value.detach().clone() for key, value in method.named_parameters() if value.requires_grad}
            parallel = DistributedDataParallel(method.train(), broadcast_buffers=False, gradient_as_bucket_view=True)
            optimizer = torch.optim.SGD(method.parameter_groups(0.01, 1e-4))
            losses = []
            for step in range(2):  # a parameter that got no gradient in the first step makes the second one fail
                loss = parallel(_part(rows), SampleGenerator.for_step(0, step, rows)).loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                method.after_step(step + 1, 100)
                losses.append(float(loss))
            weights = {key: value.detach() for key, value in method.named_parameters() if value.requires_grad}
            still = [key for key, value in weights.items() if torch.equal(value, fresh[key])]
            ends[f"{stage} {name}"] = {"losses": losses, "weights": weights, "still": still}
    torch.save(ends, folder / f"rank{dist.get_rank()}.pt")


def _counting(backend: str) -> tuple[list[fx.GraphModule], Callable[..., Any]]:
    """The graphs compiled from now on, and the backend that notes them."""
    torch._dynamo.reset()
    graphs: list[fx.GraphModule] = []

    def count(graph: fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        run: Callable[..., Any] = torch._dynamo.lookup_backend(backend)(graph, examples)
        return run

    return graphs, count


def compiled_views(names: list[str], steps: int, folder: Path) -> None:
    """Graphs compiled up to each step's views, and the largest difference to plain ones, by pre-training method."""
    torch.set_num_threads(1)
    ends = {}
    for name in names:
        with built("pretrain", name) as method:
            pair: Callable[..., tuple[Tensor, Tensor]] = method._pair  # type: ignore[assignment]
            graphs, count = _counting("eager")
            compiled, counts, differences = torch.compile(pair, backend=count), list[int](), list[float]()
            for step in range(steps):
                streams = SampleGenerator.for_step(0, step, torch.arange(COUNT))
                ours, plain = (torch.stack(views(some_batch(), streams)) for views in (compiled, pair))
                counts.append(len(graphs))
                differences.append(float((ours - plain).abs().max()))
        ends[name] = {"graphs": counts, "difference": max(differences)}
    torch.save(ends, folder / "views.pt")


def compiled_steps(cases: list[tuple[Stage, str]], steps: int, backend: str, folder: Path) -> None:
    """Graphs compiled up to each step (whole networks, or it fails), and the losses with and without compilation."""
    torch.set_num_threads(1)
    ends = {}
    for stage, name in cases:
        with built(stage, name) as plain:
            expected = train_steps(plain, optimizer_of(plain), range(steps))
        graphs, count = _counting(backend)
        with built(stage, name) as method:
            compile_whole = functools.partial(torch.compile, backend=count, fullgraph=True)
            with mock.patch.object(torch, "compile", compile_whole):
                method.compile_network()
            optimizer, counts, losses = optimizer_of(method), list[int](), list[float]()
            for step in range(steps):
                losses += train_steps(method, optimizer, range(step, step + 1))
                counts.append(len(graphs))
        ends[name] = {"graphs": counts, "losses": losses, "expected": expected}
    torch.save(ends, folder / "compiled.pt")
