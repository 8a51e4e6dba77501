"""The view of fine-tuning, step by step."""

from dataclasses import replace

import torch

from dapg.augment.padded import PaddedViewConfig, padded_view
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from dapg.core.rng import SampleGenerator, generator_from

PLAIN = PaddedViewConfig(height=24, width=12, padding=0, flip=0.0)
IMAGES = torch.randint(1, 256, (6, 3, 24, 12), generator=generator_from("images"), dtype=torch.uint8)


def draws(step: int = 0) -> SampleGenerator:
    return SampleGenerator.for_step(0, step, torch.arange(6))


def test_without_any_change_it_normalises() -> None:
    expected = normalise(IMAGES / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(padded_view(IMAGES, PLAIN, draws()), expected)
    mirrored = padded_view(IMAGES, replace(PLAIN, flip=1.0), draws())
    torch.testing.assert_close(mirrored, expected.flip(-1))


def test_every_view_is_a_shifted_picture_on_black() -> None:
    """Undo the normalising and look for the shift: inside it the image, outside 0."""
    config = replace(PLAIN, padding=3)
    std, mean = (torch.tensor(values)[:, None, None] for values in (IMAGENET_STD, IMAGENET_MEAN))
    seen = set()
    for step in range(12):
        levels = ((padded_view(IMAGES, config, draws(step)) * std + mean) * 255).round().to(torch.uint8)
        for picture, view in zip(IMAGES, levels, strict=True):
            padded = torch.nn.functional.pad(picture, (3, 3, 3, 3))
            places = [
                (top, left)
                for top in range(7)
                for left in range(7)
                if torch.equal(padded[:, top : top + 24, left : left + 12], view)
            ]
            assert len(places) == 1
            seen.add(places[0])
    assert {top for top, _ in seen} == set(range(7))
    assert {left for _, left in seen} == set(range(7))


def test_erasing_fills_with_its_value_after_normalising() -> None:
    config = replace(PLAIN, erasing=1.0, erasing_value=(7.0, 8.0, 9.0))
    view, plain = padded_view(IMAGES, config, draws()), padded_view(IMAGES, PLAIN, draws())
    hole = (view == torch.tensor([7.0, 8.0, 9.0])[:, None, None]).all(dim=1)
    share = hole.float().mean(dim=(1, 2))
    assert ((share > 0.01) & (share < 0.45)).all()
    kept = ~hole[:, None].expand_as(view)
    assert torch.equal(view[kept], plain[kept])


def test_pictures_of_another_size_are_resized() -> None:
    assert padded_view(IMAGES, PaddedViewConfig(height=48, width=20), draws()).shape == (6, 3, 48, 20)
