"""Every method on several devices and compiled: what can be shown without a GPU."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import method_processes
import warm_processes
from dapg.contracts.methods import built, draws, some_batch
from dapg.core.scales import Stage
from method_processes import METHODS

Ends = tuple[str, list[dict[str, Any]]]
"""Which settings, and what each rank ended with."""


@pytest.fixture(scope="module", params=["recommended", pytest.param("paper", marks=pytest.mark.slow)])
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """Of both ranks after two steps of every method."""
    folder = tmp_path_factory.mktemp("parallel")
    for rank in warm_processes.start_ranks(method_processes.two_parallel_steps, request.param, folder, folder=folder):
        rank.succeed()
    return request.param, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("stage, name", METHODS)
def test_two_processes_train_the_same_weights(ends: Ends, stage: Stage, name: str) -> None:
    """The ranks saw different images, and hold equal weights, nearly all of which have moved."""
    _, ranks = ends
    first, second = (rank[f"{stage} {name}"] for rank in ranks)
    assert all(map(math.isfinite, [*first["losses"], *second["losses"]]))
    assert first["losses"] != second["losses"]
    assert first["weights"]
    for key, weights in first["weights"].items():
        assert torch.equal(second["weights"][key], weights), key
    assert len(first["still"]) < len(first["weights"]) / 10


@pytest.mark.parametrize("stage, name", METHODS)
def test_synchronised_batch_norms_replace_all_others(stage: Stage, name: str) -> None:
    """No plain batch norm remains or runs in a step, and in one process the loss is the same to the bit."""
    with built(stage, name) as plain:
        method = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain.train()))
        expected = plain(some_batch(), draws(0)).loss
        ran: list[nn.Module] = []
        hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: ran.append(module))
        try:
            loss = method(some_batch(), draws(0)).loss
        finally:
            hook.remove()
    assert torch.equal(loss, expected)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in ran)
    assert not [module for module in (*ran, *method.modules()) if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert method.state_dict().keys() == plain.state_dict().keys()
    trained, same = ([key for key, v in m.named_parameters() if v.requires_grad] for m in (method, plain))
    assert trained == same


def test_standard_views_compile_in_the_first_step_only(tmp_path: Path) -> None:
    """In several graphs, as what is decided on the host divides them; the corruptions of a chain cannot be compiled."""
    names, steps = ["byol"], 4
    warm_processes.start(method_processes.compiled_views, names, steps, tmp_path, log=tmp_path / "log").succeed()
    ends = torch.load(tmp_path / "views.pt", weights_only=True)
    for name in names:
        graphs = ends[name]["graphs"]
        assert graphs[0] > 0
        assert graphs == [graphs[0]] * steps, f"the views of {name} are compiled again: {graphs}"
        assert ends[name]["difference"] < 1e-5


MAIN: list[tuple[Stage, str]] = [("pretrain", "dapg"), ("align", "dapg_align"), ("finetune", "agw")]
REST: list[tuple[Stage, str]] = [case for case in METHODS if case not in MAIN]


@pytest.mark.parametrize(
    "cases, backend",
    [
        pytest.param(MAIN, "eager", id="main"),
        pytest.param(REST, "eager", id="rest", marks=pytest.mark.slow),
        pytest.param(MAIN[:1], "inductor", id="inductor", marks=pytest.mark.slow),
    ],
)
def test_networks_compile_as_one_graph_and_not_again(
    cases: list[tuple[Stage, str]], backend: str, tmp_path: Path
) -> None:
    """In a process without shape checks, which are no part of a graph; losses stay those of plain steps."""
    steps = 4
    warm_processes.start(
        method_processes.compiled_steps, cases, steps, backend, tmp_path, log=tmp_path / "log"
    ).succeed()
    ends = torch.load(tmp_path / "compiled.pt", weights_only=True)
    for _, name in cases:
        graphs = ends[name]["graphs"]
        assert graphs[0] >= 1
        assert graphs[2:] == graphs[1:-1], f"{name} is compiled again: {graphs}"
        tolerance = {"eager": 1e-5, "inductor": 0.02}[backend]
        assert ends[name]["losses"] == pytest.approx(ends[name]["expected"], rel=tolerance), name
