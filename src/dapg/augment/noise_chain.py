"""The noise chain of stage 1: one, two and three corruptions of a view, and their mixture.

Paper section II-A and Fig. 3, in the reading of docs/explanation/method.md: a is the anchor view,

    x_q = c1(a),  x1 = c2(x_q),  x2 = c3(x1),  x_mix = (1 - m) a + m (w1 x_q + w2 x1 + w3 x2)

with three different corruptions drawn for every sample, w ~ Dirichlet(1, 1, 1) and m ~ Beta(1, 1) as in AugMix
(Hendrycks et al. 2020). Every draw is made once, so that x1 contains exactly x_q, and x2 exactly x1.
``corrupt_repeatedly`` is the cheaper relative for methods of two views: none to three corruptions of a view.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import CountOrZero, Pixels, Severity
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self, ViewSize
from dapg.core.settings import unset
from dapg.corruptions import library

Mixture = Literal["augmix", "weights"]
"""``augmix`` as above; ``weights`` leaves the anchor out: w1 x_q + w2 x1 + w3 x2."""


Geometry = Literal["shared", "per_view", "whole"]
"""``shared``: all noisy views show one crop; ``per_view``: x1 and x2 show crops of their own; ``whole``: likewise, but
all are cut from one chain of the whole image."""


MixedCrop = Literal["anchor", "second", "own"]
"""Which crop x_mix shows under ``per_view`` and ``whole``."""

LINKS = 3
"""Corruptions of a whole chain."""


@dataclass(frozen=True)
class ChainConfig(ViewSize):
    """The noise chain of a method; defaults are the recommended preset, reasons are in docs/explanation/method.md."""

    severities: tuple[Severity, Severity] = (1, 3)
    """Smallest and largest severity; the paper gives none. Three corruptions of severity 5 leave nothing to see."""
    types: tuple[str, ...] = unset(())
    """Corruptions, families or groups to draw from, such as seen and one of your own; those of seen if not given."""
    leave_out: tuple[str, ...] = ()
    """Families that are not used: noise, blur, weather, digital."""
    geometry: Geometry = "per_view"
    """per_view: x1 and x2 have their own crop and flip; shared, the literal reading: the four views are one crop;
    whole: the whole image is corrupted three times, then each view is cut out, for three corruptions instead of eight.
    """
    mixed_crop: MixedCrop = unset("anchor")
    """Crop of x_mix under per_view and whole: the anchor's, which makes it an easy positive; second: that of x2, which
    needs the fewest corruptions; own."""
    anchor: Literal["corrupted", "clean"] = unset("corrupted")
    """corrupted: the anchor is x_q = c1(a); clean: it is a itself."""
    bank: CountOrZero = unset(0)
    """Chains of each image that are kept in memory and used again, under whole on a processor; 0: a new one in every
    step."""
    mixture: Mixture = "augmix"
    """augmix: the clean view takes part in x_mix; weights: only the three noisy ones do."""
    height: Pixels = 256
    """Rows of the images that are corrupted; severities are made for 256 x 128, the network's size comes after."""
    width: Pixels = 128
    """Columns of the images that are corrupted."""

    def __post_init__(self) -> None:
        """Refuse names that do not exist and too few corruptions to draw from."""
        if len(self.names) < 3:
            raise UsageError(
                "the chain draws three different corruptions; types and leave_out leave fewer than three: "
                f"{', '.join(self.names) or 'none'}"
            )
        if self.bank and self.geometry != "whole":
            raise UsageError("chain.bank keeps chains of whole images: give chain.geometry whole, too")

    def at(self, scale: Scale) -> Self:
        """The size of the scale's decoded images.

        Severities in pixels, as of blurs, are stronger on smaller images (docs/how-to/training.md).
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
    others: tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"]] | None = None,
    chunk: int = 64,
) -> NoiseChain:
    """Corrupt a batch of anchor views three times in a row and mix the results.

    Args:
        anchor: views in [0, 1]; they stay float through the chain.
        generator: one stream a sample.
        names: corruptions to draw three from, without replacement.
        severities: smallest and largest severity, uniform in between and drawn for each corruption.
        mixture: how x_mix is built.
        others: the views that x1, x2 and x_mix show (``geometry: per_view``), with the same draws as the anchor. x_mix
            mixes a whole chain on its own view, as pixels can only be mixed in one geometry; a tensor that is given
            twice, such as the anchor itself, is corrupted once. None is ``geometry: shared``: all show the anchor.
        chunk: samples worked on at once; bounds the memory.

    Raises:
        UsageError: fewer than three names, an unknown one, or severities outside 1 ... 5.
    """
    chosen, levels = _links(generator, names, severities)
    weights, share = draw_mixture(generator, mixture, anchor.device)
    first, second, mixed = others or (anchor, anchor, anchor)
    views = torch.empty(4, *anchor.shape, dtype=anchor.dtype, device=anchor.device)
    for start in range(0, len(anchor), chunk):
        rows = slice(start, start + chunk)
        streams = generator.rows(rows)
        draws = [
            library.draw(
                anchor[rows].shape, [three[k] for three in chosen[rows]], levels[rows, k], streams.fork(f"noise {k}")
            )
            for k in range(LINKS)
        ]
        chain = list(itertools.accumulate(draws, library.apply, initial=mixed[rows]))
        views[3, rows] = mix(chain[0], torch.stack(chain[1:], dim=1), weights[rows], share[rows])
        for place, view in enumerate((anchor, first, second)):
            if view is mixed:
                views[place, rows] = chain[place + 1]
            else:
                views[place, rows] = functools.reduce(library.apply, draws[: place + 1], view[rows])
    return NoiseChain(views[0], views[1], views[2], views[3], chosen, levels)


def draw_mixture(
    generator: SampleGenerator, mixture: Mixture, device: torch.device
) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B"]]:
    """The weights w of the three links, and m, the share that they have together."""
    weights = generator.fork("weights").exponential(LINKS)
    share = generator.fork("share").uniform()
    if mixture == "weights":
        share = torch.ones_like(share)
    return send(weights / weights.sum(dim=1, keepdim=True), device), send(share, device)


def _links(
    generator: SampleGenerator, names: Sequence[str], severities: tuple[int, int]
) -> tuple[tuple[tuple[str, str, str], ...], Int[Tensor, "B 3"]]:
    """Three different corruptions of each sample, in order, and their severities."""
    if len(set(names)) < LINKS:
        raise UsageError(f"the noise chain needs three different corruptions to draw from, not {list(names)}")
    low, high = severities
    if not 1 <= low <= high <= 5:
        raise UsageError(f"severities of the noise chain are a range within 1 ... 5, not {severities}")
    order = generator.fork("types").permutation(len(names))[:, :LINKS].tolist()
    chosen = tuple((names[i], names[j], names[k]) for i, j, k in order)
    return chosen, generator.fork("severities").integers(high + 1, LINKS, low=low)


def corrupt_repeatedly(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    names: Sequence[str] = library.IMAGENET_C,
    severities: tuple[int, int] = (1, 3),
) -> Float[Tensor, "B 3 H W"]:
    """Corrupt each image, in [0, 1], zero to three times with equal chance, by different corruptions.

    Raises:
        UsageError: as ``noise_chain``.
    """
    chosen, levels = _links(generator, names, severities)
    times = generator.fork("times").integers(LINKS + 1).tolist()
    for link in range(LINKS):
        kinds = [three[link] if link < count else library.NONE for three, count in zip(chosen, times, strict=True)]
        draws = library.draw(images.shape, kinds, levels[:, link], generator.fork(f"noise {link}"))
        images = library.apply(images, draws)
    return images


def mix(
    clean: Float[Tensor, "B 3 H W"],
    chains: Float[Tensor, "B K 3 H W"],
    weights: Float[Tensor, "B K"],
    share: Float[Tensor, "B"],
) -> Float[Tensor, "B 3 H W"]:
    """(1 - share) clean + share Σ weights chains, AugMix's rule; ``weights`` sum to 1."""
    blended = torch.einsum("bk,bkchw->bchw", weights.to(chains.dtype), chains)
    return torch.lerp(clean, blended, share[:, None, None, None].to(clean.dtype))
