"""Persons in other poses on the fly: images and target key points in, generated images out."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment.carry import carry
from dapg.augment.skeleton import draw_skeletons
from dapg.core.images import to_float
from dapg.models.pn_gan import PoseGenerator


@torch.inference_mode()
def repose(
    generator: PoseGenerator,
    images: UInt8[Tensor, "B 3 H W"],
    points: Float[Tensor, "P 18 3"],
    own: Float[Tensor, "B 18 3"] | None = None,
) -> UInt8[Tensor, "B P 3 H W"]:
    """Every person of ``images`` in each of P poses, on the generator's device. Nothing random is in it.

    Args:
        generator: in evaluation mode.
        images: at the size the generator was trained at.
        points: key points of the poses, as parts of the image (``augment/skeleton.py: canonical_poses``).
        own: key points of the images, by which a generator that heeds them is given carried body parts.
    """
    device = next(generator.parameters()).device
    size = (images.shape[2], images.shape[3])
    skeletons = 2 * draw_skeletons(points.to(device), size) - 1  # (P, 3, H, W)
    count, poses = len(images), len(skeletons)
    sources = (2 * to_float(images.to(device)) - 1).repeat_interleave(poses, dim=0)
    carried = None
    if generator.config.carry and own is not None:
        targets = points.to(device).repeat(count, 1, 1)
        carried = carry(sources, own.to(device).repeat_interleave(poses, dim=0), targets)
    generated = generator(sources, skeletons.repeat(count, 1, 1, 1), carried)
    scaled = ((generated.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    versions: Tensor = scaled.reshape(count, poses, *images.shape[1:])
    return versions
