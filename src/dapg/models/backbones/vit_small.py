"""ViT-S/16: 384 channels; files of TransReID-SSL, PASS, DINOv2 and timm."""

from typing import ClassVar

from dapg.models.backbones._vit import ViT


class ViTSmall(ViT):
    """Twelve blocks of six heads."""

    heads: ClassVar[int] = 6
