"""MoCo v2: two views, a momentum encoder and a queue of earlier keys (He et al. 2020, Chen et al. 2020)."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.views import ViewConfig
from dapg.core import distributed
from dapg.core.rng import SampleGenerator
from dapg.core.types import Batch, StepResult
from dapg.losses.info_nce import multi_positive_info_nce
from dapg.losses.spread import effective_rank, feature_std
from dapg.methods.base import DataFacts
from dapg.methods.pretraining._contrastive import Contrastive
from dapg.models.backbones.base import Backbone
from dapg.models.heads.moco import MoCoHead
from dapg.models.momentum import KeyQueue, momentum_copy, update_momentum
from dapg.models.pooling import average_pool


class MoCoV2(Contrastive):
    """A query must find its own picture's key among K earlier keys."""

    @dataclass(frozen=True)
    class Config:
        """Defaults are LUPerson's recipe (DengpanFu/LUPerson, lup_moco/scripts/run_moco.sh)."""

        temperature: float = 0.1
        """Softmax temperature; LUPerson 0.1, MoCo v2 0.2."""
        momentum: float = 0.999
        """Share of itself that the key encoder keeps at each step."""
        queue: int = 65_536
        """Keys remembered (K); at most half the number of pictures, so that no picture meets its own older key."""
        head: MoCoHead.Config = field(default_factory=MoCoHead.Config)
        """Projection head."""
        views: ViewConfig = field(default_factory=ViewConfig)
        """How the two views are made."""

    @classmethod
    def paper(cls) -> "MoCoV2.Config":
        """MoCo v2 as published (facebookresearch/moco): colour jitter, no erasing, temperature 0.2."""
        return cls.Config(temperature=0.2, views=replace(ViewConfig(), jitter=0.8, erasing=0.0))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        self.settings = config
        self.head = MoCoHead(backbone.feature_dim, config.head, generator)
        self.key_backbone = momentum_copy(backbone)
        self.key_head = momentum_copy(self.head)
        self.queue = KeyQueue(max(1, min(config.queue, facts.pictures // 2)), config.head.output_dim)
        self._new_keys: list[Tensor] = []

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """InfoNCE (Eq. 2 with one positive) of view 1 against the key of view 2 and the queue."""
        query = self._project(self.backbone, self.head, self._view(batch, generator.fork("query")))
        key = self._keys(self._view(batch, generator.fork("key")), generator)
        negatives, _, filled = self.queue.contents()
        loss = multi_positive_info_nce(query, key[:, None], negatives, self.settings.temperature, valid=filled)
        self._new_keys.append(distributed.gather_without_gradient(key))
        logs = {
            "positive_similarity": (query * key).sum(dim=1).mean().detach(),
            "feature_std": feature_std(query),
            "effective_rank": effective_rank(query),
        }
        return StepResult(loss, logs)

    def after_step(self, step: int, total_steps: int) -> None:
        """The key encoder follows; this step's keys become negatives of the next."""
        update_momentum(self.key_backbone, self.backbone, self.settings.momentum)
        update_momentum(self.key_head, self.head, self.settings.momentum)
        for keys in self._new_keys:
            self.queue.push(keys)
        self._new_keys.clear()

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """One group: MoCo's code decays biases and batch norms too."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": lr, "weight_decay": weight_decay}]

    @staticmethod
    def _project(backbone: nn.Module, head: nn.Module, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        return functional.normalize(head(average_pool(backbone(view))))

    @torch.no_grad()
    def _keys(self, view: Float[Tensor, "B 3 h w"], generator: SampleGenerator) -> Float[Tensor, "B D"]:
        """Keys of this process's pictures, encoded in another process's batch so that batch norm leaks nothing.

        The order is the same everywhere: it hangs on the seeds of all samples (MoCo's "shuffling BN").
        """
        if not distributed.active():
            return self._project(self.key_backbone, self.key_head, view)
        seeds = distributed.gather_without_gradient(generator.fork("shuffle").seeds)
        order = seeds.argsort(stable=True)
        first = distributed.first_row(len(view))
        mine = order[first : first + len(view)]
        shuffled = distributed.gather_without_gradient(view)[mine]
        keys = distributed.gather_without_gradient(self._project(self.key_backbone, self.key_head, shuffled))
        return keys[order.argsort()][first : first + len(view)]
