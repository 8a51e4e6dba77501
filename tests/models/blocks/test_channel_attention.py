import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.models.blocks.channel_attention import ChannelAttention


def attention(channels: int = 32, **changes: int) -> ChannelAttention:
    numbers = {"together": 8, "width": 16, "layers": 1, "heads": 4, **changes}
    return ChannelAttention(channels, **numbers, generator=generator_from("attention")).eval()


@pytest.mark.parametrize("size", [(2, 1), (4, 2), (9, 5)])
def test_one_vector_a_picture_at_any_size(size: tuple[int, int]) -> None:
    assert attention()(torch.rand(3, 32, *size)).shape == (3, 16)


def test_tokens_are_channels_and_not_places() -> None:
    """Where in a cell of the grid something fires changes nothing; in which channels it fires does."""
    features = torch.zeros(3, 32, 8, 4)
    features[0, 3, 0, 0] = features[1, 3, 1, 1] = features[2, 20, 0, 0] = 1.0
    with torch.no_grad():
        first, moved, other = attention()(features)
    torch.testing.assert_close(first, moved)
    assert (first - other).abs().max() > 1e-3


def test_channels_of_other_tokens_are_looked_at() -> None:
    """Attention, not a sum over tokens: the effect of one token hangs on what another one shows."""
    features = torch.rand(4, 32, 4, 2, generator=generator_from("features"))
    features[1], features[2] = features[0], features[0]
    features[3] = features[0]
    features[1, :8] += 1.0
    features[2, 8:16] += 1.0
    features[3, :16] += 1.0
    with torch.no_grad():
        base, one, two, both = attention()(features)
    assert ((both - base) - (one - base) - (two - base)).abs().max() > 1e-3


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = attention().state_dict()
    torch.manual_seed(2)
    second = attention().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.isfinite(value).all() for value in first.values())


def test_numbers_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="must divide"):
        attention(channels=30)
    with pytest.raises(UsageError, match="must divide"):
        attention(width=18)
