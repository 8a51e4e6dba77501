"""The scales that every method is trained at: network, size, length, rates and data. Importable without torch.

A new scale is one more ``Scale`` in ``SCALES``: ``--preset`` and ``dapg reproduce --scale`` know it then. What a method
has of its own at a scale is in the method's file (``Method.recipe``).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from dapg.core.errors import UsageError, nearest
from dapg.core.ranges import Pixels
from dapg.core.train_config import BackboneConfig, OptimizerConfig, ScheduleConfig, TrainConfig

if TYPE_CHECKING:
    from typing import Self as Self
else:
    Self = object  # the tests' type checker, beartype, knows the real one only in classes that it decorates whole

Stage = Literal["pretrain", "align", "finetune"]


@dataclass(frozen=True)
class Start:
    """A network with its first weights, and how each stage trains it."""

    backbone: BackboneConfig
    train: Mapping[Stage, TrainConfig]
    disk: float = 1e9
    """Bytes of a training's folder, checkpoints included."""


@dataclass(frozen=True)
class Usual:
    """What a stage works on at a scale, unless a method wants something else."""

    data: str = "synthetic"
    split: str = ""
    """Empty: the data set's first."""
    start: str = "random"
    """Of the scale's starts, the one taken where none is asked for."""
    last_stride: int = BackboneConfig.last_stride


@dataclass(frozen=True)
class Scale:
    """What all methods share, so that they can be compared."""

    name: str
    about: str
    """One line for help texts."""
    starts: Mapping[str, Start]
    """By name: random or imagenet."""
    stages: Mapping[Stage, Usual]
    workers: int = 8
    """Loader processes."""
    labelled: str = ""
    """Split for pre-trainings that learn from labels, where the usual one has none."""
    size: tuple[int, int] | None = None
    """Height and width that the network sees; None: as published, with heads and momentum as published too."""
    decoded: tuple[int, int] | None = None
    """Height and width of the images that pre-training decodes and corrupts, before its views."""
    stripes: int | None = None
    """Horizontal stripes that fine-tuned networks pool apart, beside the whole image."""
    mixing: float | None = None
    """Probability that a fine-tuning mixes an image's channels into a grey image."""
    pictures: int = 4
    """Images of each person and modality in a batch of a fine-tuning (AGW: 4)."""
    settings: Literal["default", "recommended", "paper"] = "default"
    """Which of a method's settings: its defaults, those that helped in experiments too, or the literal ones."""

    @property
    def published(self) -> bool:
        """Whether networks have their published size, and methods their published optimisers with them."""
        return self.size is None


@dataclass(frozen=True)
class Scaled:
    """Settings that know how to fit a scale; the settings inside them do likewise."""

    def at(self, scale: Scale) -> Self:
        """The same for the scale's networks and images."""
        inner = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.at(scale) for name, value in inner.items() if isinstance(value, Scaled)})


@dataclass(frozen=True)
class ViewSize(Scaled):
    """Size of what the network sees."""

    height: Pixels = 256
    """Rows the network sees."""
    width: Pixels = 128
    """Columns the network sees."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def at(self, scale: Scale) -> Self:
        """The size of the scale's networks."""
        return self.resized(scale.size or self.size)

    def resized(self, size: tuple[int, int]) -> Self:
        """The same at another (height, width)."""
        return replace(self, height=size[0], width=size[1])


_MOCO = OptimizerConfig("sgd", lr=0.03, weight_decay=1e-4)
_RESNET_50: dict[Stage, TrainConfig] = {
    "pretrain": TrainConfig(
        epochs=200.0, batch_size=256, optimizer=_MOCO, schedule=ScheduleConfig(by_epoch=True), precision="bf16"
    ),
    "align": TrainConfig(
        epochs=200.0,
        batch_size=256,
        optimizer=_MOCO,
        schedule=ScheduleConfig(warmup=10.0, by_epoch=True),
        precision="bf16",
    ),
    "finetune": TrainConfig(
        epochs=81.0,
        batch_size=64,
        optimizer=OptimizerConfig("sgd", lr=0.1, lr_batch=0, weight_decay=5e-4, nesterov=True),
        schedule=ScheduleConfig("step", warmup=10.0, milestones=(20.0, 50.0), by_epoch=True),
        precision="bf16",
        checkpoint_every=1000,
    ),
}
"""Pre-training as MoCo does and for LUPerson's 200 epochs (linear scaling from 256 images), fine-tuning as AGW does
(train.py of its code)."""


