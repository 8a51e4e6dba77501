"""Supervised: a person classifier on labelled images, with a batch-norm neck; what labels are worth."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dapg.core.batch import Batch, StepResult
from dapg.core.errors import UsageError
from dapg.core.ranges import Share
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.core.types import UNKNOWN, Modality
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import PairConfig, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool


class Supervised(TwoViews["Supervised.Config"]):
    """Identity cross entropy over two views of each image, so that it costs what SimCLR costs."""

    @dataclass(frozen=True)
    class Config(PairConfig):
        """Neck and smoothing of the strong baseline (Luo et al. 2019); the views of the other baselines."""

        label_smoothing: Share = 0.1
        """Share of the target spread over all persons."""

    needs_labels = True
    persons: Int[Tensor, "N"]

    @classmethod
    def recipe(cls, usual: "Recipe[Supervised.Config]") -> "Recipe[Supervised.Config]":
        """The AGW baseline's on one modality (mangye16/ReID-Survey): Adam, 120 epochs; Market-1501's persons."""
        if not usual.scale.published:
            return usual
        train = replace(
            usual.train,
            epochs=120.0,
            batch_size=64,
            optimizer=OptimizerConfig("adam", lr=3.5e-4, lr_batch=64, weight_decay=5e-4),
            schedule=ScheduleConfig("step", warmup=10.0, milestones=(40.0, 70.0)),
        )
        backbone = replace(usual.backbone, last_stride=1)
        data = usual.data if usual.scale.labelled else replace(usual.data, name="market1501", split="train")
        return replace(usual, data=data, backbone=backbone, train=train)

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        if UNKNOWN in facts.persons or len(facts.persons) < 2:
            raise UsageError(
                "supervised learns from labels, and these images lack them (or show one person only); "
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
        logs = {"accuracy": (logits.detach().argmax(dim=1) == classes).float().mean()}
        return StepResult(loss, logs, features=lambda: functional.normalize(features[: len(batch)]))

    def encode(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``backbone``: pooled feature map; ``neck``: after the batch norm, as the classifier sees it."""
        pooled = average_pool(self.backbone(images))
        return {"backbone": functional.normalize(pooled), "neck": functional.normalize(self.neck(pooled))}

    def _classes(self, persons: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Person numbers to 0 ... N-1."""
        return torch.searchsorted(self.persons, persons)
