"""Contract of a method: pre-training, alignment and fine-tuning answer the same few calls; the loop knows no others."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.batch import Batch, StepResult
from dapg.core.rng import SampleGenerator
from dapg.core.types import Modality, Record
from dapg.models.backbones.base import Backbone


@dataclass(frozen=True)
class DataFacts:
    """What a method may know about its data before it sees a batch."""

    pictures: int
    persons: tuple[int, ...] = ()
    """Labels that occur, ascending; a classifier's class i is the i-th of them."""
    records: Sequence[Record] = ()
    """The pictures, in the order of a batch's ``indices``; none where a trained method is read back."""


class Method(nn.Module, ABC):
    """One way to train a network. Everything it remembers is in its parameters and buffers, and so in checkpoints.

    A new method is a new file ``methods/<stage>/<name>.py`` with one public subclass and its ``Config`` inside. The
    contract test runs over every file: finite loss, one batch overfits, save-load-continue is equal, unit rows.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the method; defaults are the recommended preset."""

    headline: ClassVar[str]
    """Which of the features ``encode`` returns is the one to report."""

    backbone: Backbone
    """The network being trained, whose weights the next stage takes."""

    def __init__(self, config: Any, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        """A subclass draws the weights of its heads from ``generator``; the backbone comes with weights."""
        super().__init__()
        self.backbone, self.facts = backbone, facts

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the pictures that ``encode`` expects."""

    @classmethod
    def paper(cls) -> Any:
        """The literal settings of the method's source, where they differ from ours."""
        return cls.Config()

    @abstractmethod
    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Loss of one batch of uint8 pictures on the device; every random choice comes from ``generator``.

        Logs hold detached scalars. ``feature_std`` (see ``losses/spread.py``) lets the loop notice a collapse.
        """

    def forward(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """The training step, under the name that data-parallel wrappers call."""
        return self.training_step(batch, generator)

    @classmethod
    def labelled(cls, config: Any, records: Sequence[Record]) -> Sequence[Record]:
        """The records with the labels that this method learns from, where they are not the data set's own."""
        return records

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after each optimiser step (counted from 1): momentum update, queue push."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """Named unit features of normalised pictures of one modality."""

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups: weights with decay; biases and normalisation without (one-dimensional parameters).

        Each group carries ``lr``, which the schedule multiplies, and ``adapt``, which says whether LARS scales it.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay, "adapt": True},
            {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0, "adapt": False},
        ]

    def compile_network(self) -> None:
        """Compile what takes most of a step with ``torch.compile``."""
        self.backbone.compile()

    def transferable_state(self) -> dict[str, Tensor]:
        """What the next stage may load: the backbone under torchvision's key names."""
        return dict(self.backbone.state_dict())
