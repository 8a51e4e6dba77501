"""What turns images into named features to be scored: a trained method, a bare backbone, or a colour histogram."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from dapg.core.device import place
from dapg.core.images import normalise, to_float
from dapg.core.types import Modality
from dapg.methods.base import Method
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool


@runtime_checkable
class Encoder(Protocol):
    """Anything that can be scored."""

    headline: str
    """The feature to report."""
    input_size: tuple[int, int]
    """(height, width) of the images it takes."""
    device: torch.device

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """Named unit features of decoded images of one modality."""
        ...


class MethodEncoder:
    """A trained (or just being trained) method."""

    def __init__(self, method: Method, device: torch.device) -> None:
        self.method, self.device = place(method, device), device
        self.headline, self.input_size = method.headline, method.input_size

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """The method's own features."""
        backbone = self.method.backbone
        return self.method.encode(normalise(to_float(images.to(self.device)), backbone.mean, backbone.std), modality)


class BackboneEncoder:
    """A backbone without any method: random weights, ImageNet's, or a weights file."""

    headline = "backbone"

    def __init__(self, backbone: Backbone, input_size: tuple[int, int], device: torch.device) -> None:
        self.backbone, self.input_size, self.device = place(backbone, device).eval(), input_size, device

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """The pooled feature map."""
        standard = normalise(to_float(images.to(self.device)), self.backbone.mean, self.backbone.std)
        return {"backbone": functional.normalize(average_pool(self.backbone(standard)))}


FLIPPED = ", flip-averaged"


class FlipAveraged:
    """Another encoder's features, and beside each the average over an image and its mirror image, of unit length.

    What CAJ and DEEN report (mangye16/Cross-Modal-Re-ID-baseline, ICCV21_CAJ/testa.py); AGW and CIL do not.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.headline, self.input_size, self.device = encoder.headline, encoder.input_size, encoder.device

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """Each feature under its name, and its average under the name with ``FLIPPED`` added."""
        features = self.encoder.encode(images, modality)
        mirrored = self.encoder.encode(images.flip(-1), modality)
        averaged = {name + FLIPPED: functional.normalize(values + mirrored[name]) for name, values in features.items()}
        return {**features, **averaged}


class HistogramEncoder:
    """Colours alone: what any network must beat. Six stripes of a joint 8 x 8 x 8 RGB histogram, square-rooted.

    The root makes the dot product the Bhattacharyya coefficient, the usual likeness of histograms.
    """

    headline = "histogram"
    stripes, bins = 6, 8

    def __init__(self, input_size: tuple[int, int], device: torch.device) -> None:
        self.input_size, self.device = input_size, device

    def encode(self, images: UInt8[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """Counts per stripe and colour cell, of unit length."""
        cells = (images.to(self.device).long() * self.bins) // 256
        joint = (cells[:, 0] * self.bins + cells[:, 1]) * self.bins + cells[:, 2]  # (B, H, W)
        rows = torch.arange(joint.shape[1], device=self.device) * self.stripes // joint.shape[1]
        joint = joint + rows[:, None] * self.bins**3
        counts = torch.zeros(len(images), self.stripes * self.bins**3, device=self.device)
        flat = joint.flatten(1)
        counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))
        return {"histogram": functional.normalize(counts.sqrt())}
