"""Supervised: a person classifier on labelled pictures, with a batch-norm neck; what labels are worth."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.noise_chain import ChainConfig
from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch, StepResult
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.core.types import UNKNOWN, Modality
from dapg.losses.spread import effective_rank, feature_std
from dapg.methods.base import DataFacts
from dapg.methods.contrastive import Pair, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool


class Supervised(TwoViews):
    """Identity cross entropy over two views of each picture, so that it costs what SimCLR costs."""

    @dataclass(frozen=True)
    class Config:
        """Neck and smoothing of the strong baseline (Luo et al. 2019); the views of the other baselines."""

        label_smoothing: float = 0.1
        """Share of the target spread over all persons."""
        views: ViewConfig = field(default_factory=ViewConfig)
        """How a standard view is made."""
        pair: Pair = "standard"
        """standard, or corrupted: the two views are x_q and x2 of one noise chain."""
        chain: ChainConfig = field(default_factory=ChainConfig)
        """The noise chain of corrupted views."""

    persons: Int[Tensor, "N"]

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.settings = config
        if UNKNOWN in facts.persons or len(facts.persons) < 2:
            raise UsageError(
                "supervised learns from labels, and these pictures lack them (or show one person only); "
                "choose a labelled split, for example --data.split train"
            )
        self.register_buffer("persons", torch.tensor(facts.persons))
        self.neck = nn.BatchNorm1d(backbone.feature_dim)
        self.neck.bias.requires_grad_(False)  # so that the hyperplanes of the classifier pass the origin
        self.classifier = nn.Linear(backbone.feature_dim, len(facts.persons), bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001, generator=generator)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Cross entropy of both views; they go through the network in one pass."""
        features = self.neck(average_pool(self.backbone(torch.cat(self._pair(batch, generator)))))
        logits = self.classifier(features)
        classes = self._classes(batch.persons).repeat(2)
        loss = functional.cross_entropy(logits.float(), classes, label_smoothing=self.settings.label_smoothing)
        unit = functional.normalize(features[: len(batch)])
        logs = {
            "accuracy": (logits.detach().argmax(dim=1) == classes).float().mean(),
            "feature_std": feature_std(unit),
            "effective_rank": effective_rank(unit),
        }
        return StepResult(loss, logs)

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``backbone``: pooled feature map; ``neck``: after the batch norm, as the classifier sees it."""
        pooled = average_pool(self.backbone(images))
        return {"backbone": functional.normalize(pooled), "neck": functional.normalize(self.neck(pooled))}

    def _classes(self, persons: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Person numbers to 0 ... N-1."""
        return torch.searchsorted(self.persons, persons)
