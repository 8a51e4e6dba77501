"""Chains that are made once: what they depend on, and what is refused."""

import pytest
import torch

from dapg.augment import chain_bank
from dapg.augment.chain_bank import ChainBank
from dapg.augment.noise_chain import ChainConfig
from dapg.core.errors import UsageError

CHAIN = ChainConfig(geometry="whole", bank=2, height=64, width=32)


def pictures() -> torch.Tensor:
    coarse = torch.rand(4, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)


def test_a_chain_depends_on_seed_image_and_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for first and beside it, as after an interruption; and what is there is not made again."""
    images, indices, numbers = pictures(), torch.tensor([5, 0, 3, 2]), torch.tensor([0, 1, 1, 0])
    bank = ChainBank(CHAIN, 6, seed=1)
    together = bank(images, indices, numbers)
    assert together.shape == (4, 3, 3, 64, 32)
    fresh = ChainBank(CHAIN, 6, seed=1)
    alone = torch.cat([fresh(images[n : n + 1], indices[n : n + 1], numbers[n : n + 1]) for n in (2, 0, 3, 1)])
    assert int((alone[[1, 3, 0, 2]].int() - together.int()).abs().max()) <= 1, (
        "sums of a smaller batch, in another order"
    )
    assert not torch.equal(bank(images, indices, 1 - numbers), together)
    assert not torch.equal(ChainBank(CHAIN, 6, seed=2)(images, indices, numbers), together)
    monkeypatch.setattr(chain_bank, "noise_chain", None)
    assert torch.equal(bank(images, indices, numbers), together)


def test_a_bank_that_does_not_fit_or_help_is_refused() -> None:
    with pytest.raises(UsageError, match=r"chain\.bank 2 of 4,000,000 images takes 147\.5 GB"):
        ChainBank(CHAIN, 4_000_000, seed=0)
    with pytest.raises(UsageError, match=r"chain\.geometry whole"):
        ChainConfig(bank=2)
    with pytest.raises(UsageError, match="GPU"):
        ChainBank(CHAIN, 4, seed=0)(pictures().to("meta"), torch.arange(4), torch.zeros(4, dtype=torch.int64))
