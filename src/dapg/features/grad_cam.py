"""Where a network looks: maps over an image, computed here and drawn by ``report``.

Likeness is Grad-CAM (Selvaraju et al., ICCV 2017) with the cosine similarity to another image's feature in place of a
class score: what makes the two images alike. Strength needs no other image: the squared length of the feature map's
vectors, the attention map of Zagoruyko and Komodakis (Paying More Attention to Attention, ICLR 2017).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dapg.core.types import Modality, Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.features.encoders import BackboneEncoder, Encoder, FlipAveraged, MethodEncoder
from dapg.models.backbones.base import Backbone


def backbone_of(encoder: Encoder) -> Backbone | None:
    """The network whose last feature map is looked at; None for an encoder without one (colours alone)."""
    if isinstance(encoder, FlipAveraged):
        return backbone_of(encoder.encoder)
    if isinstance(encoder, MethodEncoder):
        return encoder.method.backbone
    return encoder.backbone if isinstance(encoder, BackboneEncoder) else None


def likeness_maps(
    encoder: Encoder,
    images: UInt8[Tensor, "B 3 H W"],
    modality: Modality,
    feature: str,
    others: Float[Tensor, "B D"],
) -> Float[Tensor, "B h w"]:
    """Grad-CAM of each image's similarity to one other feature: 0 ... 1, the largest of each map 1 (or all 0).

    The gradient of the similarity by the last feature map, averaged over places, weights the channels; what is left
    below 0 speaks against likeness and is cut off.

    Args:
        encoder: with a backbone.
        images: images of its input size.
        modality: of all of them.
        feature: one of the encoder's named features.
        others: unit features of the images compared with, in the same order.
    """
    with torch.enable_grad():
        maps, features = _with_maps(encoder, images, modality)
        similarity = (features[feature] * others.to(features[feature].device)).sum()
        (gradient,) = torch.autograd.grad(similarity, maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return _scaled((weights * maps.detach()).sum(dim=1).clamp(min=0))


@torch.no_grad()
def strength_maps(encoder: Encoder, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> Float[Tensor, "B h w"]:
    """Sum of squares over the channels of the last feature map: 0 ... 1, the largest of each map 1."""
    maps, _ = _with_maps(encoder, images, modality)
    return _scaled(maps.square().sum(dim=1))


def maps_of_records(
    encoder: Encoder,
    dataset: Dataset,
    records: Sequence[Record],
    feature: str,
    others: Sequence[Tensor | None],
    batch_size: int = 32,
) -> list[Float[Tensor, "h w"]]:
    """A map for each record: likeness to the feature beside it, or strength where that is None.

    Raises:
        DataError: an image cannot be read.
    """
    height, width = encoder.input_size
    config = replace(LoaderConfig(workers=0), height=height, width=width)
    maps: list[Tensor | None] = [None] * len(records)
    for batch in ordered_batches(dataset, records, batch_size, config):
        for modality in Modality:
            for alone in (True, False):
                rows = [
                    row
                    for row, index in enumerate(batch.indices.tolist())
                    if batch.modalities[row] == int(modality) and (others[index] is None) == alone
                ]
                if not rows:
                    continue
                images, places = batch.images[rows], [int(batch.indices[row]) for row in rows]
                if alone:
                    of_rows = strength_maps(encoder, images, modality)
                else:
                    targets = torch.stack([other for place in places if (other := others[place]) is not None])
                    of_rows = likeness_maps(encoder, images, modality, feature, targets)
                for place, drawn in zip(places, of_rows, strict=True):
                    maps[place] = drawn
    return [drawn for drawn in maps if drawn is not None]


def _with_maps(
    encoder: Encoder, images: UInt8[Tensor, "B 3 H W"], modality: Modality
) -> tuple[Float[Tensor, "B C h w"], dict[str, Tensor]]:
    """The last feature map as a leaf of the graph, and the features made from it.

    The map is what leaves the last block, whoever runs the blocks: a two-stream network walks them itself. An encoder
    that runs twice (mirror image) is looked at in its first run.
    """
    backbone = backbone_of(encoder)
    assert backbone is not None, "the caller asks for maps of networks only"
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(torch.is_grad_enabled()))
        return leaves[-1]

    handle = backbone.map_module().register_forward_hook(cut)
    try:
        features = encoder.encode(images, modality)
    finally:
        handle.remove()
    return leaves[0], features


def _scaled(maps: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.clamp(min=1e-12)).float().cpu()
