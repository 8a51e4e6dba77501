"""The noise chain of stage 1: one, two and three corruptions of a view, and their mixture.

Paper section II-A and Fig. 3, in the reading of docs/method.md: a is the anchor view,

    x_q = c1(a),  x1 = c2(x_q),  x2 = c3(x1),  x_mix = (1 - m) a + m (w1 x_q + w2 x1 + w3 x2)

with three different corruptions drawn for every sample, w ~ Dirichlet(1, 1, 1) and m ~ Beta(1, 1) as in AugMix
(Hendrycks et al. 2020). Every draw is made once, so that x1 contains exactly x_q, and x2 exactly x1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.augment.view_size import ViewSize
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import Pixels, Severity
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self
from dapg.core.settings import unset
from dapg.corruptions import library

Mixture = Literal["augmix", "weights"]
"""``augmix`` as above; ``weights`` leaves the anchor out: w1 x_q + w2 x1 + w3 x2."""


Geometry = Literal["shared", "per_view"]
"""``shared``: all noisy views show one crop; ``per_view``: x1 and x2 show crops of their own."""


@dataclass(frozen=True)
class ChainConfig(ViewSize):
    """The noise chain of a method; defaults are the recommended preset, reasons are in docs/method.md."""

    severities: tuple[Severity, Severity] = (1, 3)
    """Smallest and largest severity; the paper gives none. Three corruptions of severity 5 leave nothing to see."""
    types: tuple[str, ...] = unset(())
    """Corruptions, families or groups to draw from, such as seen and one of your own; those of seen if not given."""
    leave_out: tuple[str, ...] = ()
    """Families that are not used: noise, blur, weather, digital."""
    geometry: Geometry = "per_view"
    """per_view: x1 and x2 have their own crop and flip; shared, the literal reading: the four views are one crop."""
    mixture: Mixture = "augmix"
    """augmix: the clean view takes part in x_mix; weights: only the three noisy ones do."""
    height: Pixels = 256
    """Rows of the pictures that are corrupted; severities are made for 256 x 128, the network's size comes after."""
    width: Pixels = 128
    """Columns of the pictures that are corrupted."""

    def __post_init__(self) -> None:
        """Refuse names that do not exist and too few corruptions to draw from."""
        if len(self.names) < 3:
            raise UsageError(
                "the chain draws three different corruptions; types and leave_out leave fewer than three: "
                f"{', '.join(self.names) or 'none'}"
            )

    def at(self, scale: Scale) -> Self:
        """The size of the scale's decoded pictures.

        Severities in pixels, as of blurs, are stronger on smaller pictures (docs/training.md).
        """
        return self.resized(scale.decoded or self.size)

    @property
    def names(self) -> tuple[str, ...]:
        """Corruptions to draw from."""
        names = library.expand(self.types) if self.types else library.IMAGENET_C
        for family in self.leave_out:
            names = library.without_family(family, names)
        return names


@dataclass(frozen=True, slots=True)
class NoiseChain:
    """The four noisy views of B samples, floats in [0, 1], and what was done to them."""

    query: Float[Tensor, "B 3 H W"]
    """x_q: one corruption."""
    first: Float[Tensor, "B 3 H W"]
    """x1: two corruptions."""
    second: Float[Tensor, "B 3 H W"]
    """x2: three corruptions."""
    mixed: Float[Tensor, "B 3 H W"]
    """x_mix."""
    names: tuple[tuple[str, str, str], ...]
    """The three corruptions of each sample, in order."""
    severities: Int[Tensor, "B 3"]


def noise_chain(
    anchor: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    names: Sequence[str] = library.IMAGENET_C,
    severities: tuple[int, int] = (1, 3),
    mixture: Mixture = "augmix",
    others: tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"]] | None = None,
    chunk: int = 64,
) -> NoiseChain:
    """Corrupt a batch of anchor views three times in a row and mix the results.

    Args:
        anchor: views in [0, 1]; they stay float through the chain.
        generator: one stream a sample.
        names: corruptions to draw three from, without replacement.
        severities: smallest and largest severity, uniform in between and drawn for each corruption.
        mixture: how x_mix is built.
        others: two other views of the samples (``geometry: per_view``): x1 and x2 then show the first two and all
            three corruptions of *them*, with the same draws; x_mix still mixes the chain on the anchor, as pixels can
            only be mixed in one geometry. None is ``geometry: shared``.
        chunk: samples worked on at once; bounds the memory.

    Raises:
        UsageError: fewer than three names, an unknown one, or severities outside 1 ... 5.
    """
    if len(set(names)) < 3:
        raise UsageError(f"the noise chain needs three different corruptions to draw from, not {list(names)}")
    low, high = severities
    if not 1 <= low <= high <= 5:
        raise UsageError(f"severities of the noise chain are a range within 1 ... 5, not {severities}")
    order = generator.fork("types").permutation(len(names))[:, :3].tolist()
    chosen = tuple((names[i], names[j], names[k]) for i, j, k in order)
    levels = generator.fork("severities").integers(high + 1, 3, low=low)
    weights = generator.fork("weights").exponential(3)
    weights = send(weights / weights.sum(dim=1, keepdim=True), anchor.device)
    share = send(generator.fork("share").uniform(), anchor.device)
    if mixture == "weights":
        share = torch.ones_like(share)

    views = torch.empty(4, *anchor.shape, dtype=anchor.dtype, device=anchor.device)
    for start in range(0, len(anchor), chunk):
        rows = slice(start, start + chunk)
        streams = generator.rows(rows)
        draws = [
            library.draw(
                anchor[rows].shape, [three[k] for three in chosen[rows]], levels[rows, k], streams.fork(f"noise {k}")
            )
            for k in range(3)
        ]
        clean = anchor[rows]
        query = library.apply(clean, draws[0])
        first = library.apply(query, draws[1])
        second = library.apply(first, draws[2])
        views[3, rows] = mix(clean, torch.stack([query, first, second], dim=1), weights[rows], share[rows])
        if others is not None:
            first = library.apply(library.apply(others[0][rows], draws[0]), draws[1])
            second = library.apply(library.apply(library.apply(others[1][rows], draws[0]), draws[1]), draws[2])
        views[0, rows], views[1, rows], views[2, rows] = query, first, second
    return NoiseChain(views[0], views[1], views[2], views[3], chosen, levels)


def mix(
    clean: Float[Tensor, "B 3 H W"],
    chains: Float[Tensor, "B K 3 H W"],
    weights: Float[Tensor, "B K"],
    share: Float[Tensor, "B"],
) -> Float[Tensor, "B 3 H W"]:
    """(1 - share) clean + share Σ weights chains, AugMix's rule; ``weights`` sum to 1."""
    blended = torch.einsum("bk,bkchw->bchw", weights.to(chains.dtype), chains)
    return torch.lerp(clean, blended, share[:, None, None, None].to(clean.dtype))
