"""DEEN: two further features grown from each image, pulled across the lights (Zhang and Wang, CVPR 2023)."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.basic import to_grey
from dapg.augment.padded import PaddedViewConfig, padded_image, standardise
from dapg.core.batch import Batch, StepResult
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import Share, Weight
from dapg.core.rng import SampleGenerator
from dapg.core.types import Modality
from dapg.losses.centre_pairs import centre_pair_loss, orthogonality
from dapg.losses.identity import accuracy, identity_loss
from dapg.losses.triplet import batch_hard_triplet
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.finetuning._two_stream import TwoStreamMethod, TwoStreamSettings
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.expansion import DiverseExpansion, StageAttention
from dapg.models.two_stream import TwoStreamConfig

_IMAGENET_COLOUR = (0.485, 0.456, 0.406)


class DEEN(TwoStreamMethod["DEEN.Config"]):
    """The strongest ResNet-50 recipe with public code that its users reproduce (ZYK100/LLCM, folder DEEN).

    Attention to the stage before follows every stage but the last; the expansion comes before the last one. The
    published RegDB network ends a stage earlier: ``--backbone.end layer3``.
    """

    headline = "joined"

    @dataclass(frozen=True)
    class Config(TwoStreamSettings):
        """Defaults are the published recipe without its code's slips, which docs/explanation/finetuners.md lists."""

        network: TwoStreamConfig = field(
            default_factory=lambda: TwoStreamConfig(pooling="average", non_local=(0, 0, 0, 0))
        )
        """Pooling; DEEN has attention of its own, and takes no non-local blocks."""
        views: PaddedViewConfig = field(
            default_factory=lambda: PaddedViewConfig(height=384, erasing=0.5, erasing_area=(0.2, 0.8))
        )
        """What the network sees; the code erases 0.02 to 0.4 of RegDB's and LLCM's images."""
        grey: Share = 0.5
        """Probability of a grey image."""
        margin: Weight = 0.3
        """Margin of the batch-hard triplet."""
        pair_margin: Weight = 0.2
        """Margin of the centre-guided pairs."""
        pair_weight: Weight = 0.8
        """Weight of the pairs (lambda_1)."""
        orthogonal_weight: Weight = 0.01
        """Weight of the dot product of the two expansions (lambda_2)."""
        legacy_mean: bool = False
        """Divide that product by three times the images, as the published code does: by all rows, not by its own."""
        dropout: Share = 0.01
        """Share of the expanded maps that is dropped in training."""
        flip_test: bool = True
        """Score the mean feature of an image and its mirror image (``test.py``)."""

    @classmethod
    def paper(cls) -> "DEEN.Config":
        """The published code to the letter, with the erasing colour that it puts into normalised images."""
        config = cls.Config(legacy_mean=True)
        return replace(config, views=replace(config.views, erasing_value=_IMAGENET_COLOUR))

    @classmethod
    def recipe(cls, usual: "Recipe[DEEN.Config]") -> "Recipe[DEEN.Config]":
        """AGW's for 151 epochs of six persons; the code's last fall of the rate, at 120, is never reached there."""
        if not usual.scale.published:
            return usual
        milestones = (20.0, 80.0) if usual.scale.settings == "paper" else (20.0, 80.0, 120.0)
        schedule = replace(usual.train.schedule, milestones=milestones)
        return replace(usual, train=replace(usual.train, epochs=151.0, batch_size=48, schedule=schedule))

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        """Draw attention and expansion.

        Raises:
            UsageError: a network without stages, or non-local blocks.
        """
        if any(config.network.non_local):
            raise UsageError("DEEN has attention of its own and takes no non-local blocks: leave out network.non_local")
        super().__init__(config, backbone, facts, generator)
        stages = list(backbone.stages())
        if len(stages) < 2:
            raise UsageError(f"DEEN expands features before the last stage; {type(backbone).__name__} has no stages")
        dims = [_stem_channels(backbone), *(backbone.stage_dims()[stage] for stage in stages)]
        self.attention = nn.ModuleDict(
            {stage: StageAttention(dims[place + 1], dims[place], generator) for place, stage in enumerate(stages[:-1])}
        )
        self.expansion = DiverseExpansion(dims[-2], generator)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Identity loss and triplet of all rows, centre-guided pairs of each expansion, orthogonality of the two."""
        chosen = self.settings
        order = self._visible_first(batch)
        rows = send(order, batch.images.device)
        views, labels = self._view(batch, generator)[rows], self._classes(batch.persons[rows])
        half = len(batch) // 2
        pooled = self._expanded(views[:half], views[half:], generator.rows(order).fork("dropout"))
        original, first, second = pooled.chunk(3)
        everyone = labels.repeat(3)
        logits = self.classifier(self.neck(pooled))
        identity, triplet = identity_loss(logits, everyone), batch_hard_triplet(pooled, everyone, chosen.margin)
        pairs = sum(
            (centre_pair_loss(original, expanded, labels, chosen.pair_margin) for expanded in (first, second)),
            start=pooled.new_zeros(()),
        )
        orthogonal = orthogonality(first, second) / (3 if chosen.legacy_mean else 1)
        loss = identity + triplet + chosen.pair_weight * pairs + chosen.orthogonal_weight * orthogonal
        logs = {"identity": identity, "triplet": triplet, "pairs": pairs, "orthogonal": orthogonal}
        logs = {name: value.detach() for name, value in logs.items()}
        return StepResult(loss, {**logs, "accuracy": accuracy(logits, everyone)})

    def _triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        return batch_hard_triplet(features, labels, self.settings.margin)

    def _view(self, batch: Batch, generator: SampleGenerator) -> Float[Tensor, "B 3 h w"]:
        views = self.settings.views
        with torch.autocast(batch.images.device.type, enabled=False):
            image = padded_image(batch.images, views, generator)
            image = to_grey(image, generator.fork("grey"), self.settings.grey)
            return standardise(image, views, generator, self.backbone.mean, self.backbone.std)

    def _expanded(
        self,
        visible: Float[Tensor, "V 3 h w"] | None,
        infrared: Float[Tensor, "I 3 h w"] | None,
        dropout: SampleGenerator | None = None,
    ) -> Float[Tensor, "N D"]:
        """Pooled features of all images, then those of each expansion."""
        return self._upper(self._dropped(self._lower(visible, infrared), dropout))

    def compile_network(self) -> None:
        """Compile what comes before the dropout, which draws, and what comes after: the network is not called whole."""
        for part in ("_lower", "_upper"):
            setattr(self, part, torch.compile(getattr(self, part)))

    def _lower(
        self, visible: Float[Tensor, "V 3 h w"] | None, infrared: Float[Tensor, "I 3 h w"] | None
    ) -> Float[Tensor, "N C _ _"]:
        """Maps of all images before the last stage, then those of each expansion."""
        x = self.two_stream.stems(self.backbone, visible, infrared)
        for stage, blocks in list(self.backbone.stages().items())[:-1]:
            below = x
            for block in blocks:
                x = self.backbone.apply_block(block, x)
            x = self.attention[stage](x, below)
        expanded: Tensor = self.expansion(x)
        return expanded

    def _upper(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D"]:
        """The last stage, and pooled."""
        for block in list(self.backbone.stages().values())[-1]:
            x = self.backbone.apply_block(block, x)
        return self.two_stream.pool(x)

    def _dropped(self, maps: Float[Tensor, "N C h w"], generator: SampleGenerator | None) -> Float[Tensor, "N C h w"]:
        """With some values set to zero and the others scaled; as they are without a generator."""
        share = self.settings.dropout
        if generator is None or share == 0:
            return maps
        fields = generator.uniform_field(3, *maps.shape[1:])  # (B, 3, C, h, w): the rows of an image together
        left = (fields >= share).transpose(0, 1).flatten(0, 1)
        return maps * left.to(maps.device, maps.dtype) / (1 - share)

    def _features(self, images: Float[Tensor, "B 3 H W"], modality: Modality) -> dict[str, Float[Tensor, "B D"]]:
        """``before_bn``, ``after_bn``: the three rows of an image, each of length one, side by side; ``joined``: both.

        A dot product of joined rows is the mean of six likenesses, by whose sum the published code ranks. With
        ``flip_test`` it ranks by sums over image and mirror image whose length is not set to one.
        """
        visible = modality == Modality.VISIBLE
        pooled = self._expanded(images if visible else None, None if visible else images)
        before, after = (
            torch.cat(functional.normalize(rows.float()).chunk(3), dim=1) for rows in (pooled, self.neck(pooled))
        )
        both = torch.cat([before, after], dim=1)
        features = {"before_bn": before, "after_bn": after, "joined": both}
        return {name: functional.normalize(values) for name, values in features.items()}


def _stem_channels(backbone: Backbone) -> int:
    """Channels that leave the stem: those of its last batch norm."""
    norms = [part for stem in backbone.stem_modules() for part in stem.modules() if isinstance(part, nn.BatchNorm2d)]
    return norms[-1].num_features
