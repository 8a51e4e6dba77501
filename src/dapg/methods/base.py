"""Contract of a method: what it is at a scale, one step, the features to score. The loop knows no other calls."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from dapg.core.batch import Batch, StepResult
from dapg.core.images import normalise
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Scaled, ViewSize
from dapg.core.train_config import BackboneConfig, DataConfig, ParameterGroup, TrainConfig
from dapg.core.types import Modality, Record
from dapg.data.loading import LoaderConfig
from dapg.models.backbones.base import Backbone


@dataclass(frozen=True)
class DataFacts:
    """What a method may know about its data before it sees a batch."""

    pictures: int
    persons: tuple[int, ...] = ()
    """Labels that occur, ascending; a classifier's class i is the i-th of them."""
    records: Sequence[Record] = ()
    """The images, in the order of a batch's ``indices``; none where a trained method is read back."""


@dataclass(frozen=True)
class MethodConfig(Scaled):
    """What the settings of every method have. ``at(scale)`` makes those inside fit a scale; add what else shrinks."""

    views: ViewSize = field(default_factory=ViewSize)
    """What the network sees of an image in training."""

    # The setting that names a file with a line for each image (groups, captions) to learn from; empty: none.
    line_file: ClassVar[str] = ""

    @property
    def passes(self) -> int:
        """How often a step encodes each image, in any network."""
        return 2

    def labelled(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that can be learnt from, with the labels to learn from where they are not the data set's own."""
        return records


ConfigT_co = TypeVar("ConfigT_co", bound=MethodConfig, default=MethodConfig, covariant=True)


@dataclass(frozen=True)
class Recipe(Generic[ConfigT_co]):
    """How a method is trained at a scale."""

    scale: Scale
    method: ConfigT_co
    data: DataConfig
    backbone: BackboneConfig
    loader: LoaderConfig
    train: TrainConfig


class Method(nn.Module, ABC, Generic[ConfigT_co]):
    """One way to train a network. Everything it remembers is in its parameters and buffers, and so in checkpoints.

    A new method is a new file ``methods/<stage>/<name>.py`` with one public subclass and its ``Config`` inside, in this
    package or in a folder of plug-ins. The contract test runs over every file: finite loss, one batch overfits,
    save-load-continue is equal, unit rows.
    """

    Config: ClassVar[type[MethodConfig]]
    """Settings of the method, nested in it; defaults without what is beyond its source."""

    headline: ClassVar[str]
    """Which of the features ``encode`` returns is the one to report."""
    smallest_batch: ClassVar[int] = 2
    """Images that each process's part of a batch must hold: one has nothing to differ from, nor a batch statistic."""
    needs_labels: ClassVar[bool] = False
    """Whether it learns from persons; a pre-training then gets the scale's labelled images."""

    settings: ConfigT_co
    backbone: Backbone
    """The network being trained, whose weights the next stage takes."""

    def __init__(self, config: ConfigT_co, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        """A subclass draws the weights of its heads from ``generator``; the backbone comes with weights."""
        super().__init__()
        self.settings, self.backbone, self.facts = config, backbone, facts

    # Before training

    @classmethod
    def recommended(cls) -> ConfigT_co:
        """The defaults, and what helped in experiments beyond the method's source."""
        return cast(ConfigT_co, cls.Config())

    @classmethod
    def paper(cls) -> ConfigT_co:
        """The literal settings of the method's source, where they differ from ours."""
        return cast(ConfigT_co, cls.Config())

    @classmethod
    def recipe(cls, usual: Recipe[ConfigT_co]) -> Recipe[ConfigT_co]:
        """How it is trained at ``usual.scale``: the stage's usual recipe, with what is the method's own in place of it.

        A published optimiser belongs to networks of published size: where ``usual.scale.published`` is false, all
        methods share one optimiser, so that they can be compared; return ``usual`` there, or steps and rates of your
        own.
        """
        return usual

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the images that ``encode`` expects."""
        return self.settings.views.size

    # Training

    @abstractmethod
    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Loss of one batch of uint8 images on the device; every random choice comes from ``generator``.

        Logs and diagnostics hold detached scalars. From ``features`` the loop logs ``feature_std`` and
        ``effective_rank`` (see ``core/batch.py: spread``) and notices a collapse.
        """

    def forward(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """The training step, under the name that data-parallel wrappers call."""
        return self.training_step(batch, generator)

    def _normalised(self, images: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 h w"]:
        """Images in [0, 1] with the mean and deviation of the network."""
        return normalise(images, self.backbone.mean, self.backbone.std)

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after each optimiser step (counted from 1): momentum update, queue push."""

    def parameter_groups(self, lr: float, weight_decay: float) -> list[ParameterGroup]:
        """Optimiser groups: weights with decay; biases and normalisation without (one-dimensional parameters).

        Each group carries ``lr``, which the schedule multiplies, and ``adapt``, which says whether LARS scales it.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay, "adapt": True},
            {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0, "adapt": False},
        ]

    def compile_network(self) -> None:
        """Compile what takes most of a step with ``torch.compile``: the backbone and its momentum copy, if any."""
        for module in self.modules():
            if isinstance(module, Backbone):
                module.compile()

    # After training

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """Named unit features of normalised images of one modality."""

    def transferable_state(self) -> dict[str, Tensor]:
        """What the next stage may load: the backbone under torchvision's key names."""
        return dict(self.backbone.state_dict())
