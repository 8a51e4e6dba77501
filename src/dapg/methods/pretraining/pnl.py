"""PNL: pre-training with noisy labels, such as tracks or clusters (Fu et al. 2022): class, instance, prototype."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.padded import PaddedViewConfig, padded_view
from dapg.core import distributed
from dapg.core.batch import Batch, StepResult
from dapg.core.errors import UsageError
from dapg.core.ranges import Channels, Positive, Share, Weight
from dapg.core.rng import SampleGenerator
from dapg.core.train_config import ScheduleConfig
from dapg.core.types import UNKNOWN, Record
from dapg.data.image_lines import read_groups, with_groups
from dapg.losses.info_nce import label_guided_info_nce
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import Contrastive, PairConfig, QueueConfig, TwoViews
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool
from dapg.models.heads.moco_head import MoCoHead
from dapg.models.momentum import KeyEncoder


class PNL(TwoViews["PNL.Config"], Contrastive["PNL.Config"]):
    """A classifier, MoCo's instances and a prototype of each label; where two of them agree, a label is corrected.

    Source: DengpanFu/LUPerson-NL, folder PNL, where keys are positives by the query's label before its correction. The
    query sees a weak view (pad, crop, mirror), the key a strong one.
    """

    @dataclass(frozen=True)
    class Config(PairConfig, QueueConfig):
        """Defaults are the published script's; shares of the training stand for its epochs of 90."""

        temperature: Positive = 0.07
        """Softmax temperature of instances and prototypes."""
        prototype_momentum: Share = 0.999
        """Share of itself that a label's prototype keeps for each of its images."""
        instance_weight: Weight = 1.0
        """Weight of the loss over instances."""
        prototype_weight: Weight = 1.0
        """Weight of the loss over prototypes."""
        prototypes_from: Share = 1 / 90
        """Share of the training after which prototypes count."""
        correction_from: Share = 11 / 90
        """Share of the training after which labels are corrected."""
        guided_from: Share = 15 / 90
        """Share of the training after which keys of one label are positives of each other."""
        confidence: Share = 0.8
        """A label is corrected where the mean of classifier and prototypes is surer than this of another."""
        hidden: Channels = 256
        """Size of the classifier's middle layer."""
        groups: str = ""
        """File of pseudo-persons (``dapg data group``, tracks): path<TAB>number; empty: the data set's persons."""
        padding: Weight = 10.0
        """Border of the weak view, in pixels of an image 256 high; scaled with the view."""

        line_file = "groups"

        def labelled(self, records: Sequence[Record]) -> Sequence[Record]:
            """The records in groups, with these as persons, where ``groups`` names a file."""
            return with_groups(records, read_groups(Path(self.groups))) if self.groups else records

    needs_labels = True
    persons: Int[Tensor, "N"]
    prototypes: Float[Tensor, "N D"]
    progress: Float64[Tensor, ""]

    @classmethod
    def recipe(cls, usual: "Recipe[PNL.Config]") -> "Recipe[PNL.Config]":
        """SGD at 0.4 per 1536 images, 90 epochs, steps at 40 and 80 (DengpanFu/LUPerson-NL)."""
        if not usual.scale.published:
            return usual
        optimizer = replace(usual.train.optimizer, lr=0.4, lr_batch=1536)
        schedule = ScheduleConfig("step", by_epoch=True, milestones=(40.0, 80.0))
        return replace(usual, train=replace(usual.train, epochs=90.0, optimizer=optimizer, schedule=schedule))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        super().__init__(config, backbone, facts, generator)
        if UNKNOWN in facts.persons or len(facts.persons) < 2:
            raise UsageError(
                "pnl learns from labels, which may be noisy, and these images lack them (or show one person only); "
                "make some with 'dapg data group' and give them as --method.groups FILE, or choose a labelled split"
            )
        classes = len(facts.persons)
        self.register_buffer("persons", torch.tensor(facts.persons))
        self.head = MoCoHead(backbone.feature_dim, config.head, generator)
        hidden, out = nn.Linear(backbone.feature_dim, config.hidden), nn.Linear(config.hidden, classes)
        for layer, deviation in ((hidden, 0.01), (out, 0.001)):
            nn.init.normal_(layer.weight, std=deviation, generator=generator)
            nn.init.zeros_(layer.bias)
        self.classifier = nn.Sequential(hidden, nn.ReLU(), out)
        size = max(1, min(config.queue, facts.pictures // 2))
        self.keys = KeyEncoder(backbone, self.head, config.momentum, size, config.head.output_dim)
        self.register_buffer("prototypes", torch.zeros(classes, config.head.output_dim))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self._new: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Cross entropy of the classifier, of the prototypes, and InfoNCE; all by the corrected labels."""
        config, progress = self.settings, self.get_progress()
        weak, strong = self._pair(batch, generator, ("query", "key"))
        pooled = average_pool(self.backbone(weak))
        logits = self.classifier(pooled).float()
        query = functional.normalize(self.head(pooled))
        key = self.keys(strong, generator)
        with torch.autocast(query.device.type, enabled=False):  # rounded to bf16, similarities would be too coarse
            exact = torch.promote_types(query.dtype, torch.float32)
            nearness = (query.to(exact) @ self.prototypes.to(exact).T).float() / config.temperature  # (B, N)
        given = torch.searchsorted(self.persons, batch.persons)
        labels = given
        if progress >= config.correction_from:
            labels = corrected_labels(logits.detach(), nearness.detach(), given, config.confidence)

        others, names, filled = self.keys.queue.contents()
        same = names == labels[:, None]
        if progress < config.guided_from:
            same = torch.zeros_like(same)
        instance = label_guided_info_nce(query, key, others, same, config.temperature, filled)
        classes = functional.cross_entropy(logits, labels)
        prototype = torch.zeros_like(classes)
        if progress >= config.prototypes_from:
            prototype = functional.cross_entropy(nearness, labels)
        self.keys.remember(key, labels)
        gather = distributed.gather_without_gradient
        self._new.append((gather(query.detach()), gather(labels)))
        logs = {
            "classes": classes.detach(),
            "instance": instance.detach(),
            "prototype": prototype.detach(),
            "accuracy": (logits.detach().argmax(dim=1) == given).float().mean(),
            "corrected": (labels != given).float().mean(),
        }
        loss = classes + config.instance_weight * instance + config.prototype_weight * prototype
        return StepResult(loss, logs, features=lambda: query)

    def after_step(self, step: int, total_steps: int) -> None:
        """Key encoder, queue and prototypes follow."""
        self.keys.update(self.backbone, self.head)
        for queries, labels in self._new:
            self.prototypes.copy_(moved_prototypes(self.prototypes, queries, labels, self.settings.prototype_momentum))
        self._new.clear()
        self.set_progress(step / total_steps)

    def _pair(
        self, batch: Batch, generator: SampleGenerator, streams: tuple[str, str] = ("first", "second")
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 3 h w"]]:
        """The weak view and the strong one; of corrupted views the weaker is the first."""
        if self.settings.pair == "corrupted":
            return super()._pair(batch, generator, streams)
        views = self.settings.views
        weak = PaddedViewConfig(views.height, views.width, round(self.settings.padding * views.height / 256))
        mean, std = self.backbone.mean, self.backbone.std
        first = padded_view(batch.images, weak, generator.fork(streams[0]), mean, std)
        return first, self._view(batch, views, generator.fork(streams[1]))


def corrected_labels(
    logits: Float[Tensor, "B N"], nearness: Float[Tensor, "B N"], labels: Int[Tensor, "B"], confidence: float
) -> Int[Tensor, "B"]:
    """The label that the mean of both softmaxes is surer of than ``confidence``; the given one where it is not."""
    surest, best = ((logits.softmax(dim=1) + nearness.softmax(dim=1)) / 2).max(dim=1)
    return torch.where(surest > confidence, best, labels)


def moved_prototypes(
    prototypes: Float[Tensor, "N D"], queries: Float[Tensor, "B D"], labels: Int[Tensor, "B"], momentum: float
) -> Float[Tensor, "N D"]:
    """Unit prototypes after each query in turn has moved that of its label: p = momentum p + (1 - momentum) q.

    A label without a query keeps its prototype; one that never had a query stays zero.
    """
    alike: Bool[Tensor, "B B"] = labels[:, None] == labels
    later = alike.triu(1).sum(dim=1)  # queries of the same label after this one
    weights = (1 - momentum) * momentum ** later.to(prototypes.dtype)
    counts = torch.zeros(len(prototypes), dtype=prototypes.dtype, device=labels.device)
    counts.index_add_(0, labels, torch.ones_like(weights))
    moved = prototypes * (momentum**counts)[:, None]
    moved = moved.index_add(0, labels, weights[:, None] * queries.to(prototypes.dtype))
    return torch.where(counts[:, None] > 0, functional.normalize(moved), prototypes)
