"""Swin-T: 768 channels; files of SOLIDER."""

from typing import ClassVar

from dapg.models.backbones._swin import Swin


class SwinTiny(Swin):
    """Liu et al. 2021, section 3.3."""

    channels: ClassVar[int] = 96
    depths: ClassVar[tuple[int, int, int, int]] = (2, 2, 6, 2)
