"""What to run in pose generation: complete settings of GAN training at each scale.

``paper`` is PN-GAN's training as published, ``recommended`` is for a GPU, ``tiny`` (128 x 64, about a million weights)
and ``demo`` for two cores.
"""

from dataclasses import replace

from dapg.core.scales import require_preset
from dapg.core.train_config import DataConfig
from dapg.data.loading import LoaderConfig
from dapg.models.pn_gan import DiscriminatorConfig, GeneratorConfig
from dapg.pose.train_gan import GanLossConfig, GanSettings, GanTrainConfig, PairConfig

PAPER = GanSettings(
    generator=GeneratorConfig("residual", width=64, blocks=9),
    discriminator=DiscriminatorConfig(width=64),
    data=DataConfig(name="market1501"),
    pairs=PairConfig(kind="labels"),
    losses=GanLossConfig(real="source", person_weight=1.0, features=0.0),
    train=GanTrainConfig(epochs=20.0, batch_size=32, by_epoch=True),
    loader=LoaderConfig(height=256, width=128, workers=8),
    out="outputs/pose/gan-paper",
)
"""Network and schedule of naiq/PN_GAN: LSGAN + 10 L1, Adam 2e-4, all ordered pairs of one identity, real = source."""

RECOMMENDED = GanSettings(
    generator=GeneratorConfig("attention", width=96, blocks=4),
    discriminator=DiscriminatorConfig(width=64, sees_pose=True, spectral=True),
    data=DataConfig(name="market1501"),
    pairs=PairConfig(kind="self", mirror=True),
    losses=GanLossConfig(adversarial=0.5, adversarial_from=0.1),
    train=GanTrainConfig(epochs=40.0, batch_size=32, lr=5e-4, discriminator_lr=4e-4, average=0.999, precision="bf16"),
    loader=LoaderConfig(height=256, width=128, workers=8),
    out="outputs/pose/gan",
)
"""Attention, spectral norm, mask weights and feature likeness, without labels; not yet tuned on real data.

Nothing is carried: with self pairs every part is in its place already, and only the cycle would teach what to trust.
"""

TINY = GanSettings(
    generator=GeneratorConfig("attention", width=32, blocks=2, carry=True),
    discriminator=DiscriminatorConfig(width=16, sees_pose=True, spectral=True),
    data=DataConfig(split="train"),
    pairs=PairConfig(kind="synthetic", mirror=True),
    losses=GanLossConfig(adversarial=0.3, adversarial_from=0.7, identity=1.0),
    train=GanTrainConfig(steps=10000, batch_size=8, lr=1e-3, discriminator_lr=4e-4, average=0.995, checkpoint_every=50),
    loader=LoaderConfig(height=128, width=64, workers=0),
    out="outputs/pose/gan-tiny",
)
"""For two cores. The embedded generator learnt to paint before it learnt to carry (docs/explanation/pose-gan.md)."""

PRESETS: dict[str, GanSettings] = {
    "recommended": RECOMMENDED,
    "paper": PAPER,
    "tiny": TINY,
    "demo": replace(
        TINY,
        generator=GeneratorConfig("attention", width=16, blocks=1, carry=True),
        discriminator=replace(TINY.discriminator, halvings=2),
        train=replace(TINY.train, steps=60, checkpoint_every=30),
        loader=replace(TINY.loader, height=64, width=32),
        out="outputs/pose/gan-demo",
    ),
}


def settings(preset: str = "recommended") -> GanSettings:
    """Complete settings at a scale.

    Raises:
        UsageError: unknown preset.
    """
    require_preset(preset, PRESETS)
    return PRESETS[preset]
