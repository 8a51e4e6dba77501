"""ViT-B/16: 768 channels; files of TransReID-SSL, PASS, DINOv2 and timm."""

from typing import ClassVar

from dapg.models.backbones._vit import ViT


class ViTBase(ViT):
    """Twelve blocks of twelve heads."""

    heads: ClassVar[int] = 12
