"""Swin-B: 1024 channels; files of SOLIDER."""

from typing import ClassVar

from dapg.models.backbones._swin import Swin


class SwinBase(Swin):
    """Liu et al. 2021, section 3.3."""

    channels: ClassVar[int] = 128
    depths: ClassVar[tuple[int, int, int, int]] = (2, 2, 18, 2)
