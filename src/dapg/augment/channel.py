"""Channel augmentation: exchange or mix colour channels to bring visible images near infrared ones.

Exchanging is CAJ's (Ye et al., ICCV 2021), mixing ours. Source: mangye16/Cross-Modal-Re-ID-baseline and the authors'
CAJ code. There the operations act on *normalised* images; because the channels are normalised differently, that is
not the same as acting before. These functions take either.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.device import constant, send
from dapg.core.rng import SampleGenerator

CAJ_GREY = (0.2989, 0.5870, 0.1140)
"""CAJ's luma weights."""

KEEP, GREY = -1, 3
"""Choices beside 0, 1 and 2, which spread that channel over all three."""

_WEIGHTS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), CAJ_GREY)
"""Of the channels, by choice from ``KEEP`` on."""


def choose_channels(images: Float[Tensor, "B 3 H W"], choice: Int[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Each image with channel 0, 1 or 2 three times, as luma (``GREY``) or as it is (``KEEP``)."""
    weights = constant(_WEIGHTS, images.device, images.dtype)[send(choice + 1, images.device)]  # KEEP is -1
    single = torch.einsum("bc,bchw->bhw", weights, images)[:, None].expand_as(images)
    return torch.where(send(choice == KEEP, images.device)[:, None, None, None], images, single)


def draw_channels(probability: float, generator: SampleGenerator, luma: bool) -> Int[Tensor, "B"]:
    """Choices for ``choose_channels``: with ``probability`` a channel (``luma``: or that), else none."""
    keep = ~generator.fork("whether").bernoulli(probability)
    return torch.where(keep, KEEP, generator.fork("which").integers(GREY + 1 if luma else GREY))


def channel_exchange(images: Float[Tensor, "B 3 H W"], generator: SampleGenerator) -> Float[Tensor, "B 3 H W"]:
    """CAJ's ChannelExchange: one of the three channels with equal chance; luma never occurs."""
    return choose_channels(images, generator.integers(GREY))


def channel_adapt_grey(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, probability: float = 0.5
) -> Float[Tensor, "B 3 H W"]:
    """CAJ's ChannelAdapGray: a quarter each channel; the last quarter luma with ``probability``, else unchanged."""
    choice = generator.integers(4)
    grey = generator.bernoulli(probability)
    return choose_channels(images, torch.where((choice == 3) & ~grey, KEEP, choice))


MIX_SPREAD = 3.0
"""Deviation of the logits of the mixing weights: at 3 one channel mostly leads."""


def channel_mix(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, probability: float
) -> Float[Tensor, "B 3 H W"]:
    """With ``probability`` a grey image whose channels are mixed with random weights that sum to 1.

    An image that is grey already, such as an infrared one, stays as it is.
    """
    weights = (MIX_SPREAD * generator.fork("weights").normal(3)).softmax(dim=1)
    weights = send(weights, images.device).to(images.dtype)
    grey = torch.einsum("bc,bchw->bhw", weights, images)[:, None].expand_as(images)
    mixed = send(generator.fork("whether").bernoulli(probability), images.device)
    return torch.where(mixed[:, None, None, None], grey, images)
