"""Images as people have them, files, Pillow images, NumPy arrays or tensors, to and from tensors (3, H, W)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.images import decode, encode, from_numpy, open_rgb, to_pil

Array = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64]
AnyImage = str | Path | bytes | Image.Image | Array | Tensor
"""A file's path, or what is in the file; a Pillow image; an array (H, W), (H, W, 1) or (H, W, 3); a tensor (3, H, W) or
(1, H, W). Numbers are uint8, or floating point in [0, 1]."""


def single_images(images: AnyImage | Sequence[AnyImage]) -> Iterator[AnyImage]:
    """One image after the other of an image, a sequence of images, or a batch: an array or a tensor of four axes."""
    if isinstance(images, str | Path | bytes | Image.Image) or (
        isinstance(images, np.ndarray | Tensor) and images.ndim < 4
    ):
        yield images
    else:
        yield from images


def to_tensor(image: AnyImage) -> Shaped[Tensor, "3 H W"]:
    """Any image as RGB: uint8, or floating point in [0, 1] where it was that.

    Raises:
        UsageError: an array or a tensor of another shape, type or range.
        DataError: a file that is no image, or a damaged one.
    """
    if isinstance(image, str | Path | bytes):
        image = open_rgb(*encoded(image))
    if isinstance(image, Image.Image):
        return from_numpy(np.asarray(image.convert("RGB")))
    if isinstance(image, np.ndarray):
        tensor = torch.from_numpy(np.require(image, requirements=["C", "W"]))  # a copy of what is read-only
        tensor = tensor[None] if tensor.ndim == 2 else tensor.movedim(-1, 0)
    else:
        tensor = image
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise UsageError(
            f"an image is an array (H, W) or (H, W, 3), or a tensor (3, H, W); this one has {tuple(image.shape)}"
        )
    if not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise UsageError(f"an image is of uint8, or of floating point numbers in [0, 1], not of {tensor.dtype}")
    if tensor.is_floating_point() and not (tensor.numel() and 0 <= float(tensor.min()) <= float(tensor.max()) <= 1):
        raise UsageError("an image of floating point numbers has them in [0, 1]: divide by 255, or give uint8")
    return tensor.expand(3, -1, -1).contiguous()


def to_bytes(image: AnyImage, size: tuple[int, int]) -> UInt8[Tensor, "3 H W"]:
    """Any image at ``size`` = (height, width), resized as the data sets' images are; floats are rounded.

    Raises:
        UsageError, DataError: as ``to_tensor``.
    """
    if isinstance(image, str | Path | bytes):
        data, name = encoded(image)
        return decode(data, size, where=name)
    tensor = _rounded(to_tensor(image))
    if tensor.shape[1:] == size:
        return tensor
    return from_numpy(np.asarray(to_pil(tensor).resize(size[::-1], Image.Resampling.BILINEAR)))


def like(image: AnyImage, tensor: Shaped[Tensor, "3 H W"]) -> Image.Image | Array | Tensor:
    """A result of ``to_tensor(image)`` as what the image was; a Pillow image for a file or its content."""
    if isinstance(image, Tensor):
        return tensor
    if isinstance(image, np.ndarray):
        array: Array = tensor.movedim(0, -1).contiguous().numpy()
        return array
    return to_pil(tensor)


def encoded(image: AnyImage) -> tuple[bytes, str]:
    """The content of an image's file, and its name for messages; PNG for what is no file.

    Raises:
        UsageError: a file that cannot be read, or an array or a tensor of another shape, type or range.
    """
    if isinstance(image, bytes):
        return image, "image"
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes(), str(image)
        except OSError as error:
            raise UsageError(f"{image} cannot be read: {error.strerror or error}") from error
    return encode(image if isinstance(image, Image.Image) else to_pil(_rounded(to_tensor(image))), "PNG"), "image"


def _rounded(image: Shaped[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """On the CPU, floating point numbers as the nearest of 256 levels."""
    image = image.cpu()
    return (image.float() * 255).round().to(torch.uint8) if image.is_floating_point() else image
