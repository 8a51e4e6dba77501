"""Basic views: crop, flip, grey, colour jitter, blur and erasing of a whole batch, each sample with its own draw.

Every function takes float images in [0, 1] and returns new ones in [0, 1]; none changes its input. Random choices
come from a ``SampleGenerator``, so that a sample's view does not depend on the batch around it. The ``draw_*``
functions make the choices alone, on the host, for callers that want to use one draw on several images.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from dapg.core.colour import grey, hsv_to_rgb, rgb_to_hsv
from dapg.core.device import constant, send
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator

_CROP_ATTEMPTS = 10
_ERASING_ATTEMPTS = 100


def as_float(images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images in [0, 1]: uint8 is divided by 255, float is handed through."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    return images


# Geometry


def draw_crop_boxes(
    height: int,
    width: int,
    generator: SampleGenerator,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int[Tensor, "B 4"]:
    """Boxes (top, left, height, width) in pixels of a share ``scale`` of the area and width : height in ``ratio``.

    Ten attempts with uniform area and log-uniform ratio; if none fits into the image, the largest centred box of
    an allowed ratio (Szegedy et al. 2015, as torchvision's RandomResizedCrop does it).
    """
    area = height * width * generator.uniform(_CROP_ATTEMPTS, low=scale[0], high=scale[1])
    aspect = generator.uniform(_CROP_ATTEMPTS, low=math.log(ratio[0]), high=math.log(ratio[1])).exp()
    widths = (area * aspect).sqrt().round().long()
    heights = (area / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)

    natural = width / height
    fallback_width = round(height * ratio[1]) if natural > ratio[1] else width
    fallback_height = round(width / ratio[0]) if natural < ratio[0] else height
    crop_width = torch.where(any_fits, widths.gather(1, first)[:, 0], fallback_width)
    crop_height = torch.where(any_fits, heights.gather(1, first)[:, 0], fallback_height)

    place = generator.uniform(2)
    free_top, free_left = height - crop_height, width - crop_width
    top = torch.where(any_fits, (place[:, 0] * (free_top + 1)).long(), free_top // 2)
    left = torch.where(any_fits, (place[:, 1] * (free_left + 1)).long(), free_left // 2)
    return torch.stack([top, left, crop_height, crop_width], dim=1)


def crop_resize(
    images: Shaped[Tensor, "B 3 H W"], boxes: Int[Tensor, "B 4"], size: tuple[int, int]
) -> Float[Tensor, "B 3 h w"]:
    """Cut out boxes (top, left, height, width) and resize each to ``size`` = (height, width), bilinear.

    Pixel centres are aligned and nothing outside the box is seen, as if crop and resize were separate steps. There is
    no smoothing before shrinking.
    """
    height, width = images.shape[-2:]
    boxes = send(boxes, images.device)
    rows = _sample_positions(boxes[:, 0], boxes[:, 2], size[0]) * (2 / height) + (1 / height - 1)
    columns = _sample_positions(boxes[:, 1], boxes[:, 3], size[1]) * (2 / width) + (1 / width - 1)
    shape = (len(images), *size)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    floats = as_float(images)
    return functional.grid_sample(floats, grid.to(floats.dtype), padding_mode="border", align_corners=False)


def _sample_positions(start: Int[Tensor, "B"], length: Int[Tensor, "B"], steps: int) -> Float[Tensor, "B {steps}"]:
    """Where ``steps`` output pixels lie on the input axis, in input pixels (0 is the first centre), inside the box."""
    unit = (torch.arange(steps, device=start.device, dtype=torch.float32) + 0.5) / steps
    inside = unit * length[:, None] - 0.5
    return torch.minimum(inside.clamp(min=0), (length - 1)[:, None].to(inside.dtype)) + start[:, None]


def random_resized_crop(
    images: Shaped[Tensor, "B 3 H W"],
    size: tuple[int, int],
    generator: SampleGenerator,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Tensor, "B 3 h w"]:
    """A random box of each image, resized to ``size`` = (height, width); uint8 or float in, float out."""
    boxes = draw_crop_boxes(images.shape[-2], images.shape[-1], generator, scale, ratio)
    return crop_resize(images, boxes, size)


def resize(images: Shaped[Tensor, "B 3 H W"], size: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    """Resize to (height, width), bilinear with smoothing when shrinking, like Pillow; uint8 or float in, float out."""
    floats = as_float(images)
    if floats.shape[-2:] == torch.Size(size):
        return floats
    return functional.interpolate(floats, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def random_padded_crop(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, padding: int = 10, value: float = 0.0
) -> Float[Tensor, "B 3 H W"]:
    """Pad all sides by ``padding`` pixels of ``value`` and cut the old size out at a random place (AGW, CIL)."""
    height, width = images.shape[-2:]
    offsets = send(generator.integers(2 * padding + 1, 2), images.device)
    padded = functional.pad(images, (padding,) * 4, value=value)
    rows = (offsets[:, 0, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (offsets[:, 1, None] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(3, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]


def horizontal_flip(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, probability: float = 0.5
) -> Float[Tensor, "B 3 H W"]:
    """Mirror left and right with the given probability."""
    chosen = generator.bernoulli(probability)
    return _where(chosen, images.flip(-1), images)


# Colour


def to_grey(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, probability: float = 0.2
) -> Float[Tensor, "B 3 H W"]:
    """All three channels become the luma with the given probability."""
    chosen = generator.bernoulli(probability)
    return _where(chosen, grey(images).expand_as(images), images)


def colour_jitter(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    probability: float = 0.8,
) -> Float[Tensor, "B 3 H W"]:
    """Change brightness, contrast, saturation and hue in a random order (SimCLR, MoCo v2).

    Factors are uniform in [max(0, 1 - x), 1 + x], the hue shift in [-hue, hue] turns; after each change values are
    clipped to [0, 1].

    Raises:
        UsageError: a negative strength, or ``hue`` above 0.5.
    """
    if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
        raise UsageError("colour_jitter: strengths must not be negative, and hue at most 0.5")
    chosen = generator.bernoulli(probability)
    unit = generator.uniform(4)
    order = generator.permutation(4)
    strengths = (brightness, contrast, saturation)
    factors = [max(0.0, 1 - s) + unit[:, i] * (1 + s - max(0.0, 1 - s)) for i, s in enumerate(strengths)]
    factors.append((2 * unit[:, 3] - 1) * hue)
    changed = images.clone()
    for place in range(4):
        for operation, strength in enumerate((*strengths, hue)):
            rows = (chosen & (order[:, place] == operation)).nonzero()[:, 0]
            if strength > 0 and len(rows) > 0:
                amount, rows = (send(values, images.device) for values in (factors[operation][rows], rows))
                changed[rows] = _JITTERS[operation](changed[rows], amount)
    return changed


def change_brightness(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Multiply by a factor a sample, clipped to [0, 1]."""
    return (images * factor[:, None, None, None]).clamp(0, 1)


def change_contrast(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Move away from (factor > 1) or to the image's mean luma, clipped to [0, 1]."""
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factor[:, None, None, None]).clamp(0, 1)


def change_saturation(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Move away from (factor > 1) or to each pixel's luma, clipped to [0, 1]."""
    return torch.lerp(grey(images).expand_as(images), images, factor[:, None, None, None]).clamp(0, 1)


def change_hue(images: Float[Tensor, "B 3 H W"], turns: Float[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Turn the hue by a fraction of the colour circle."""
    hue, saturation, value = rgb_to_hsv(images).unbind(dim=1)
    return hsv_to_rgb(torch.stack([(hue + turns[:, None, None]) % 1, saturation, value], dim=1))


_JITTERS = (change_brightness, change_contrast, change_saturation, change_hue)


def solarise(
    images: Float[Tensor, "B 3 H W"], generator: SampleGenerator, probability: float = 0.2, threshold: float = 0.5
) -> Float[Tensor, "B 3 H W"]:
    """Values from ``threshold`` on become their negative, 1 - x, with the given probability (BYOL, appendix B)."""
    chosen = generator.bernoulli(probability)
    return _where(chosen, torch.where(images < threshold, images, 1 - images), images)


# Blur and erasing


def gaussian_blur(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    sigma: tuple[float, float] = (0.1, 2.0),
    probability: float = 0.5,
) -> Float[Tensor, "B 3 H W"]:
    """Gaussian blur with a deviation uniform in ``sigma`` pixels; edges are repeated outwards."""
    chosen = generator.bernoulli(probability)
    sigmas = generator.uniform(low=sigma[0], high=sigma[1])
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return images.clone()
    kernels = _gaussian_kernels(send(sigmas[rows], images.device), math.ceil(4 * sigma[1]))
    blurred = images.clone()
    rows = send(rows, images.device)
    blurred[rows] = _blur_axis(_blur_axis(images[rows], kernels, -1), kernels, -2)
    return blurred


def _gaussian_kernels(sigmas: Float[Tensor, "B"], radius: int) -> Float[Tensor, "B taps"]:
    """Sampled Gaussians of 2 radius + 1 taps that sum to 1."""
    offsets = torch.arange(-radius, radius + 1, device=sigmas.device)
    weights = (-0.5 * (offsets / sigmas[:, None]) ** 2).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def _blur_axis(
    images: Float[Tensor, "B 3 H W"], kernels: Float[Tensor, "B taps"], axis: int
) -> Float[Tensor, "B 3 H W"]:
    """Symmetric kernels along an axis as one matrix a sample; what falls over an edge lands on the edge pixel."""
    length, radius = images.shape[axis], kernels.shape[1] // 2
    position = torch.arange(length, device=images.device)
    taps = torch.arange(-radius, radius + 1, device=images.device)
    source = (position[:, None] + taps).clamp(0, length - 1)
    matrix = images.new_zeros(len(images), length, length)
    index = source.expand(len(images), -1, -1)
    matrix.scatter_add_(2, index, kernels[:, None, :].expand(index.shape).to(images.dtype))
    if axis == -1:
        return images @ matrix[:, None].transpose(-1, -2)
    return matrix[:, None] @ images


def draw_rectangles(
    height: int,
    width: int,
    generator: SampleGenerator,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> tuple[Int[Tensor, "B 4"], Bool[Tensor, "B"]]:
    """Rectangles (top, left, height, width) for erasing, and whether one was found.

    Up to 100 attempts with uniform area share and uniform height : width; one is taken when strictly smaller than
    the image on both axes (Zhong et al. 2020).
    """
    target = height * width * generator.uniform(_ERASING_ATTEMPTS, low=area[0], high=area[1])
    ratio = generator.uniform(_ERASING_ATTEMPTS, low=aspect[0], high=aspect[1])
    heights = (target * ratio).sqrt().round().long()
    widths = (target / ratio).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    place = generator.uniform(2)
    top = (place[:, 0] * (height - tall + 1)).long()
    left = (place[:, 1] * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide], dim=1), fits.any(dim=1)


def rectangle_mask(rectangles: Int[Tensor, "B 4"], height: int, width: int) -> Bool[Tensor, "B 1 {height} {width}"]:
    """True inside rectangles (top, left, height, width)."""
    top, left, tall, wide = (rectangles[:, i, None] for i in range(4))
    row = torch.arange(height, device=rectangles.device)
    column = torch.arange(width, device=rectangles.device)
    rows = (row >= top) & (row < top + tall)
    columns = (column >= left) & (column < left + wide)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def random_erasing(
    images: Float[Tensor, "B 3 H W"],
    generator: SampleGenerator,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    value: tuple[float, float, float] = (0.485, 0.456, 0.406),
) -> Float[Tensor, "B 3 H W"]:
    """Fill a random rectangle with ``value`` (RGB, in the images' own scale) with the given probability."""
    chosen = generator.bernoulli(probability)
    rectangles, fitted = draw_rectangles(images.shape[-2], images.shape[-1], generator, area, aspect)
    mask = rectangle_mask(send(rectangles, images.device), images.shape[-2], images.shape[-1])
    mask = mask & send(chosen & fitted, images.device)[:, None, None, None]
    return torch.where(mask, constant(value, images.device, images.dtype)[:, None, None], images)


def _where(
    chosen: Bool[Tensor, "B"], changed: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """``changed`` where chosen, else the old image."""
    return torch.where(send(chosen, images.device)[:, None, None, None], changed, images)
