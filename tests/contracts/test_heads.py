"""Every head found in models/heads answers the contract."""

import pytest
import torch

from dapg.core import plugins
from dapg.models.heads.base import Head

NAMES = plugins.names("models.heads")


def build(name: str, seed: int = 0, **settings: int) -> Head:
    cls = plugins.load("models.heads", name, Head)
    return cls(24, cls.Config(**settings), torch.Generator().manual_seed(seed))


def test_the_files_are_found() -> None:
    assert {"moco_head", "simclr_head", "byol_head"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shape_gradient_and_seed(name: str) -> None:
    head = build(name, hidden_dim=40, output_dim=12)
    vectors = torch.randn(6, 24, generator=torch.Generator().manual_seed(1))
    out = head(vectors)
    assert out.shape == (6, 12)
    assert head.output_dim == 12
    target = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    (out * target).sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key
    same, other = build(name, hidden_dim=40, output_dim=12), build(name, seed=1, hidden_dim=40, output_dim=12)
    state = head.state_dict()
    assert all(
        torch.equal(state[key], value)
        for key, value in same.state_dict().items()
        if "running" not in key and "num_batches" not in key
    )
    assert any(not torch.equal(state[key], value) for key, value in other.state_dict().items() if "weight" in key)


def test_published_sizes() -> None:
    """2048-2048-128 for MoCo v2 and SimCLR, 4096 and 256 for BYOL, counted by hand."""
    expected = {
        "moco_head": 2048 * 2048 + 2048 + 2048 * 128 + 128,
        "simclr_head": 2048 * 2048 + 2 * 2048 + 2048 * 128 + 2 * 128,
        "byol_head": 2048 * 4096 + 2 * 4096 + 4096 * 256 + 256,
    }
    for name, count in expected.items():
        cls = plugins.load("models.heads", name, Head)
        head = cls(2048, cls.Config())
        assert sum(parameter.numel() for parameter in head.parameters()) == count, name
