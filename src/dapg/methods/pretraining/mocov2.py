"""MoCo v2: two views, a momentum encoder and a queue of earlier keys (He et al. 2020, Chen et al. 2020)."""

from dataclasses import dataclass, replace

import torch

from dapg.augment.views import ViewConfig
from dapg.core.batch import Batch, StepResult
from dapg.core.ranges import Positive
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import ParameterGroup
from dapg.losses.info_nce import multi_positive_info_nce
from dapg.methods.base import DataFacts
from dapg.methods.contrastive import Contrastive, PairConfig, QueueConfig, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.heads.moco_head import MoCoHead
from dapg.models.momentum import KeyEncoder


class MoCoV2(TwoViews["MoCoV2.Config"], Contrastive["MoCoV2.Config"]):
    """A query must find its own image's key among K earlier keys."""

    @dataclass(frozen=True)
    class Config(PairConfig, QueueConfig):
        """Defaults are LUPerson's recipe (DengpanFu/LUPerson, lup_moco/scripts/run_moco.sh)."""

        temperature: Positive = 0.1
        """Softmax temperature; LUPerson 0.1, MoCo v2 0.2."""

    @classmethod
    def paper(cls) -> "MoCoV2.Config":
        """MoCo v2 as published (facebookresearch/moco): colour jitter, no erasing, temperature 0.2."""
        return cls.Config(temperature=0.2, views=replace(ViewConfig(), jitter=0.8, erasing=0.0))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.head = MoCoHead(backbone.feature_dim, config.head, generator)
        size = max(1, min(config.queue, facts.pictures // 2))
        self.keys = KeyEncoder(backbone, self.head, config.momentum, size, config.head.output_dim)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """InfoNCE (Eq. 2 with one positive) of view 1 against the key of view 2 and the queue."""
        first, second = self._pair(batch, generator, ("query", "key"))
        query, key = self.project(first), self.keys(second, generator)
        negatives, _, filled = self.keys.queue.contents()
        loss = multi_positive_info_nce(query, key[:, None], negatives, self.settings.temperature, valid=filled)
        self.keys.remember(key)
        similarity = (query * key).sum(dim=1).mean().detach()
        return StepResult(loss, {"positive_similarity": similarity}, features=lambda: query)

    def after_step(self, step: int, total_steps: int) -> None:
        """The key encoder follows; this step's keys become negatives of the next."""
        self.keys.update(self.backbone, self.head)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[ParameterGroup]:
        """One group: MoCo's code decays biases and batch norms too."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": lr, "weight_decay": weight_decay}]
