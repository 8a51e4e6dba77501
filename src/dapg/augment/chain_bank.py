"""Noise chains that are made once for each image and used again: corrupting is a quarter of a small step on a CPU."""

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dapg.augment.basic import resize
from dapg.augment.noise_chain import LINKS, ChainConfig, noise_chain
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.core.seeds import derive_seed

LARGEST = 8 * 10**9
"""Bytes a bank may take."""


class ChainBank:
    """``chain.bank`` chains of each of ``images`` whole images, as bytes: c1(a), c2(c1(a)) and c3(c2(c1(a))).

    A chain is made when it is first asked for. It depends on the seed, the image's index and its own number alone, so
    that a training that was interrupted goes on with the same ones.

    Raises:
        UsageError: the bank would take more than ``LARGEST`` bytes.
    """

    def __init__(self, chain: ChainConfig, images: int, seed: int) -> None:
        size = images * chain.bank * LINKS * 3 * chain.height * chain.width
        if size > LARGEST:
            raise UsageError(
                f"chain.bank {chain.bank} of {images:,} images takes {size / 1e9:.1f} GB of memory, more than "
                f"{LARGEST / 1e9:.0f}: take fewer images (--data.subset) or chain.bank 0, which corrupts anew"
            )
        self.chain, self.seed = chain, seed
        self._chains = torch.empty((images * chain.bank, LINKS, 3, *chain.size), dtype=torch.uint8)
        self._made = torch.zeros(images * chain.bank, dtype=torch.bool)

    def __call__(
        self, images: UInt8[Tensor, "B 3 H W"], indices: Int[Tensor, "B"], numbers: Int[Tensor, "B"]
    ) -> UInt8[Tensor, "B 3 3 h w"]:
        """Chain ``numbers`` (below ``chain.bank``) of each image, at the chain's size.

        Raises:
            UsageError: the images are not in the processor's memory.
        """
        if images.device.type != "cpu":
            raise UsageError("chain.bank saves the time of a processor; on a GPU give chain.bank 0")
        places = indices * self.chain.bank + numbers
        missing = ~self._made[places]
        if missing.any():
            streams = SampleGenerator.for_step(derive_seed("chain bank", self.seed), 0, places[missing])
            made = noise_chain(
                resize(images[missing], self.chain.size), streams, self.chain.names, self.chain.severities
            )
            links = torch.stack([made.query, made.first, made.second], dim=1)
            self._chains[places[missing]] = links.mul_(255).round_().to(torch.uint8)
            self._made[places[missing]] = True
        return self._chains[places]
