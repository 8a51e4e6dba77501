"""What goes into a training step and what comes out of it, and how far features that come out are spread."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that could not be read, and in training what stood in for it; both by name (``Record.name``)."""

    name: str
    reason: str
    replacement: str


@dataclass(slots=True)
class Batch:
    """B images on one device with their labels. ``indices`` are positions in the list of records."""

    images: UInt8[Tensor, "B 3 H W"]
    persons: Int[Tensor, "B"]
    cameras: Int[Tensor, "B"]
    modalities: Int[Tensor, "B"]
    indices: Int[Tensor, "B"]
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Optional companions, first axis B: generated poses, key points."""
    bad_images: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        """B, the number of images."""
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on ``device``; copies from pinned memory overlap with computation."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            images=move(self.images),
            persons=move(self.persons),
            cameras=move(self.cameras),
            indices=move(self.indices),
            extras={name: move(value) for name, value in self.extras.items()},
        )

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader: page-locked copies, so that the transfer to the GPU does not wait."""
        return replace(
            self,
            images=self.images.pin_memory(),
            persons=self.persons.pin_memory(),
            cameras=self.cameras.pin_memory(),
            indices=self.indices.pin_memory(),
            extras={name: value.pin_memory() for name, value in self.extras.items()},
        )


@dataclass(slots=True)
class StepResult:
    """What one training step gives back."""

    loss: Float[Tensor, ""]
    """To be minimised."""
    logs: dict[str, Tensor] = field(default_factory=dict)
    """Its terms and what else costs next to nothing, detached; the loop logs their means over the steps of a line."""
    diagnostics: Callable[[], dict[str, Tensor]] = dict
    """Scalars that nothing but the log needs: called in the steps that are logged, before the backward pass."""
    features: Callable[[], Float[Tensor, "B D"]] | None = None
    """Unit features whose spread is logged and watched (see ``spread``); called as ``diagnostics``."""


def spread(features: Float[Tensor, "B D"]) -> dict[str, Tensor]:
    """Both numbers, under the names that training logs."""
    return {"feature_std": feature_std(features), "effective_rank": effective_rank(features)}


def feature_std(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean over dimensions of the standard deviation over the batch, times √D.

    Unit features spread evenly over the sphere give 1, identical ones 0 (the check of SimSiam, Chen and He 2021,
    section 4.1, scaled so that it does not depend on D).
    """
    deviation: Tensor = features.detach().float().std(dim=0, unbiased=False).mean()
    return deviation * math.sqrt(features.shape[1])


def effective_rank(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007): 1 collapsed, min(B, D) at most."""
    rows = features.detach().float()
    values = torch.linalg.svdvals(rows.nan_to_num())  # which would fail before anybody says that the loss is NaN
    shares = values / values.sum().clamp_min(1e-12)
    rank = torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum())
    return torch.where(rows.isfinite().all(), rank, torch.nan)
