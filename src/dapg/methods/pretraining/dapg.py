"""DAPG stage 1: robustness pre-training by a chain of corruptions (the paper's sections II-A and II-C, Fig. 3).

A step, in the paper's names::

    a       a view of the picture: crop, flip, grey
    x_q     = c1(a), the anchor                           online encoder    -> q
    x1, x2  = c2(x_q), c3(x1); x_mix their mixture        momentum encoder  -> k1, k2, k3: positives of Eq. 2
                                                          online encoder    -> z1, z2, z3: p1, p2, p3 of Eq. 3-5
    queue   earlier keys, corrupted alike: negatives of Eq. 2, and what the p are distributions over

    L_total = α L_MultiContrastive(q; k1, k2, k3; queue) + (1 - α) JS(p1, p2, p3)                          (Eq. 1)

docs/explanation/method.md says what the paper leaves open, and which switch here stands for which reading.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dapg.augment.chain_bank import ChainBank
from dapg.augment.channel import choose_channels, draw_channels
from dapg.augment.noise_chain import ChainConfig
from dapg.augment.views import ViewConfig, chain_views, clean_and_corrupted_views
from dapg.core.batch import Batch, StepResult
from dapg.core.device import send
from dapg.core.errors import UsageError
from dapg.core.ranges import Positive, Share, Weight
from dapg.core.rng import SampleGenerator
from dapg.core.settings import unset
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.losses.info_nce import Reduction, multi_positive_info_nce
from dapg.losses.js import js_divergence, log_feature_distribution, log_similarity_distribution
from dapg.methods.base import DataFacts, Recipe
from dapg.methods.contrastive import Contrastive, NegativesConfig, other_images
from dapg.models.backbones.base import Backbone
from dapg.models.heads.moco_head import MoCoHead
from dapg.models.momentum import KeyEncoder

POSITIVES = 3
"""x1, x2 and x_mix."""
_STRONGEST = 2
"""x2 among the four views."""


class DAPG(Contrastive["DAPG.Config"]):
    """A corrupted picture must find three more corrupted copies of itself, and they must see all others alike."""

    @dataclass(frozen=True)
    class Config(NegativesConfig):
        """Defaults are our reading of the paper, ``paper()`` the literal one; ``recommended`` has what helped."""

        temperature: Positive = 0.1
        """τ of Eq. 2. The paper's 0.7 is nearly flat; 0.1 is LUPerson's."""
        alpha: Share = 0.5
        """α of Eq. 1: share of the contrastive term."""
        js_weight: Weight = 1.0
        """Factor of the consistency term, beside 1 - α; AugMix takes 12. 0 leaves it out, and three passes with it."""
        js_temperature: Positive = 0.1
        """Of the softmax that makes the p of Eq. 3; at 0.7 the term is nearly dead."""
        distribution: Literal["similarities", "dimensions"] = "similarities"
        """What that softmax runs over: similarities to the negatives, or the feature's own dimensions."""
        positives_reduction: Reduction = "sum_inside"
        """Eq. 2 sums the positives inside the logarithm; ``mean_outside`` pulls each of them."""
        positives: Literal[1, 3] = unset(3)
        """1 leaves L_total out, with ``alpha`` 1: x2 is the only positive (Table III's row without it). With
    ``chain.anchor`` clean too, two views: a clean one and one that is corrupted zero to three times."""
        symmetric: bool = False
        """Whether each of the four views is the anchor in turn, with the other three as positives."""
        channel: Share = 0.0
        """Probability that a positive shows one colour channel three times: a bridge to infrared, not in the paper."""
        channel_order: Literal["before", "after"] | None = unset(None)
        """Whether channels are exchanged before normalising, or after it as in CAJ's code; before if not given."""
        curriculum: Share = 0.0
        """Share of the training over which the strongest severity rises from the weakest; 0: all from the start."""
        views: ViewConfig = field(default_factory=lambda: ViewConfig(blur=0.0, erasing=0.0))
        """The anchor view: the paper has crop, flip and grey only."""
        chain: ChainConfig = field(default_factory=ChainConfig)
        """Corruptions, severities, geometry and mixture."""

        @property
        def passes(self) -> int:
            """Four of the online encoder, and three of a momentum encoder."""
            return 4 if self.negatives == "batch" else 7

    @classmethod
    def recommended(cls) -> "DAPG.Config":
        """Channels mixed in every view, positives averaged outside: what helped (docs/results/experiment.md)."""
        views = ViewConfig(blur=0.0, erasing=0.0, mixing=0.6)
        return cls.Config(views=views, positives_reduction="mean_outside")

    @classmethod
    def paper(cls) -> "DAPG.Config":
        """The printed settings: one τ of 0.7, all five severities, one crop for all views."""
        chain = ChainConfig(severities=(1, 5), geometry="shared")
        return cls.Config(temperature=0.7, js_temperature=0.7, chain=chain)

    @classmethod
    def recipe(cls, usual: "Recipe[DAPG.Config]") -> "Recipe[DAPG.Config]":
        """MoCo's with ten warm-up epochs, as the paper's own rate does not train.

        The paper: Adam at 0.0075 (MoCo's SGD rate for the 64 pictures we suppose), 300 epochs, 20,000 pictures of
        LUPerson. It goes on after a collapse, and says so.
        """
        if not usual.scale.published:
            return usual
        if usual.scale.settings != "paper":
            return replace(usual, train=replace(usual.train, schedule=ScheduleConfig(by_epoch=True, warmup=10.0)))
        train = replace(
            usual.train,
            epochs=300.0,
            batch_size=64,
            optimizer=OptimizerConfig("adam", lr=0.0075, lr_batch=0, weight_decay=0.0),
            schedule=ScheduleConfig(),
            on_collapse="warn",
        )
        return replace(usual, data=replace(usual.data, subset=20_000), train=train)

    progress: Float[Tensor, ""]

    def __init__(self, config: Config, backbone: Backbone, facts: DataFacts, generator: torch.Generator) -> None:
        if config.positives == 1 and config.alpha < 1:
            raise UsageError("the consistency of Eq. 3-5 compares positives: positives 1 needs alpha 1")
        if config.chain.bank and (config.curriculum > 0 or (config.positives == 1 and config.chain.anchor == "clean")):
            raise UsageError("chain.bank keeps whole chains of one range of severities: no curriculum, no two views")
        super().__init__(config, backbone, facts, generator)
        self.head = MoCoHead(backbone.feature_dim, config.head, generator)
        if config.negatives == "queue":
            size = max(1, min(config.queue, facts.pictures // 2))
            self.keys = KeyEncoder(backbone, self.head, config.momentum, size, config.head.output_dim)
        self.register_buffer("progress", torch.zeros(()))
        self._bank: ChainBank | None = None
        if config.chain.bank:
            seed = int(torch.randint(2**31, (), generator=generator))
            self._bank = ChainBank(config.chain, facts.pictures, seed)

    def training_step(self, batch: Batch, generator: SampleGenerator) -> StepResult:
        """Eq. 1 for one batch: four online passes and three of the momentum encoder; one and three without Eq. 3-5."""
        config = self.settings
        views = self._views(batch, generator)
        projected = self.project(torch.cat(views[: self._online_views()]))
        features = projected.reshape(-1, len(batch), projected.shape[1])  # (V, B, D)
        if config.negatives == "queue":
            keys = self._momentum_keys(views, generator)  # (B, P, D)
            negatives, _, counted = self.keys.queue.contents()
        else:
            keys = features.transpose(0, 1) if config.symmetric else features[1:].transpose(0, 1)
            negatives, counted = other_images(features[-config.positives :].transpose(0, 1))
        contrastive = self._contrastive(features, keys, negatives, counted)
        consistency = torch.zeros_like(contrastive)
        if self._uses_js():
            consistency = self._consistency(features[-POSITIVES:].transpose(0, 1), negatives.detach(), counted)
        loss = config.alpha * contrastive + (1 - config.alpha) * config.js_weight * consistency  # Eq. 1

        def diagnostics() -> dict[str, Tensor]:
            anchor, positives = features[0].detach(), keys[:, -config.positives :].detach()
            similarity = anchor @ negatives.detach().T
            return {
                "js_gradient_share": self._gradient_share(contrastive, consistency, features),
                "positive_similarity": torch.einsum("bd,bpd->bp", anchor, positives).mean(),
                "negative_similarity": (similarity * counted).sum() / counted.expand_as(similarity).sum().clamp_min(1),
            }

        logs = {"contrastive": contrastive.detach(), "js": consistency.detach()}
        return StepResult(loss, logs, diagnostics, features=lambda: features[0])

    def after_step(self, step: int, total_steps: int) -> None:
        """The key encoder follows, this step's keys become negatives, and the curriculum moves on."""
        if self.settings.negatives == "queue":
            self.keys.update(self.backbone, self.head)
        self.set_progress(step / total_steps)

    def severities(self) -> tuple[int, int]:
        """Weakest and strongest severity of the coming step."""
        low, high = self.settings.chain.severities
        if self.settings.curriculum <= 0:
            return low, high
        reached: float = min(self.get_progress() / self.settings.curriculum, 1.0)
        return low, low + round(reached * (high - low))

    def _views(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, ...]:
        """The anchor x_q and its positives, each (B, 3, h, w); the latter with exchanged channels where asked for."""
        config = self.settings
        chain = replace(config.chain, severities=self.severities())
        if config.positives == 1 and chain.anchor == "clean":
            views = clean_and_corrupted_views(batch.images, config.views, chain, generator.fork("chain"))
        else:
            kept = functools.partial(self._bank, batch.images, batch.indices) if self._bank else None
            views = chain_views(batch.images, config.views, chain, generator.fork("chain"), kept)
            views = views if config.positives == POSITIVES else torch.stack([views[0], views[_STRONGEST]])
        if config.channel <= 0:
            return tuple(self._normalised(views))
        choices = [
            draw_channels(config.channel, generator.fork(f"channel {place}"), luma=False)
            for place in range(config.positives)
        ]
        with torch.autocast(views.device.type, enabled=False):
            if config.channel_order == "after":
                views = self._normalised(views)
            exchanged = views[0], *map(choose_channels, views[1:], choices)
            return exchanged if config.channel_order == "after" else tuple(map(self._normalised, exchanged))

    def _online_views(self) -> int:
        """How many of the views the online encoder must see."""
        every = self._uses_js() or self.settings.symmetric or self.settings.negatives == "batch"
        return 1 + self.settings.positives if every else 1

    def _uses_js(self) -> bool:
        config: DAPG.Config = self.settings
        return config.alpha < 1 and config.js_weight > 0

    def _momentum_keys(self, views: tuple[Tensor, ...], generator: SampleGenerator) -> Float[Tensor, "B P D"]:
        """Keys of the positives (and of the anchor before them, if every view is the anchor in turn).

        Of each picture one positive, drawn at random, goes to the queue, so that it holds all strengths alike.
        """
        encoded = views if self.settings.symmetric else views[1:]
        keys = torch.stack([self.keys(view, generator) for view in encoded], dim=1)
        count: int = self.settings.positives
        level = send(generator.fork("remembered").integers(count), keys.device)
        self.keys.remember(keys[torch.arange(len(keys), device=keys.device), level - count])
        return keys

    def _contrastive(
        self,
        features: Float[Tensor, "V B D"],
        keys: Float[Tensor, "B P D"],
        negatives: Float[Tensor, "K D"],
        counted: Bool[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """Eq. 2 for the anchor, or its mean with each view as the anchor in turn."""
        config = self.settings
        anchors = range(len(features)) if config.symmetric else range(1)
        losses = []
        for anchor in anchors:
            others = torch.cat([keys[:, :anchor], keys[:, anchor + 1 :]], dim=1) if config.symmetric else keys
            losses.append(
                multi_positive_info_nce(
                    features[anchor],
                    others,
                    negatives,
                    config.temperature,
                    config.positives_reduction,
                    counted,
                )
            )
        return torch.stack(losses).mean()

    def _consistency(
        self, positives: Float[Tensor, "B P D"], negatives: Float[Tensor, "K D"], counted: Bool[Tensor, "..."]
    ) -> Float[Tensor, ""]:
        """Eq. 3-5: how far the three positives disagree about whom they resemble; the gradient goes to them only."""
        temperature = self.settings.js_temperature
        if self.settings.distribution == "dimensions":
            return js_divergence(log_feature_distribution(positives, temperature))
        return js_divergence(log_similarity_distribution(positives, negatives, temperature, counted))

    def _gradient_share(
        self, contrastive: Float[Tensor, ""], consistency: Float[Tensor, ""], features: Float[Tensor, "V B D"]
    ) -> Float[Tensor, ""]:
        """The consistency's share of the two weighted gradient norms, at the features: no pass through the network."""
        config = self.settings
        if not self._uses_js():
            return torch.zeros_like(contrastive)
        norms = []
        for term in (config.alpha * contrastive, (1 - config.alpha) * config.js_weight * consistency):
            gradient = torch.autograd.grad(term, features, retain_graph=True, allow_unused=True)[0]
            norms.append(torch.zeros_like(term) if gradient is None else gradient.detach().norm())
        share: Tensor = norms[1] / (norms[0] + norms[1]).clamp_min(1e-12)
        return share.detach()
