"""Graph convolution against a loop from its equation, and the wavelet-graph block around it."""

import math

import pytest
import torch
from torch import Tensor, nn

from dapg.core.rng import generator_from
from dapg.models.blocks.graph_convolution import GraphConvolution, normalise_adjacency, similarity_adjacency
from dapg.models.blocks.wavelet import haar_analysis
from dapg.models.blocks.wavelet_graph import WaveletGraph


def some_nodes() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


def test_graph_convolution_is_the_loop_of_its_equation() -> None:
    nodes = some_nodes()
    layer = GraphConvolution(6, 3)
    result = layer(nodes, normalise_adjacency(similarity_adjacency(nodes)))
    weight = layer.linear.weight.detach()
    for b in range(2):
        x = nodes[b]
        edge = [[max(0.0, float(x[i] @ x[j] / (x[i].norm() * x[j].norm()))) for j in range(5)] for i in range(5)]
        degree = [sum(row) for row in edge]
        for i in range(5):
            expected = sum((edge[i][j] / math.sqrt(degree[i] * degree[j]) * x[j] for j in range(5)), torch.zeros(6))
            torch.testing.assert_close(result[b, i].detach(), weight @ expected, atol=1e-5, rtol=1e-4)


def test_unlike_nodes_do_not_meet() -> None:
    nodes = torch.eye(3)[None] * 4
    assert torch.equal(normalise_adjacency(similarity_adjacency(nodes)), torch.eye(3)[None])
    layer = GraphConvolution(3, 2)
    torch.testing.assert_close(layer(nodes, torch.eye(3)[None]), layer(nodes, None))


def test_zero_features_give_finite_gradients() -> None:
    nodes = torch.zeros(1, 3, 4, requires_grad=True)
    normalise_adjacency(similarity_adjacency(nodes)).sum().backward()
    assert nodes.grad is not None
    assert nodes.grad.isfinite().all()


def block(**changes: object) -> WaveletGraph:
    return WaveletGraph(8, WaveletGraph.Config(**changes), generator_from("block"))  # type: ignore[arg-type]


def some_map(height: int = 8, width: int = 5) -> Tensor:
    return torch.randn(3, 8, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(8, 4), (18, 9), (4, 2), (1, 1)])
def test_the_block_begins_as_the_identity(size: tuple[int, int]) -> None:
    x = some_map(*size)
    for changes in ({}, {"wavelet": False}, {"graph": False}):
        torch.testing.assert_close(block(**changes).train()(x), x)


def opened(**changes: object) -> WaveletGraph:
    module = block(**changes).eval()
    nn.init.ones_(module.norm.weight)
    return module


def test_wavelet_and_graph_each_change_the_result() -> None:
    x = some_map()
    whole = opened()(x)
    for changes in ({"wavelet": False}, {"graph": False}, {"regions": 2}):
        assert (opened(**changes)(x) - whole).abs().max() > 1e-3, changes


def test_what_is_added_is_constant_inside_a_region_of_a_band() -> None:
    x = some_map(16, 6)
    added = haar_analysis(opened(regions=4)(x) - x)  # (B, 4, C, 8, 3)
    torch.testing.assert_close(added, added[..., :1].expand_as(added), atol=1e-5, rtol=0)
    torch.testing.assert_close(added[..., 0::2, :], added[..., 1::2, :], atol=1e-5, rtol=0)
    assert (added[..., 0, 0] - added[..., 2, 0]).abs().max() > 1e-3


def test_gradients_reach_every_weight_once_it_is_open() -> None:
    module = opened().train()
    x = some_map().requires_grad_()
    module(x).square().sum().backward()
    assert x.grad is not None
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
