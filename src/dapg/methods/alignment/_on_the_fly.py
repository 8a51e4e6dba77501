"""Shared by alignment: positives made by a pose generator during training, in place of files."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dapg.augment.basic import resize
from dapg.augment.skeleton import draw_skeletons
from dapg.core.device import send
from dapg.core.images import to_float
from dapg.core.rng import SampleGenerator


class OnTheFly:
    """Persons of a batch in canonical poses drawn for each sample. No module: it is not trained and not saved."""

    def __init__(self, generator: nn.Module, size: tuple[int, int], poses: Sequence[Float[Tensor, "18 3"]]) -> None:
        """``generator`` in evaluation mode, the (height, width) it was trained at, and the poses to choose from."""
        self._generator, self._size, self._poses = generator, size, torch.stack(list(poses))

    def __call__(
        self, images: UInt8[Tensor, "B 3 H W"], count: int, generator: SampleGenerator
    ) -> UInt8[Tensor, "B {count} 3 H W"]:
        """``count`` poses an image, each once while there are enough; single precision, as generated files."""
        places = torch.arange(count) % len(self._poses)
        return self._generate(images, generator.permutation(len(self._poses))[:, places])

    def every_pose(self, images: UInt8[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B P 3 H W"]:
        """All poses in order."""
        return self._generate(images, torch.arange(len(self._poses)).expand(len(images), -1))

    @torch.no_grad()
    def _generate(self, images: UInt8[Tensor, "B 3 H W"], chosen: Int[Tensor, "B P"]) -> UInt8[Tensor, "B P 3 H W"]:
        """Each image in the poses chosen for it."""
        device, count = images.device, chosen.shape[1]
        self._generator.to(device)
        with torch.autocast(device.type, enabled=False):
            skeletons = draw_skeletons(send(self._poses, device), self._size)[send(chosen.flatten(), device)]
            sources = resize(to_float(images), self._size).repeat_interleave(count, dim=0)
            generated = self._generator(2 * sources - 1, 2 * skeletons - 1)
            resized = resize(((generated + 1) / 2).clamp(0, 1), (images.shape[-2], images.shape[-1]))
        stored = resized.mul(255).round().to(torch.uint8)
        return stored.reshape(len(images), count, *images.shape[1:])
