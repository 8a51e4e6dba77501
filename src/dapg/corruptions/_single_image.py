"""Public as ``dapg.corrupt``: one image of any kind, damaged; and ``dapg.corrupt_batch``, what training calls."""

import torch
from PIL import Image
from torch import Tensor

from dapg.core.any_images import AnyImage, Array, like, to_tensor
from dapg.core.rng import SampleGenerator
from dapg.core.types import Modality
from dapg.corruptions import library

corrupt_batch = library.corrupt


def corrupt(
    image: AnyImage, name: str, severity: int = 3, seed: int = 0, modality: Modality | str = Modality.VISIBLE
) -> Image.Image | Array | Tensor:
    """Damage one image; the same seed gives the same damage.

    Args:
        image: a file, a Pillow image, an array or a tensor (``core/any_images.py``), at least 32 pixels on each side.
        name: a corruption, such as ``fog``; ``library.names()`` lists them.
        severity: 1 (slight) to 5 (severe), meant for people of about 256 x 128 pixels.
        seed: of all random choices.
        modality: visible or infrared; infrared images get the same noise on all three channels.

    Returns:
        The kind of image that was given, in RGB; a Pillow image for a file.

    Raises:
        UsageError: an unknown name, severity or modality, or an image of another shape or too small.
        DataError: the file is no image, or damaged.

    Example:
        >>> grey = Image.new("RGB", (64, 128), "grey")
        >>> foggy = corrupt(grey, "fog", severity=3, seed=0)
        >>> foggy.size, foggy == corrupt(grey, "fog", seed=0), foggy == corrupt(grey, "fog", seed=1)
        ((64, 128), True, False)
    """
    infrared = Modality.named(modality) is Modality.INFRARED
    streams = SampleGenerator(torch.tensor([seed]))
    return like(image, corrupt_batch(to_tensor(image)[None], name, severity, streams, equal_channels=infrared)[0])