def _adamw(
    rate: float,
    steps: tuple[int, int, int],
    warmup: float,
    on_collapse: Literal["stop", "warn"],
    tuning_rate: float | None = None,
) -> Start:
    """A quarter-width ResNet-18 and AdamW, 64 images a step, the same for every method.

    An alignment takes a twentieth of the rate: at half of it, the network forgets what it learnt (docs/log.md).

    Args:
        rate: AdamW's.
        steps: of a pre-training, an alignment, a fine-tuning.
        warmup: steps of the warm-up of a fine-tuning; the others have 20.
        on_collapse: whether a pre-training or alignment goes on when its features have collapsed.
        tuning_rate: AdamW's in fine-tuning; None: ``rate``.
    """

    def train(number: int, lr: float, weight_decay: float, warm: float) -> TrainConfig:
        return TrainConfig(
            steps=steps[number],
            batch_size=64,
            optimizer=OptimizerConfig("adamw", lr=lr, lr_batch=0, weight_decay=weight_decay),
            schedule=ScheduleConfig(unit="steps", warmup=warm),
            on_collapse="stop" if number == 2 else on_collapse,
            checkpoint_every=20,
        )

    stages: dict[Stage, TrainConfig] = {
        "pretrain": train(0, rate, 1e-4, 20.0),
        "align": train(1, 0.05 * rate, 1e-4, 20.0),
        "finetune": train(2, tuning_rate or rate, 0.02, warmup),
    }
    return Start(BackboneConfig("resnet18", width=0.25), stages, disk=25e6)


def _resnet_50(train: Mapping[Stage, TrainConfig]) -> dict[str, Start]:
    return {init: Start(BackboneConfig("resnet50", init=init), train) for init in ("random", "imagenet")}


_REAL: dict[Stage, Usual] = {
    "pretrain": Usual("luperson"),
    "align": Usual("market1501", "train"),
    "finetune": Usual("sysu", start="imagenet", last_stride=1),
}
_EMBEDDED: dict[Stage, Usual] = {
    "pretrain": Usual(),
    "align": Usual(split="train"),
    "finetune": Usual(last_stride=1),
}
_SMALL = replace(
    _adamw(5e-4, (300, 150, 400), 40.0, "warn", tuning_rate=2e-3),
    backbone=BackboneConfig("mobilenet_v2", init="imagenet", end="layer3", fixed="layer1"),
    disk=20e6,
)
"""MobileNetV2 to stride 16 without its costly first layers: a step takes a third of the whole network's."""
SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("recommended", "real data, one or more GPUs", _resnet_50(_RESNET_50), _REAL, settings="recommended"),
        Scale(
            "paper",
            "the published settings to the letter",
            _resnet_50({**_RESNET_50, "finetune": replace(_RESNET_50["finetune"], precision="fp32")}),
            _REAL,
            settings="paper",
        ),
        Scale("gpu", "ResNet-50 on the embedded people, under an hour on a GPU", _resnet_50(_RESNET_50), _EMBEDDED,
              labelled="train"),
        Scale(
            "small",
            "networks that learn on the embedded people, minutes on one core (docs/explanation/experiment.md)",
            {"random": _adamw(2e-3, (300, 150, 400), 40.0, "warn"), "imagenet": _SMALL},
            {stage: replace(usual, start="imagenet") for stage, usual in _EMBEDDED.items()},
            workers=1,
            labelled="train",
            size=(96, 48),
            decoded=(160, 80),
            stripes=6,
            mixing=0.6,
            pictures=2,
        ),
        Scale(
            "demo",
            "proves that everything runs, within a minute",
            {"random": _adamw(2e-3, (120, 60, 150), 40.0, "stop")},
            _EMBEDDED,
            workers=1,
            labelled="train",
            size=(64, 32),
            decoded=(64, 32),
        ),
    )
}  # fmt: skip
PRESETS = tuple(SCALES)


def require_preset(preset: str, known: Collection[str] = PRESETS) -> None:
    """Refuse what is none of the ``known`` scales.

    Raises:
        UsageError: the nearest one is suggested.
    """
    if preset not in known:
        raise UsageError(f"no preset is called {preset!r}{nearest(preset, list(known))}; known: {', '.join(known)}")
