"""Settings of every training: data, network, length, optimiser, learning rate. Importable without torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dapg.core.errors import UsageError
from dapg.core.ranges import (
    Count,
    CountOrZero,
    Decay,
    Factor,
    GreyBits,
    Percentage,
    PixelsOrZero,
    Positive,
    Share,
    Stride,
    Weight,
)
from dapg.core.settings import run_only, unset

OptimizerName = Literal["sgd", "adam", "adamw", "lars"]
ScheduleName = Literal["constant", "cosine", "step"]
ParameterGroup = dict[str, Any]
"""As torch takes it: ``params`` and, where they have their own, ``lr``, ``weight_decay`` and ``adapt`` (LARS)."""


@dataclass(frozen=True)
class DataConfig:
    """A data set by name; on the command line ``--data sysu=/path`` or ``--data /path`` (a folder) says both."""

    name: str = "synthetic"
    """A file of ``dapg/data``: synthetic (embedded), folder, ..."""
    root: str = ""
    """Where the images are; empty: the environment variable DAPG_DATA_<NAME>, or the embedded set."""
    split: str = ""
    """Empty: the first split of the data set, which is its training or pre-training part."""
    subset: CountOrZero = 0
    """Use only this many images, drawn once by the seed; 0 uses all."""
    persons: CountOrZero = unset(0)
    """Use only this many persons of a labelled split, drawn once by the seed, the fewer among the more; 0 uses all."""
    bits: GreyBits = unset(16)
    """Bits that 16-bit grey images use: 12 for an infrared camera that counts to 4,095; more becomes white."""
    percentiles: tuple[Percentage, ...] = unset(())
    """Two, such as [1, 99]: spread each 16-bit grey image between these of its own values (thermal counts)."""

    names: str = unset("")
    """Of a plain folder: a regular expression that finds ``(?P<person>...)`` and perhaps ``(?P<camera>...)`` in file
    names, or ``market`` for names such as 0001_c1s1_000108_00.jpg. Takes the place of labels.csv."""

    def __post_init__(self) -> None:
        """Refuse percentiles that span nothing."""
        if self.percentiles and not (len(self.percentiles) == 2 and self.percentiles[0] < self.percentiles[1]):
            raise UsageError(f"data.percentiles are two rising numbers, such as [1, 99], got {list(self.percentiles)}")

    def whole(self) -> "DataConfig":
        """The data set and how it is read, whatever part of it this is."""
        return replace(self, split="", subset=0, persons=0)


@dataclass(frozen=True)
class BackboneConfig:
    """The network and where its first weights come from."""

    name: str = "resnet50"
    """A file of ``dapg/models/backbones``, or ``timm:`` and the name of a network of the package timm."""
    init: str = "random"
    """random, imagenet (embedded for mobilenet_v2), a weights file, or the folder of a finished run."""
    width: Factor = 1.0
    """Multiplies all channel counts."""
    last_stride: Stride = 2
    """Stride of the last stage: 2 as for ImageNet, 1 as in re-identification networks."""
    end: str | None = unset(None)
    """Last stage that is built: layer3 ends at stride 16. All are when not given."""
    fixed: str | None = unset(None)
    """Last stage that is not trained, with all before it: stem, layer1, ... Everything is trained when not given."""
    variant: str = unset("")
    """Whose network a ViT is: timm's or TransReID's (empty), ics, pass, dinov2 or dinov2-registers."""
    stride: PixelsOrZero = unset(0)
    """Pixels from patch to patch of a ViT; 0: as many as a patch has; 12 overlaps patches of 16."""
    tokens: str = unset("patches")
    """What a ViT's map is pooled to: patches (their mean), class (token) or both."""
    semantic_weight: Share = unset(0.2)
    """Share of meaning against looks in a Swin network of SOLIDER's."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, and its settings; those that belong to another one are ignored."""

    name: OptimizerName = "sgd"
    """sgd, adam, adamw or lars."""
    lr: Weight = 0.03
    """Base learning rate, before warm-up and schedule (0.03 for 256 images: MoCo)."""
    lr_batch: CountOrZero = 256
    """Batch size the rate is given for; it is scaled linearly to the run's. 0: the rate holds for any batch size."""
    weight_decay: Weight = 1e-4
    """Weight decay: added to the gradient (sgd, adam, lars) or taken from the weights (adamw)."""
    momentum: Share = 0.9
    """Momentum of sgd and lars."""
    nesterov: bool = False
    """Nesterov's momentum in sgd (the published AGW recipe has it)."""
    beta_1: Decay = 0.9
    """Decay of the mean of gradients in adam and adamw."""
    beta_2: Decay = 0.999
    """Decay of the mean of squared gradients in adam and adamw."""
    epsilon: Share = 1e-8
    """Added to adam's denominator."""
    trust_coefficient: Share = 1e-3
    """Share of a weight's length that LARS moves it by (You et al. 2017)."""


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves."""

    name: ScheduleName = "cosine"
    """constant, cosine (to 0 at the end) or step (times ``gamma`` at each milestone)."""
    unit: Literal["steps", "epochs"] = "epochs"
    """What ``warmup`` and ``milestones`` count."""
    warmup: Weight = 0.0
    """Length of the linear rise to the base rate."""
    milestones: tuple[Weight, ...] = ()
    """Where a ``step`` schedule falls, counted from the start of training."""
    gamma: Positive = 0.1
    """Factor at each milestone."""
    by_epoch: bool = False
    """Hold the rate within an epoch, as the published MoCo and AGW code does; otherwise it moves with every step."""

    def __post_init__(self) -> None:
        """Refuse values that give no schedule."""
        rising = list(self.milestones) == sorted(set(self.milestones)) and min(self.milestones, default=1) > 0
        if self.name == "step" and not (self.milestones and rising):
            raise UsageError(f"a step schedule has rising milestones above 0, got {self.milestones}")


@dataclass(frozen=True)
class TrainConfig:
    """How long, how large, how often."""

    steps: CountOrZero = 0
    """Optimiser steps; 0: ``epochs`` decides."""
    epochs: Weight = 200.0
    """Passes over the images, when ``steps`` is 0."""
    batch_size: Count = 256
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulation: Count = 1
    """Parts a batch is split into, one after the other, to save memory."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Autocast type; weights stay in fp32. auto: bf16 where it is faster (docs/how-to/training.md), else fp32."""
    clip_norm: Weight = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser, learning rate, weight decay."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Course of the learning rate."""
    validate_every: CountOrZero = 0
    """Steps between validations; 0: at the end only."""
    early_stop: CountOrZero = 0
    """Stop after this many validations without a better score; 0 never."""
    on_collapse: Literal["stop", "warn"] = "stop"
    """What to do when the features of all images have become one."""
    checkpoint_every: Count = run_only(200)
    """Steps between checkpoints."""
    keep_last: Count = run_only(2)
    """Checkpoints kept, besides the best."""
    log_every: Count = run_only(10)
    """Steps between lines of metrics.jsonl."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = run_only("none")
    """Who gets the numbers of metrics.jsonl too; needs the package of that name (docs/how-to/training.md)."""
    compile: bool = run_only(False)
    """Compile the network with torch.compile."""

    def total_steps(self, steps_per_epoch: float) -> int:
        """Optimiser steps of the whole run."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))

    def lasting(self, share: float) -> "TrainConfig":
        """The same, ``share`` times as long."""
        if self.steps:
            return replace(self, steps=round(self.steps * share))
        return replace(self, epochs=self.epochs * share)
