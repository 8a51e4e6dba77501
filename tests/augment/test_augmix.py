"""AugMix's operations against Pillow, and its mixing against the formula."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dapg.augment import augmix
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator

HEIGHT, WIDTH = 72, 48


def pictures(count: int = 4) -> torch.Tensor:
    coarse = torch.rand(count, 3, 9, 6, generator=torch.Generator().manual_seed(2))
    smooth = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    return (smooth * 200 + 20).to(torch.uint8)


def by_pillow(picture: Image.Image, name: str, level: float, sign: int) -> Image.Image:
    affine = Image.Transform.AFFINE
    bilinear = Image.Resampling.BILINEAR
    if name == "autocontrast":
        return ImageOps.autocontrast(picture)
    if name == "equalize":
        return ImageOps.equalize(picture)
    if name == "posterize":
        return ImageOps.posterize(picture, 4 - int(level * 4 / 10))
    if name == "solarize":
        return ImageOps.solarize(picture, 256 - int(level * 256 / 10))
    if name == "rotate":
        return picture.rotate(sign * int(level * 30 / 10), resample=bilinear)
    data = {
        "shear_x": (1, sign * level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.3 / 10, 1, 0),
        "translate_x": (1, 0, sign * int(level * (WIDTH / 3) / 10), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * int(level * (HEIGHT / 3) / 10)),
    }[name]
    return picture.transform(picture.size, affine, data, resample=bilinear)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", augmix.OPERATIONS)
def test_operations_are_pillows(name: str, sign: int) -> None:
    images = pictures()
    levels = torch.tensor([0.4, 2.9, 6.0, 9.9])
    result = augmix.operate(images, name, levels, torch.full((4,), sign))
    for row in range(4):
        picture = Image.fromarray(images[row].permute(1, 2, 0).numpy())
        expected = np.asarray(by_pillow(picture, name, float(levels[row]), sign)).astype(int)
        difference = np.abs(result[row].permute(1, 2, 0).numpy().astype(int) - expected)
        # A pixel on the very edge of a turned image may fall on either side of it.
        assert (difference <= 1).mean() > 0.998
        if name in ("autocontrast", "equalize", "posterize", "solarize", "translate_x", "translate_y"):
            assert difference.max() == 0


def test_flat_channels_survive() -> None:
    flat = torch.full((1, 3, 40, 40), 77, dtype=torch.uint8)
    one = torch.ones(1)
    assert (augmix.operate(flat, "autocontrast", one, one.long()) == 77).all()
    assert (augmix.operate(flat, "equalize", one, one.long()) == 77).all()


def test_rows_do_not_depend_on_the_batch_and_the_mixture_is_convex() -> None:
    images = pictures(8).float() / 255
    together = augmix.augmix(images, SampleGenerator(torch.arange(8)))
    alone = torch.cat([augmix.augmix(images[i : i + 1], SampleGenerator(torch.tensor([i]))) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert 0 <= together.min() <= together.max() <= 1
    assert (together - images).abs().mean() > 0.01
    whole = augmix.augmix(images, SampleGenerator(torch.arange(8)), truncate=True) * 255
    torch.testing.assert_close(whole, whole.round(), atol=1e-4, rtol=0)


def test_three_chains_by_hand() -> None:
    """(1 - m) x + m (w_1 chain_1(x) + w_2 chain_2(x) + w_3 chain_3(x)), each chain of one to three drawn operations."""
    images = pictures(12).float() / 255
    result = augmix.augmix(images, SampleGenerator(torch.arange(12)), severity=5.0)
    again = SampleGenerator(torch.arange(12))
    depths = again.integers(4, 3, low=1)
    operations = again.integers(9, 3, 3)
    levels = again.uniform(3, 3, low=0.1, high=5.0)
    signs = torch.where(again.bernoulli(0.5, 3, 3), -1, 1)
    weights = again.exponential(3)
    share = again.uniform()
    assert set(depths.flatten().tolist()) == {1, 2, 3}
    for i in range(12):
        mixed = torch.zeros_like(images[i : i + 1])
        for chain in range(3):
            changed = (images[i : i + 1] * 255).round().to(torch.uint8)
            for step in range(int(depths[i, chain])):
                place = (slice(i, i + 1), chain, step)
                name = augmix.OPERATIONS[int(operations[place])]
                changed = augmix.operate(changed, name, levels[place], signs[place])
            mixed += weights[i, chain] / weights[i].sum() * changed.float() / 255
        expected = (1 - share[i]) * images[i : i + 1] + share[i] * mixed
        torch.testing.assert_close(result[i : i + 1], expected, atol=1e-5, rtol=0)


def test_mistakes_are_named() -> None:
    images = pictures().float() / 255
    with pytest.raises(UsageError, match="severity"):
        augmix.augmix(images, SampleGenerator(torch.arange(4)), severity=11.0)
