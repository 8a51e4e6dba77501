"""How well estimated key points agree with true ones: PCK, the share of points within a part of the torso's length."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.core.key_points import LEFT_HIP, NECK, RIGHT_HIP


def torso_lengths(points: Float[Tensor, "B 18 3"], aspect: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """From the neck to the middle of the hips, in heights of the image.

    Args:
        points: key points as parts of the image.
        aspect: width of each image divided by its height.
    """
    hips = (points[:, LEFT_HIP, :2] + points[:, RIGHT_HIP, :2]) / 2
    return _lengths(points[:, NECK, :2] - hips, aspect)


def errors(
    estimated: Float[Tensor, "B 18 3"], truth: Float[Tensor, "B 18 3"], aspect: Float[Tensor, "B"]
) -> Float[Tensor, "B 18"]:
    """Distance of each estimated point from the true one, in torso lengths of the truth.

    The torso is foreshortened at most by the camera's elevation, so its length is the scale in all views. A point
    that was not estimated (confidence 0) is infinitely far away.
    """
    distance = _lengths(estimated[..., :2] - truth[..., :2], aspect[:, None])
    distance = distance / torso_lengths(truth, aspect)[:, None].clamp(min=1e-6)
    return torch.where(estimated[..., 2] > 0, distance, torch.inf)


def pck(
    estimated: Float[Tensor, "B 18 3"],
    truth: Float[Tensor, "B 18 3"],
    aspect: Float[Tensor, "B"],
    fraction: float = 0.2,
) -> Float[Tensor, "B"]:
    """Per image the share of the true points (confidence above 0) that were hit within ``fraction`` of the torso.

    Images without any true point score 0.
    """
    counted: Bool[Tensor, "B 18"] = truth[..., 2] > 0
    hit = (errors(estimated, truth, aspect) <= fraction) & counted
    return hit.sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _lengths(offset: Float[Tensor, "*B 2"], aspect: Float[Tensor, "*b"]) -> Float[Tensor, "*B"]:
    """Of offsets given as parts of width and height, in heights."""
    return torch.hypot(offset[..., 0] * aspect, offset[..., 1])
