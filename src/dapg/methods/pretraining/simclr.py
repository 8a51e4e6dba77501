"""SimCLR: two views of each image find each other among the batch's others (Chen et al. 2020)."""

from dataclasses import dataclass, field, replace

import torch

from dapg.augment.views import ViewConfig
from dapg.core import distributed
from dapg.core.batch import Batch, StepResult
from dapg.core.ranges import Positive
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.losses.info_nce import nt_xent
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import Contrastive, PairConfig, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.heads.simclr_head import SimCLRHead


class SimCLR(TwoViews["SimCLR.Config"], Contrastive["SimCLR.Config"]):
    """Normalised temperature-scaled cross entropy over 2B views."""

    @dataclass(frozen=True)
    class Config(PairConfig):
        """Temperature and head of lightly's ImageNet benchmark; views of LUPerson's recipe."""

        temperature: Positive = 0.1
        """Softmax temperature."""
        head: SimCLRHead.Config = field(default_factory=SimCLRHead.Config)
        """Projection head."""

    @classmethod
    def paper(cls) -> "SimCLR.Config":
        """SimCLR as published: strong colour jitter, crops from 8 % of the area, no erasing."""
        views = ViewConfig(crop_scale=(0.08, 1.0), jitter=0.8, jitter_strength=(0.8, 0.8, 0.8, 0.2), erasing=0.0)
        return cls.Config(views=views)

    @classmethod
    def recipe(cls, usual: "Recipe[SimCLR.Config]") -> "Recipe[SimCLR.Config]":
        """LARS and ten warm-up epochs, as in lightly's ImageNet benchmark."""
        if not usual.scale.published:
            return usual
        optimizer = OptimizerConfig("lars", lr=0.3, weight_decay=1e-6)
        return replace(usual, train=replace(usual.train, optimizer=optimizer, schedule=ScheduleConfig(warmup=10.0)))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.head = SimCLRHead(backbone.feature_dim, config.head, generator)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """NT-Xent over the views of all processes; both views go through the network in one pass."""
        first, second = self.project(torch.cat(self._pair(batch, generator))).chunk(2)
        loss = nt_xent(
            first,
            second,
            self.settings.temperature,
            all_a=distributed.gather(first),
            all_b=distributed.gather(second),
            row_offset=distributed.first_row(len(first)),
        )
        similarity = (first * second).sum(dim=1).mean().detach()
        return StepResult(loss, {"positive_similarity": similarity}, features=lambda: first)
