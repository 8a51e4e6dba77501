"""Shared by the fine-tuning methods: the two-stream network with its neck and classifier, labels, features to score."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import TypeVar

from dapg.augment.padded import PaddedViewConfig, padded_view
from dapg.core.batch import Batch, StepResult
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import Weight
from dapg.core.rng import SampleGenerator
from dapg.core.scales import Scale, Self
from dapg.core.train_config import ParameterGroup
from dapg.core.types import Modality
from dapg.losses.identity import accuracy, identity_loss
from dapg.methods.base import DataFacts, Method, MethodConfig
from dapg.models.backbones.base import Backbone
from dapg.models.two_stream import TwoStream, TwoStreamConfig


@dataclass(frozen=True)
class TwoStreamSettings(MethodConfig):
    """What the settings of every two-stream method have."""

    views: PaddedViewConfig = field(default_factory=PaddedViewConfig)
    """What the network sees of an image in training, before the method's own augmentation."""
    network: TwoStreamConfig = field(default_factory=TwoStreamConfig)
    """Pooling and non-local blocks."""
    trunk_rate: Weight = 0.1
    """Learning rate of everything but neck and classifier, as a share of theirs."""
    flip_test: bool = False
    """Score the mean feature of an image and its mirror image."""

    def at(self, scale: Scale) -> Self:
        """New weights get the full rate."""
        config = super().at(scale)
        return config if scale.published else replace(config, trunk_rate=1.0)


SettingsT_co = TypeVar("SettingsT_co", bound=TwoStreamSettings, default=TwoStreamSettings, covariant=True)


class TwoStreamMethod(Method[SettingsT_co]):
    """Two stems, shared trunk, pooling, batch-norm neck, classifier; identity loss plus a triplet loss.

    A subclass gives ``_triplet``, or its own ``training_step`` made of ``_view``, ``_embed`` and ``_classes``.
    """

    headline = "after_bn"
    needs_labels = True

    def __init__(self, config: SettingsT_co, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        """Draw non-local blocks, neck and classifier.

        Raises:
            UsageError: fewer than two persons to tell apart.
        """
        super().__init__(config, backbone, facts, generator)
        if len(facts.persons) < 2:
            raise UsageError(f"fine-tuning tells persons apart; the data has {len(facts.persons)} labelled ones")
        self.two_stream = TwoStream(backbone, config.network, generator)
        self.neck = _neck(self.two_stream.feature_dim, generator)
        self.classifier = _classifier(self.two_stream.feature_dim, len(facts.persons), generator)
        self.register_buffer("persons", torch.tensor(facts.persons), persistent=False)

    persons: Int[Tensor, "classes"]
    """Labels of the training persons, ascending; class i of the classifier is the i-th."""

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Identity loss of all images' logits plus the triplet loss of their features before the neck."""
        order = self._visible_first(batch)
        rows = send(order, batch.images.device)
        views = self._view(batch, generator)[rows]
        labels = self._classes(batch.persons[rows])
        half = len(batch) // 2
        pooled, logits = self._embed(views[:half], views[half:])
        identity = identity_loss(logits, labels)
        triplet = self._triplet(pooled, labels)
        logs = {"identity": identity.detach(), "triplet": triplet.detach(), "accuracy": accuracy(logits, labels)}
        return StepResult(identity + triplet, logs)

    @abstractmethod
    def _triplet(self, features: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        """The method's triplet loss over features before the neck."""

    @staticmethod
    def _visible_first(batch: Batch) -> Int[Tensor, "B"]:
        """Rows (on the host) of the visible images, then of as many infrared ones: the cross-modal sampler's batches.

        Raises:
            UsageError: not as many infrared as visible images.
        """
        modalities = batch.modalities
        if int((modalities == Modality.VISIBLE).sum()) * 2 != len(batch):
            raise UsageError("a batch of fine-tuning holds as many visible as infrared images")
        return modalities.argsort(stable=True)  # 1 visible, 2 infrared

    def _view(self, batch: Batch, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        return padded_view(batch.images, self.settings.views, generator, self.backbone.mean, self.backbone.std)

    def _classes(self, persons: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Class numbers of person labels, all of which must be training persons."""
        return torch.searchsorted(self.persons, persons)

    def _embed(
        self, visible: Float[Tensor, "V 3 h w"] | None, infrared: Float[Tensor, "I 3 h w"] | None
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B classes"]]:
        """Features before the neck, and logits; visible images first."""
        pooled = self._pooled(visible, infrared)
        return pooled, self.classifier(self.neck(pooled))

    def _pooled(
        self, visible: Float[Tensor, "V 3 h w"] | None, infrared: Float[Tensor, "I 3 h w"] | None
    ) -> Float[Tensor, "B D"]:
        return self.two_stream.pool(self.two_stream(self.backbone, visible, infrared))

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``before_bn`` and ``after_bn``: the pooled feature before and after the neck ("POOL" and "FC" of AGW).

        The modality chooses the stem. With ``flip_test`` each is the mean with the mirrored image's.
        """
        features = self._features(images, modality)
        if not self.settings.flip_test:
            return features
        mirrored = self._features(images.flip(-1), modality)
        return {name: functional.normalize(values + mirrored[name]) for name, values in features.items()}

    def _features(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        visible = modality == Modality.VISIBLE
        pooled = self._pooled(images if visible else None, None if visible else images)
        return {
            "before_bn": functional.normalize(pooled),
            "after_bn": functional.normalize(self.neck(pooled).float()),
        }

    def parameter_groups(self, lr: float, weight_decay: float) -> list[ParameterGroup]:
        """Backbone, second stem and non-local blocks at ``trunk_rate`` times the rate of neck and classifier.

        Weight decay acts on everything, batch norms and biases too, as in AGW's code.
        """
        head = [*self.neck.parameters(), *self.classifier.parameters()]
        in_head = {id(parameter) for parameter in head}
        trunk = [parameter for parameter in self.parameters() if id(parameter) not in in_head]
        rates = ((trunk, lr * self.settings.trunk_rate), (head, lr))
        return [
            {"params": [p for p in parameters if p.requires_grad], "lr": rate, "weight_decay": weight_decay}
            for parameters, rate in rates
        ]

    def compile_network(self) -> None:
        """Compile trunk and stems."""
        self.two_stream.compile()


def _classifier(channels: int, persons: int, generator: torch.Generator) -> nn.Linear:
    """Linear layer without bias, weights N(0, 0.001) as in AGW's code."""
    with torch.device("meta"):
        layer = nn.Linear(channels, persons, bias=False)
    layer.to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.001, generator=generator)
    return layer


def _neck(channels: int, generator: torch.Generator) -> nn.BatchNorm1d:
    """Batch norm of weights N(1, 0.01) whose bias stays 0 (BNNeck, Luo et al. 2019)."""
    neck = nn.BatchNorm1d(channels)
    nn.init.normal_(neck.weight, 1.0, 0.01, generator=generator)
    neck.bias.requires_grad_(False)
    return neck
