"""DEEN's losses of expanded features: centre-guided pairs, and orthogonal expansions (Zhang and Wang, CVPR 2023)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def centre_pair_loss(
    original: Float[Tensor, "B D"],
    expanded: Float[Tensor, "B D"],
    labels: Int[Tensor, "B"],
    margin: float = 0.2,
) -> Float[Tensor, ""]:
    """A person's expanded features of one light come nearer to the other light than to where they came from.

    With V, I the centres of a person's visible and infrared features, V+ that of the expanded visible ones, and
    [x] = max(0, margin + x):

        [d(I, V+) - d(V, V+)] + ([d(I, V+) - min d(V+, V+')] + [d(I, V+) - min d(V, V')]) / 2

    where ' is another person; d(V, V+) has no gradient, so that it is not pushed up. The loss is the mean of this and
    of the same with visible and infrared exchanged, over the batch's rows: over persons where each has as many.

    Args:
        original: visible rows, then as many infrared ones, before the neck.
        expanded: the same images' rows of one expansion.
        labels: person of each row; every person occurs in both halves, and there are two or more.
        margin: 0.2 in the published code.
    """
    with torch.autocast(original.device.type, enabled=False):
        wide = torch.promote_types(original.dtype, torch.float32)
        half = len(labels) // 2
        persons = labels[:half]
        rows = (*original.to(wide).chunk(2), *expanded.to(wide).chunk(2))
        sides = (persons, labels[half:]) * 2
        visible, infrared, more_visible, more_infrared = (
            _centres(features, side, persons) for features, side in zip(rows, sides, strict=True)
        )
        other = persons[:, None] != persons
        first = _side(visible, infrared, more_visible, other, margin)
        return (first + _side(infrared, visible, more_infrared, other, margin)) / 2


def _side(
    own: Float[Tensor, "N D"],
    opposite: Float[Tensor, "N D"],
    expanded: Float[Tensor, "N D"],
    other: Bool[Tensor, "N N"],
    margin: float,
) -> Float[Tensor, ""]:
    across = _distances(opposite, expanded)
    within = _distances(own, expanded).detach()
    hinges = [functional.relu(margin + across - apart).mean() for apart in (within, *_nearest(expanded, own, other))]
    return hinges[0] + (hinges[1] + hinges[2]) / 2


def _nearest(
    expanded: Float[Tensor, "N D"], own: Float[Tensor, "N D"], other: Bool[Tensor, "N N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Distance of each centre to the nearest of another person, among the expanded and among the original ones."""
    first, second = (
        _distances(centres[:, None], centres[None]).masked_fill(~other, float("inf")).amin(dim=1)
        for centres in (expanded, own)
    )
    return first, second


def _distances(first: Float[Tensor, "*N D"], second: Float[Tensor, "*M D"]) -> Float[Tensor, "*R"]:
    return (first - second).square().sum(dim=-1).clamp(min=1e-12).sqrt()


def _centres(
    features: Float[Tensor, "B D"], labels: Int[Tensor, "B"], persons: Int[Tensor, "N"]
) -> Float[Tensor, "N D"]:
    """For each of ``persons`` the mean of its rows."""
    member = (persons[:, None] == labels).to(features.dtype)
    return member @ features / member.sum(dim=1, keepdim=True)


def orthogonality(first: Float[Tensor, "B D"], second: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean dot product of an image's two expansions, a negative one counted as 0.

    The published features come from a ReLU, and none is negative; of signed ones the sum would fall without end.
    """
    with torch.autocast(first.device.type, enabled=False):
        wide = torch.promote_types(first.dtype, torch.float32)
        return (first.to(wide) * second.to(wide)).sum(dim=1).clamp(min=0).mean()
