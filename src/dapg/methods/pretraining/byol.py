"""BYOL: one view predicts the other's projection by a slowly following copy; no negatives (Grill et al. 2020)."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch, StepResult
from dapg.core.ranges import Share
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.losses.regression import regression
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import Contrastive, PairConfig, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.byol_head import BYOLHead
from dapg.models.momentum import momentum_at, momentum_copy, update_momentum


class BYOL(TwoViews["BYOL.Config"], Contrastive["BYOL.Config"]):
    """Online network with projector and predictor; target network with projector; the loss is symmetric."""

    @dataclass(frozen=True)
    class Config(PairConfig):
        """Head and momentum of lightly's ImageNet benchmark; views of LUPerson's recipe."""

        momentum: Share = 0.99
        """Share of itself the target keeps at the first step; it rises to 1 along half a cosine."""
        head: BYOLHead.Config = field(default_factory=BYOLHead.Config)
        """Projector and predictor."""
        asymmetric: bool = False
        """Published probabilities of the standard views: blur 1 and 0.1, and solarising 0 and 0.2 (table 6)."""

    @classmethod
    def paper(cls) -> "BYOL.Config":
        """BYOL as published (table 6, appendix J): colour jitter, asymmetric views, no erasing, momentum from 0.996."""
        views = ViewConfig(crop_scale=(0.08, 1.0), jitter=0.8, jitter_strength=(0.4, 0.4, 0.2, 0.1), erasing=0.0)
        return cls.Config(momentum=0.996, views=views, asymmetric=True)

    @classmethod
    def recipe(cls, usual: "Recipe[BYOL.Config]") -> "Recipe[BYOL.Config]":
        """LARS and ten warm-up epochs, as in lightly's ImageNet benchmark."""
        if not usual.scale.published:
            return usual
        optimizer = OptimizerConfig("lars", lr=0.45, weight_decay=1e-6)
        return replace(usual, train=replace(usual.train, optimizer=optimizer, schedule=ScheduleConfig(warmup=10.0)))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.head = BYOLHead(backbone.feature_dim, config.head, generator)
        self.predictor = BYOLHead(config.head.output_dim, config.head, generator)
        self.target_backbone, self.target_head = momentum_copy(backbone), momentum_copy(self.head)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Each view's prediction against the target's projection of the other (the paper's Eq. 2, both ways)."""
        first, second = self._pair(batch, generator)
        # A pass of its own for each view, as published: batch norm sees one kind of view at a time.
        projections = [self.head(average_pool(self.backbone(view))) for view in (first, second)]
        predictions = [self.predictor(projection) for projection in projections]
        targets = [self._target(view) for view in (first, second)]
        loss = regression(predictions[0], targets[1]) + regression(predictions[1], targets[0])
        logs = {"positive_similarity": 1 - loss.detach() / 4}
        return StepResult(loss, logs, features=lambda: functional.normalize(projections[0]))

    def after_step(self, step: int, total_steps: int) -> None:
        """The target follows, ever more slowly."""
        momentum = momentum_at(step, total_steps, self.settings.momentum)
        update_momentum(self.target_backbone, self.backbone, momentum)
        update_momentum(self.target_head, self.head, momentum)

    def _view_configs(self) -> tuple[ViewConfig, ViewConfig]:
        views = self.settings.views
        if not self.settings.asymmetric:
            return views, views
        return replace(views, blur=1.0, solarise=0.0), replace(views, blur=0.1, solarise=0.2)

    @torch.no_grad()
    def _target(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        head: nn.Module = self.target_head
        projection: Tensor = head(average_pool(self.target_backbone(view)))
        return projection
