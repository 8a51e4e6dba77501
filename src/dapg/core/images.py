"""From an encoded image to a uint8 tensor: the one decoder of the project.

Decoders differ by a grey level or so, so an experiment must use one of them throughout; ours is Pillow.
"""

import io

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from dapg.core.device import constant
from dapg.core.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""What is decoded, whatever a file is called: an image must not choose a decoder that starts other programs."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def open_rgb(data: bytes, where: str) -> Image.Image:
    """Decode an image to RGB, all of it, so that a truncated file is noticed here.

    Args:
        data: the encoded file (JPEG, PNG, BMP, WebP, ...).
        where: its path, for the error message.

    Raises:
        DataError: not an image, or a damaged one.
    """
    image = _identify(data, where)
    return _upright(_convert(image, where), _turn(image))


def _upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _identify(data: bytes, where: str) -> Image.Image:
    if not data:
        raise DataError(f"{where}: the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # its text holds a memory address, which would differ from run to run
        raise DataError(f"{where}: not an image (unknown or damaged format; read are {', '.join(FORMATS)})") from error
    except Exception as error:  # whatever a decoder raises for a damaged file
        raise DataError(f"{where}: not an image that can be read ({_said(error)})") from error


def _said(error: Exception) -> str:
    """A foreign decoder's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _convert(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "F":
        raise DataError(f"{where}: floating-point images have no fixed white; store 8 or 16 bits")
    try:
        return _to_8_bit(image).convert("RGB")
    except Exception as error:  # whatever a decoder raises for a damaged file
        raise DataError(f"{where}: damaged image ({_said(error)})") from error


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey (infrared cameras) by its upper byte; Pillow itself would cut everything above 255 to white.

    Palettes with transparency go by way of RGBA, as Pillow advises.
    """
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    if not _is_16_bit(image):
        return image
    values = np.asarray(image)
    return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))


def scale_grey(data: bytes, bits: int, percentiles: tuple[float, ...], where: str) -> bytes:
    """A 16-bit grey image brought to 8 bits, as a PNG; any other image as it is.

    Args:
        data: the encoded file.
        bits: how many of the 16 are used; the largest value they hold becomes white.
        percentiles: two of the image's own values that become black and white instead, or none.
        where: its path, for the error message.

    Raises:
        DataError: not an image, or a damaged one.
    """
    values = grey_values(data, where)
    if values is None:
        return data
    if percentiles:
        black, white = np.percentile(values, percentiles)
        grey = ((values - black) * (255 / max(white - black, 1.0))).clip(0, 255).round()
    else:
        grey = values.clip(0, 2**bits - 1) >> (bits - 8)
    return encode(Image.fromarray(grey.astype(np.uint8)), "PNG", compress_level=1)


def grey_values(data: bytes, where: str) -> NDArray[np.int64] | None:
    """(H, W) values of a 16-bit grey image; None for any other.

    Raises:
        DataError: not an image, or a damaged one.
    """
    image = _identify(data, where)
    if not _is_16_bit(image):
        return None
    try:
        return np.asarray(image).astype(np.int64).clip(0, 65535)
    except Exception as error:  # whatever a decoder raises for a damaged file
        raise DataError(f"{where}: damaged image ({_said(error)})") from error


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation of a JPEG or MPO -> what sets it upright (EXIF 2.3, tag 274)."""
_KEEP_SIDES = (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4])


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How a JPEG of a hand-held camera must be turned; other formats are taken as they are stored."""
    if image.format not in ("JPEG", "MPO"):  # MPO: a JPEG with further images, as phones write
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged note about the image says nothing about the image
        return None


def decode(
    data: bytes,
    size: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    where: str = "picture",
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> UInt8[Tensor, "3 H W"]:
    """Decode, cut out ``box`` (in pixels of the stored image), set upright, resize to ``size`` = (height, width).

    Bilinear with Pillow's support scaling, so that shrinking does not alias. JPEGs over twice the target are decoded
    at reduced scale (``draft``), which is several times faster and differs by less than a grey level on average.

    Raises:
        DataError: unreadable image, or a box without area inside it.
    """
    image = _identify(data, where)
    height, width = size
    turn = _turn(image)
    stored = (width, height) if turn is None or turn in _KEEP_SIDES else (height, width)
    if box is None and image.format == "JPEG" and image.width > 2 * stored[0] and image.height > 2 * stored[1]:
        image.draft("RGB", (2 * stored[0], 2 * stored[1]))
    rgb = _convert(image, where)
    if box is not None:
        left, top, right, bottom = box
        clipped = (max(left, 0), max(top, 0), min(right, rgb.width), min(bottom, rgb.height))
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            raise DataError(f"{where}: box {box} has no area inside an image of {rgb.width} x {rgb.height}")
        rgb = rgb.crop(clipped)
    rgb = _upright(rgb, turn)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), resample)
    return from_numpy(np.asarray(rgb))


def encode(image: Image.Image, form: str, **options: int) -> bytes:
    """The file that Pillow makes of an image in a format such as JPEG, with that format's options."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def from_numpy(array: NDArray[np.uint8]) -> UInt8[Tensor, "3 H W"]:
    """A (H, W, 3) uint8 array as a contiguous (3, H, W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def to_pil(image: UInt8[Tensor, "3 H W"]) -> Image.Image:
    """A (3, H, W) uint8 tensor as a Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def to_float(images: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """uint8 0 ... 255 to float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def normalise(
    images: Float[Tensor, "*B 3 H W"],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Tensor, "*B 3 H W"]:
    """Float images in [0, 1] to zero mean and unit deviation per channel; constants of ImageNet unless given."""
    shift = constant(mean, images.device, images.dtype).view(3, 1, 1)
    scale = constant(std, images.device, images.dtype).view(3, 1, 1)
    return (images - shift) / scale


def upright_size(data: bytes, box: tuple[int, int, int, int] | None = None, where: str = "picture") -> tuple[int, int]:
    """(height, width) in pixels that ``decode`` would cut out before it resizes; only the file's head is read.

    Raises:
        DataError: not an image.
    """
    image = _identify(data, where)
    width, height = image.size
    if box is not None:
        left, top, right, bottom = box
        width, height = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
    turn = _turn(image)
    return (height, width) if turn is None or turn in _KEEP_SIDES else (width, height)


def looks_infrared(image: UInt8[Tensor, "3 H W"]) -> bool:
    """Whether an image is grey: its channels differ by less than four levels on average."""
    values = image.float()
    return bool((values.amax(dim=0) - values.amin(dim=0)).mean() < 4)


def sharpness(images: UInt8[Tensor, "B 3 H W"]) -> Float32[np.ndarray, "B"]:
    """Variance of the Laplacian of each grey image at the network's input size, in grey levels squared."""
    grey = images.float().mean(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    array: Float32[np.ndarray, "B"] = functional.conv2d(grey, kernel).flatten(1).var(dim=1).numpy()
    return array


def cut(data: bytes, box: tuple[int, int, int, int]) -> bytes:
    """The part of an image inside a box, as a PNG file, so that it decodes to the same pixels."""
    return encode(to_pil(decode(data, upright_size(data, box), box)), "PNG", compress_level=1)


def thumbnail(data: bytes, size: tuple[int, int] = (256, 128)) -> bytes:
    """A JPEG file of (height, width) pixels of an encoded image.

    Raises:
        DataError: not an image.
    """
    return encode(to_pil(decode(data, size)), "JPEG", quality=85)
