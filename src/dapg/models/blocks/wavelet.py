"""Two-dimensional Haar wavelet analysis of feature maps, one level, and its exact inverse.

Haar (1910) is the one orthogonal wavelet whose filters do not reach over the edge of their 2 x 2 block, so that the
inverse is exact on maps as small as those of a re-identification network. Signs and order are PyWavelets'.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dapg.core.errors import UsageError

BANDS = ("average", "horizontal", "vertical", "diagonal")
"""Order of the sub-bands: LL, and the details across rows, across columns and across both."""


def haar_analysis(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 4 C h2 w2"]:
    """The four sub-bands (``BANDS``) of half the size, rounded up.

    An odd last row or column is repeated first. The transform is orthonormal: on even sizes the sum of squares stays.
    """
    height, width = x.shape[-2:]
    x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return torch.stack([top + bottom, top - bottom, left + right, left - right], dim=1) / 2


def haar_synthesis(bands: Float[Tensor, "B 4 C h2 w2"], size: tuple[int, int]) -> Float[Tensor, "B C h w"]:
    """The map of ``size`` = (height, width) whose sub-bands these are: the inverse of ``haar_analysis``.

    Raises:
        UsageError: ``size`` is not what these sub-bands came from.
    """
    if tuple(bands.shape[-2:]) != ((size[0] + 1) // 2, (size[1] + 1) // 2):
        raise UsageError(f"sub-bands of {tuple(bands.shape[-2:])} are not those of a map of {size}")
    average, horizontal, vertical, diagonal = bands.unbind(dim=1)
    top, bottom, left, right = average + horizontal, average - horizontal, vertical + diagonal, vertical - diagonal
    upper = torch.stack([top + left, top - left], dim=-1).flatten(-2)
    lower = torch.stack([bottom + right, bottom - right], dim=-1).flatten(-2)
    whole = torch.stack([upper, lower], dim=-2).flatten(-3, -2) / 2
    return whole[..., : size[0], : size[1]]
