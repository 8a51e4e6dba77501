"""Weather: snow, frost, fog and brightness of ImageNet-C.

Constants and borders: bethgelab/imagecorruptions. The frost photographs are the published ones (``assets/frost``,
Apache-2.0); only five of the six are ever used, as in the reference.
"""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dapg.core.colour import grey
from dapg.core.device import constant, send
from dapg.core.files import ASSETS
from dapg.core.images import from_numpy
from dapg.core.rng import SampleGenerator
from dapg.corruptions._filters import centre_zoom, shifted_sum
from dapg.corruptions.base import Corruption, Parameters, by_severity, per_sample, pick
from dapg.corruptions.blur import motion_trail


class Snow(Corruption):
    """Blown flakes: enlarged noise above a threshold, motion blurred, added twice (once turned by 180°).

    The image is whitened before: blend x + (1 - blend) max(x, 1.5 luma + 0.5).
    """

    name = "snow"
    family = "weather"
    # mean, deviation, zoom, threshold, radius, sigma of the motion, blend
    TABLE = (
        (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``noise`` is the central ceil(H / 2) x ceil(W / 2) of the normal field: no severity enlarges more of it."""
        height, width = shape[-2:]
        noise = generator.normal_field(1, math.ceil(height / 2), math.ceil(width / 2))
        angle = generator.uniform(low=-135.0, high=-45.0)
        radius = pick([row[4] for row in self.TABLE], severity)
        sigma = pick([row[5] for row in self.TABLE], severity)
        # The trail meets the enlarged layer, whose sides are at least the image's, save for rounding.
        return {"severity": severity, "noise": noise, **motion_trail(angle, radius, sigma, height, width)}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        result = torch.empty_like(images)
        for level, rows in by_severity(parameters["severity"], images.device):
            mean, deviation, zoom, threshold, _, _, blend = self.TABLE[level - 1]
            field = _widen(parameters["noise"][rows] * deviation + mean, height, width)
            layer = functional.threshold(centre_zoom(field, zoom), threshold, 0.0).clamp_(max=1)
            layer = shifted_sum(layer, parameters["offsets"][rows], parameters["weights"][rows])
            layer = layer[..., :height, :width].mul(255).round_().mul_(1 / 255)
            chosen = images[rows]
            white = torch.maximum(chosen, grey(chosen).mul_(1.5).add_(0.5)).mul_(1 - blend)
            result[rows] = white.add_(chosen, alpha=blend).add_(layer).add_(layer.flip((-2, -1)))
        return result


def _widen(centre: Float[Tensor, "B 1 h w"], height: int, width: int) -> Float[Tensor, "B 1 {height} {width}"]:
    """A view of zeros with ``centre`` where ``centre_zoom`` would cut a factor 2 out of (height, width)."""
    field = centre.new_zeros(len(centre), 1, height, width)
    top, left = (height - centre.shape[-2]) // 2, (width - centre.shape[-1]) // 2
    field[..., top : top + centre.shape[-2], left : left + centre.shape[-1]] = centre
    return field


class Frost(Corruption):
    """A photograph of frost laid over the image, cut out at a random place."""

    name = "frost"
    family = "weather"
    WEIGHTS = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``photograph`` 0 ... 4 and ``corner`` (top, left) of the cut in the enlarged photograph."""
        height, width = shape[-2:]
        photograph = generator.integers(len(FROST_FILES))
        sizes = torch.tensor([frost_size(i, height, width) for i in range(len(FROST_FILES))])
        free = sizes[photograph] - torch.tensor([height, width])
        corner = (generator.uniform(2) * free).long()
        return {
            "weight": pick([w for w, _ in self.WEIGHTS], severity),
            "frost_weight": pick([w for _, w in self.WEIGHTS], severity),
            "photograph": photograph,
            "corner": corner,
        }

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        result = images * per_sample(parameters["weight"])
        choices = zip(parameters["photograph"].tolist(), parameters["corner"].tolist(), strict=True)
        for row, (photograph, (top, left)) in enumerate(choices):
            ice = frost_photograph(photograph, height, width, images.device)
            part = ice[:, top : top + height, left : left + width]
            result[row].addcmul_(part, parameters["frost_weight"][row] / 255)
        return result


FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
_FROST_SIZES = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
_FROST_FOLDER = ASSETS / "frost"


def frost_size(photograph: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a frost photograph enlarged by 1.1 beyond what covers (height, width)."""
    rows, columns = _FROST_SIZES[photograph]
    scale = 1.1 * max(1.0, height / rows, width / columns)
    return math.ceil(rows * scale), math.ceil(columns * scale)


@functools.lru_cache(maxsize=32)
def frost_photograph(photograph: int, height: int, width: int, device: torch.device) -> Float[Tensor, "3 h w"]:
    """An enlarged frost photograph, whole numbers 0 ... 255 as float, bicubic as OpenCV does it."""
    with Image.open(_FROST_FOLDER / FROST_FILES[photograph]) as image:
        small = from_numpy(np.asarray(image.convert("RGB")))
    size = frost_size(photograph, height, width)
    large = functional.interpolate(small[None].float(), size=size, mode="bicubic", align_corners=False)
    return send(large[0].round_().clamp_(0, 255), device)


class ProceduralFrost(Corruption):
    """Frost without photographs: needles of ice in a few directions on a cloudy film, others for every image.

    An option for training and for those who may not use the photographs; no published number contains it, so it belongs
    to no list of corruptions. Weights are those of ``frost``.
    """

    name = "procedural_frost"
    family = "optional"
    COLOUR = (0.86, 0.93, 1.0)
    DIRECTIONS = 5
    SHARE = 0.01  # of the pixels from which a needle grows in each direction

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``film`` (B, M, M) for a plasma fractal; ``seeds`` (B, 5, H, W) and ``angle`` (B, 5) of needles."""
        height, width = shape[-2:]
        side = 1 << (max(height, width) - 1).bit_length()
        return {
            "weight": pick([w for w, _ in Frost.WEIGHTS], severity),
            "frost_weight": pick([w for _, w in Frost.WEIGHTS], severity),
            "film": generator.uniform_field(side, side),
            "seeds": generator.uniform_field(self.DIRECTIONS, height, width),
            "angle": generator.uniform(self.DIRECTIONS, low=-180.0, high=180.0),
        }

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        decay = torch.full((len(images),), 1.8, device=images.device)
        film = plasma_fractal(parameters["film"], decay)[:, None, :height, :width]
        # The stronger the number above the threshold, the brighter the needle.
        growing = parameters["seeds"].sub(1 - self.SHARE).clamp_(min=0).div_(self.SHARE)
        radius, sigma = torch.full_like(decay, 12), torch.full_like(decay, 9)
        needles = torch.zeros_like(film)
        for direction in range(self.DIRECTIONS):
            trail = motion_trail(parameters["angle"][:, direction], radius, sigma, height, width)
            needles += shifted_sum(growing[:, direction, None], trail["offsets"], trail["weights"])
        ice = film.mul(0.5).add_(0.2).add_(needles.mul_(5).mul_(film + 0.3)).clamp_(max=1)
        frost = ice * constant(self.COLOUR, images.device)[None, :, None, None] * per_sample(parameters["frost_weight"])
        return frost.addcmul_(images, per_sample(parameters["weight"]))


class Fog(Corruption):
    """A plasma fractal added, then everything scaled back to the image's own maximum."""

    name = "fog"
    family = "weather"
    cpu_batch = 8
    STRENGTH_DECAY = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        """``field`` (B, M, M) uniform in [0, 1): the number of the cell it is used for; M the next power of two."""
        side = 1 << (max(*shape[-2:], 3) - 1).bit_length()
        return {
            "strength": pick([s for s, _ in self.STRENGTH_DECAY], severity),
            "decay": pick([d for _, d in self.STRENGTH_DECAY], severity),
            "field": generator.uniform_field(side, side),
        }

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        height, width = images.shape[-2:]
        fog = plasma_fractal(parameters["field"], parameters["decay"])[:, None, :height, :width]
        strength = per_sample(parameters["strength"])
        largest = images.amax(dim=(1, 2, 3), keepdim=True)
        scale = largest / (largest + strength)
        return (images * scale).add_(fog * (strength * scale))


def plasma_fractal(field: Float[Tensor, "B M M"], decay: Float[Tensor, "B"]) -> Float[Tensor, "B M M"]:
    """Diamond-square clouds on a torus, scaled to [0, 1].

    Every new point is the mean of its four neighbours plus w U(-w, w) with w = 100, divided by ``decay`` from level to
    level; the amplitude is w². ``field`` holds the uniform numbers in [0, 1), each at the point it is used for.
    """
    count, side, _ = field.shape
    corners = field.new_zeros(count, 1, 1)
    wobble = torch.full((count,), 100.0, device=field.device)
    step = side
    while step >= 2:
        half = step // 2
        amplitude = (wobble**2)[:, None, None]

        def noise(top: int, left: int, step: int = step, amplitude: Tensor = amplitude) -> Tensor:
            return (field[:, top::step, left::step] * 2).sub_(1).mul_(amplitude)

        right = corners + corners.roll(-1, 2)
        squares = (right + right.roll(-1, 1)).mul_(0.25).add_(noise(half, half))
        above = (squares + squares.roll(1, 1)).add_(right).mul_(0.25).add_(noise(0, half))
        below = corners + corners.roll(-1, 1)
        beside = (squares + squares.roll(1, 2)).add_(below).mul_(0.25).add_(noise(half, 0))
        upper = torch.stack([corners, above], dim=-1).flatten(2)
        lower = torch.stack([beside, squares], dim=-1).flatten(2)
        corners = torch.stack([upper, lower], dim=2).flatten(1, 2)
        wobble = wobble / decay
        step = half
    low, high = corners.amin(dim=(1, 2), keepdim=True), corners.amax(dim=(1, 2), keepdim=True)
    return corners.sub_(low).div_(high - low)


class Brightness(Corruption):
    """Raise the value of HSV; hue and saturation stay."""

    name = "brightness"
    family = "weather"
    RISE = (0.1, 0.2, 0.3, 0.4, 0.5)

    def draw(self, shape: torch.Size, severity: Int[Tensor, "B"], generator: SampleGenerator) -> Parameters:
        return {"rise": pick(self.RISE, severity)}

    def transform(self, images: Float[Tensor, "B 3 H W"], parameters: Parameters) -> Float[Tensor, "B 3 H W"]:
        value = images.amax(dim=1, keepdim=True)
        raised = (value + per_sample(parameters["rise"])).clamp_(0, 1)
        # With equal hue and saturation all three channels grow by the factor of the largest; black becomes grey.
        brighter = images * (raised / value.clamp(min=1e-12))
        return torch.where(value > 0, brighter, raised)
