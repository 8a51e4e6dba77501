"""Checks of a corruption: any size and type of image, one draw for one sample, the more severe the farther."""

import torch
from torch import Tensor
from torch.nn import functional

from dapg.contracts.base import by_name, require, require_near
from dapg.core.rng import SampleGenerator, generator_from
from dapg.corruptions import library

LEVELS = torch.arange(1, 6)
"""One image at each severity."""


def keeps_shape_type_and_range(name: str) -> None:
    """Of bytes and floats, small and odd sizes; what it is given stays as it was, what it gives is another image."""
    for height, width in ((64, 48), (32, 33), (150, 71)):
        images = random_images(5, height, width)
        for given in (images, images.float() / 255, (images.float() / 255).half()):
            before = given.clone()
            result = library.corrupt(given, name, LEVELS, streams(5))
            require(torch.equal(given, before), "the given images are changed")
            require(result.shape == given.shape, f"{tuple(given.shape)} become {tuple(result.shape)}")
            require(result.dtype == given.dtype, f"{given.dtype} become {result.dtype}")
            highest = 255 if given.dtype == torch.uint8 else 1
            require(result.isfinite().all(), "values are not finite")
            require((result >= 0).all() and (result <= highest).all(), f"values leave [0, {highest}]")
        difference = (result.float() - given.float()).abs().flatten(1).mean(dim=1)
        require((difference > 1e-3).all(), "an image comes out as it was")


def channels_last_changes_nothing(name: str) -> None:
    """However the images lie in memory."""
    images = random_images(5)
    plain = library.corrupt(images, name, LEVELS, streams(5))
    other = library.corrupt(images.to(memory_format=torch.channels_last), name, LEVELS, streams(5))
    require(torch.equal(plain, other), "the same images in another order of memory come out differently")


def every_choice_is_drawn(name: str) -> None:
    """``transform`` makes none: one draw gives one image, whatever batch it is drawn and worked on in."""
    corruption, images = library.get(name), random_images(5)
    drawn = corruption.draw(images.shape, LEVELS, streams(5))
    require(all(len(value) == 5 for value in drawn.values()), "a parameter is not one value for each image")
    first, again = corruption.apply(images, drawn), corruption.apply(images, drawn)
    require(torch.equal(first, again), "one draw gives two images: transform makes a choice")
    alone = corruption.draw(images[2:3].shape, LEVELS[2:3], streams(1, 2))
    for key, value in alone.items():
        require_near(value[0].double(), drawn[key][2].double(), f"{key} of a sample depends on the batch around it")
    together = library.corrupt(images, name, LEVELS, streams(5)).int()
    single = library.corrupt(images[2:3], name, LEVELS[2:3], streams(1, 2)).int()
    require(((together[2:3] - single).abs() <= 1).float().mean() > 0.999, "an image depends on the batch around it")


def severest_is_farthest(name: str) -> None:
    """Of the mean squares from the clean image, severity 5's is larger than 1's."""
    images = random_images(16, 96, 64)
    slight, severe = (
        (library.corrupt(images, name, severity, streams(16)).float() - images).square().mean() for severity in (1, 5)
    )
    require(severe > slight, f"severity 5 is no farther from the clean image than 1: {severe:.4g}, {slight:.4g}")


CHECKS = by_name(
    keeps_shape_type_and_range,
    channels_last_changes_nothing,
    every_choice_is_drawn,
    severest_is_farthest,
)


def random_images(count: int, height: int = 64, width: int = 48) -> Tensor:
    """Smooth colour with some texture, uint8: neither flat nor pure noise."""
    generator = generator_from("corruptible pictures")
    coarse = torch.rand(count, 3, 6, 4, generator=generator)
    smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic")
    fine = torch.rand(count, 3, height, width, generator=generator) * 0.15
    return ((smooth * 0.8 + fine).clamp(0, 1) * 255).to(torch.uint8)


def streams(count: int, start: int = 0) -> SampleGenerator:
    """The streams of samples ``start``, ``start`` + 1, ..."""
    return SampleGenerator(torch.arange(start, start + count))
