"""A trained network for people who have images and want features: ``dapg.load`` and what it returns."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.any_images import AnyImage, single_images, to_bytes
from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality
from dapg.features.build_encoder import BUILT_IN, build_encoder, card_of
from dapg.features.encoders import Encoder
from dapg.models.weights.addresses import Card, locate


class Model:
    """Turns images into unit features, whose dot product is their likeness."""

    def __init__(self, encoder: Encoder, card: Card, batch_size: int = 64) -> None:
        self.encoder, self.card, self.batch_size = encoder, card, batch_size

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) that images are resized to."""
        return self.encoder.input_size

    @property
    def feature(self) -> str:
        """The feature that ``encode`` returns unless told otherwise, such as ``after_bn``."""
        return self.encoder.headline

    def encode(
        self,
        images: AnyImage | Sequence[AnyImage],
        modality: Modality | str = Modality.VISIBLE,
        feature: str = "",
    ) -> Float[Tensor, "N D"]:
        """Features of length one, a row per image in the order given, float32 on the CPU.

        Args:
            images: one image or many: files, Pillow images, arrays (H, W, 3) or (H, W), tensors (3, H, W), or a batch
                of four axes; uint8, or floating point in [0, 1]. Any size.
            modality: visible or infrared, of all of them. A two-stream network has a stem for each.
            feature: one of the network's other features; empty: ``self.feature``.

        Raises:
            UsageError: no image, one of a wrong shape or type, or no such modality or feature.
            DataError: a file is no image, or damaged.

        Example:
            >>> import dapg
            >>> from PIL import Image
            >>> model = dapg.load("histogram")
            >>> night, day = Image.new("RGB", (64, 128), "grey"), Image.new("RGB", (64, 128), "red")
            >>> features = model.encode([night, day, night])
            >>> [round(float(features[0] @ row), 2) for row in features]
            [1.0, 0.0, 1.0]
        """
        light = Modality.named(modality)
        rows = [self._encode(batch, light, feature) for batch in self._batches(images)]
        if not rows:
            raise UsageError("there is no image to encode")
        return torch.cat(rows)

    @torch.no_grad()
    def _encode(self, batch: list[Tensor], modality: Modality, feature: str) -> Tensor:
        features = self.encoder.encode(torch.stack(batch), modality)
        name = feature or self.feature
        if name not in features:
            raise UsageError(f"there is no feature {name!r}; there are {', '.join(features)}")
        return features[name].float().cpu()

    def _batches(self, images: AnyImage | Sequence[AnyImage]) -> Iterator[list[Tensor]]:
        batch: list[Tensor] = []
        for image in single_images(images):
            batch.append(to_bytes(image, self.input_size))
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


def load(
    source: str | Path,
    *,
    device: str = "auto",
    download: bool = False,
    batch_size: int = 64,
    backbone: str | BackboneConfig = "",
    size: tuple[int, int] = (256, 128),
) -> Model:
    """A trained network, ready to encode.

    Args:
        source: the folder of a finished run or of an export; a weights file; a name of the zoo (``dapg weights``);
            ``hf://owner/name@revision``; an ``https://`` or ``file://`` address that ends with ``#sha256=HASH``; or
            ``imagenet``, ``random`` and ``histogram``.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.
        download: allow what is not in the cache yet to be downloaded.
        batch_size: images encoded at once.
        backbone: network of a file that does not say which it holds, by name or with settings; empty: resnet50.
        size: (height, width) of the input where the file does not say.

    Raises:
        UsageError: no such source, one that may not be downloaded, an unfinished run, or no such device.
        WeightsError: a damaged file, one of another hash, or one that does not fit.

    Example:
        >>> load("mobilenet_v2-imagenet", device="cpu").encode(torch.zeros(2, 3, 64, 32)).shape
        torch.Size([2, 1280])
    """
    network = (BackboneConfig(backbone) if backbone else None) if isinstance(backbone, str) else backbone
    place = None if source in BUILT_IN else locate(str(source), download)
    named = str(place.path if place else source)
    encoder = build_encoder(named, network, size, 0, resolve_device(device), believe=False)
    if place is None:
        return Model(encoder, Card(), batch_size)
    return Model(encoder, place.card or card_of(place.path), batch_size)
