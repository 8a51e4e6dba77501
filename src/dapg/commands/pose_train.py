"""Train a pose generator (PN-GAN) on your own images, with or without identity labels."""

from pathlib import Path

from dapg.commands._next import dapg, finished, say_next
from dapg.commands._settings import parse, take_option
from dapg.core.words import counted

_HELP = """usage: dapg pose train [--preset paper|recommended|tiny|demo] [--NAME VALUE ...]

Train a generator that turns a person into another pose. What its pairs are made from (--pairs.kind) is
written into its weights and its card: labels (identities, as published), groups (pseudo-persons from tracks or
clusters), self (no labels: each image with itself, and there and back through another pose), synthetic (rendered
persons).
Presets: paper (256 x 128, 11.4 million weights), recommended, tiny (128 x 64, for two cores), demo. A killed run goes
on where it stopped.

examples:
  dapg pose train --preset demo --out outputs/pose/first
  dapg pose train --preset tiny --pairs.more synthetic=canonical --out outputs/pose/tiny
  dapg pose train --preset paper --data market1501=/data/Market-1501 --pairs.key_points keypoints/key_points.npz
Values below are those of --preset {preset}."""

_COMMON = (
    "data.split data.subset pairs. train.steps train.epochs train.batch_size train.lr generator.width loader.height "
    "loader.width init seed out device"
)


def main(words: list[str], program: str) -> None:
    """Parse, train, say where the generator is."""
    preset, words = take_option(words, "--preset", "recommended")

    from dapg.pose.recipe import settings as recipe
    from dapg.pose.train_gan import CARD, train_gan

    settings = parse(program, recipe(preset), words, _HELP.format(preset=preset), common=_COMMON)
    result = train_gan(settings)
    folder = Path(settings.out)
    steps = f"{counted(result['steps'], 'step')} in {result['seconds']:.0f} s"
    print(f"{finished(result)}: {steps}; pairs: {result['pairs']['meaning']}")
    print(f"written: {folder / 'generator.safetensors'}; card: {folder / CARD}")
    say_next(("paint people in other poses", dapg("pose", "generate", "DATA", "--generator", folder)))
