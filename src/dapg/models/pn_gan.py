"""Networks of PN-GAN (Qian et al. 2018): the literal pair, and an attention generator that also fits two cores.

Facts of the literal networks: naiq/PN_GAN, script/GAN/network.py. A generator turns an image of a person and a
drawn skeleton, both (B, 3, H, W) in [-1, 1], into the same person in the skeleton's pose. Sides are multiples of 16.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from dapg.core.errors import UsageError
from dapg.core.ranges import Channels, Layers, Range
from dapg.core.rng import generator_from
from dapg.models.blocks.convolution import Convolution

STRIDE = 16
"""Sides of an image are multiples of it (the residual generator could do with 4)."""
TRUST = 2.0
"""Carried parts are trusted by sigmoid(2) = 0.88 before anything is learnt."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Which generator, and how wide."""

    kind: Literal["residual", "attention"] = "attention"
    """residual: the published network; attention: appearance is fetched from where the source shows it."""
    width: Channels = 64
    """Channels of the first convolution; deeper ones have two and four times as many (the paper: 64)."""
    blocks: Annotated[int, Range(0, 128)] = 9
    """Residual blocks in the middle (the paper: 9)."""
    carry: bool = False
    """Attention only: body parts carried to the new pose by key points are a further input, and what the network
    trusts of them is the result as it is."""

    def __post_init__(self) -> None:
        """Refuse values that build no network."""
        if self.carry and self.kind != "attention":
            raise UsageError(f"--generator.carry goes with an attention generator, not with {self.kind}")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The patch discriminator."""

    width: Channels = 64
    """Channels of the first convolution; they double up to eight times as many (the paper: 64)."""
    sees_pose: bool = False
    """Judge image and skeleton together; the published one sees the image alone."""
    spectral: bool = False
    """Spectral norm (Miyato et al. 2018) on every convolution, in place of instance norms."""
    halvings: Layers = 3
    """Convolutions of stride 2 before the two without padding (the paper: 3); 2 for images of 64 x 32."""

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that leave no patch to judge.

        Raises:
            UsageError: a side below 7 times 2^halvings.
        """
        least = 7 * 2**self.halvings
        if min(height, width) < least:
            raise UsageError(
                f"{height} x {width} images are too small for a discriminator with {self.halvings} halvings "
                f"(sides from {least}); lower --discriminator.halvings"
            )


def build_generator(config: GeneratorConfig, generator: torch.Generator | None = None) -> "PoseGenerator":
    """A generator whose weights are drawn on the CPU from ``generator`` alone (None: a fixed seed)."""
    kind = ResidualGenerator if config.kind == "residual" else AttentionGenerator
    return kind(config, generator)


class PoseGenerator(nn.Module):
    """What all generators share: their settings, and ``forward(images, poses, carried)``."""

    config: GeneratorConfig

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        poses: Float[Tensor, "B 3 H W"],
        carried: Float[Tensor, "B 4 H W"] | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """The persons of ``images`` in the poses of the skeleton images ``poses``; all in [-1, 1].

        ``carried``, for generators that heed it: body parts moved to the pose, and where they are
        (``augment/carry.py``); None where the key points of the images are not known.
        """
        raise NotImplementedError


# ---- the published networks ----------------------------------------------------------------------------------------


def lay(
    painted: Float[Tensor, "B 3 H W"], trust: Float[Tensor, "B 1 H W"], carried: Float[Tensor, "B 4 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """Carried parts over a painted image, where they are and as far as they are trusted."""
    return painted.lerp(carried[:, :3].to(painted.dtype), carried[:, 3:].to(painted.dtype) * trust)


class ResidualGenerator(PoseGenerator):
    """PN-GAN's generator: two strided convolutions, residual blocks, two transposed convolutions.

    7 x 7 at both ends with reflection padding; instance norms without weights; ReLU after each residual addition.
    11.4 million weights at width 64 with nine blocks. Key names are the published ones.
    """

    def __init__(self, config: GeneratorConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width
        with torch.device("meta"):
            self.conv1 = _Convolution(nn.Conv2d(6, width, 7, padding=3, padding_mode="reflect"))
            self.conv2 = _Convolution(Convolution(width, 2 * width, 3, stride=2, padding=1))
            self.conv3 = _Convolution(Convolution(2 * width, 4 * width, 3, stride=2, padding=1))
            for number in range(1, config.blocks + 1):
                self.add_module(f"res{number}", _Residual(4 * width))
            self.deconv3 = _Transposed(4 * width, 2 * width)
            self.deconv2 = _Transposed(2 * width, width)
            last = nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect", bias=False)
            self.deconv1 = _Convolution(last, norm=False)
        _fill(self, generator)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        poses: Float[Tensor, "B 3 H W"],
        carried: Float[Tensor, "B 4 H W"] | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """As every generator; ``carried`` is not heeded."""
        x = torch.cat([images, poses], dim=1)
        for layer in (self.conv1, self.conv2, self.conv3):
            x = layer(x).relu()
        for number in range(1, self.config.blocks + 1):
            x = self.get_submodule(f"res{number}")(x)
        x = self.deconv2(self.deconv3(x).relu()).relu()
        out: Tensor = self.deconv1(x)
        return out.tanh()


class PatchDiscriminator(nn.Module):
    """PN-GAN's discriminator: five 4 x 4 convolutions, a map of scores (26 x 10 for 256 x 128).

    Three strides of 2, then two convolutions without padding; instance norms between; LeakyReLU 0.2.
    """

    def __init__(self, config: DiscriminatorConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width
        norm = not config.spectral  # an instance norm would undo the bound that spectral norm sets
        with torch.device("meta"):
            channels = 6 if config.sees_pose else 3
            for number in range(config.halvings):
                halving = nn.Conv2d(channels, width << number, 4, stride=2, padding=1, bias=number > 0)
                self.add_module(f"conv{number + 1}", _Convolution(halving, norm=norm and number > 0))
                channels = width << number
            self.add_module(f"conv{config.halvings + 1}", _Convolution(nn.Conv2d(channels, 2 * channels, 4), norm))
            last = _Convolution(nn.Conv2d(2 * channels, 1, 4, bias=False), norm=False)
            self.add_module(f"conv{config.halvings + 2}", last)
        _fill(self, generator)
        if config.spectral:
            self._bound(generator)

    def _bound(self, generator: torch.Generator | None) -> None:
        """Spectral norms, whose first vectors torch draws from its global generator: kept out of its sight."""
        seed = int(torch.randint(2**62, (), generator=generator or generator_from("spectral")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in self.children():
                parametrizations.spectral_norm(layer.get_submodule("conv"))

    def forward(
        self, images: Float[Tensor, "B 3 H W"], poses: Float[Tensor, "B 3 H W"] | None = None
    ) -> Float[Tensor, "B 1 h w"]:
        """A score a patch, unbounded: 1 is real, 0 generated."""
        x = images if poses is None else torch.cat([images, poses], dim=1)
        *layers, last = self.children()
        for layer in layers:
            x = functional.leaky_relu(layer(x), 0.2)
        out: Tensor = last(x)
        return out


class _Convolution(nn.Module):
    """Convolution, then an instance norm without weights, or none."""

    def __init__(self, conv: nn.Conv2d, norm: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.InstanceNorm2d(conv.out_channels) if norm else nn.Identity()

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        out: Tensor = self.bn(self.conv(x))
        return out


class _Residual(nn.Module):
    """Two convolutions with instance norms; ReLU between them and after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = _Convolution(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        out: Tensor = self.conv2(self.conv1(x).relu())
        return (x + out).relu()


class _Transposed(nn.Module):
    """Transposed convolution that doubles both sides, instance norm without weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.InstanceNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C h2 w2"]:
        out: Tensor = self.bn(self.deconv(x))
        return out


# ---- our own generator ---------------------------------------------------------------------------------------------


class AttentionGenerator(PoseGenerator):
    """Plans coarsely, fetches appearance by attention, paints finely.

    A convolution cannot carry a sleeve across the image in a few layers. Here every cell (8 x 8 pixels) of the
    target asks all cells of the source; what it asks for is decided by the skeleton and by a plan made from both at
    stride 16. What was fetched is painted at stride 4 beside the source's own pixels, from which the background comes.
    No norms: they would wash out a garment's absolute colour. ``width`` is the number of channels at stride 4 (twice
    and four times as many below), ``blocks`` the number of residual steps of the plan.

    Laying the painted person over the source with a learnt matte was tried: training fell into copying the source. With
    ``carry`` a matte lies over parts that are in their new place already: they keep what a network of this size cannot
    redraw, and paint mends what they cannot know.
    """

    CELL, HEADS = 4, 4

    def __init__(self, config: GeneratorConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        fine, middle, coarse = config.width, 2 * config.width, 4 * config.width
        if middle % self.HEADS:
            raise UsageError(f"an attention generator's width is even, got {fine}")
        pixels = 3 * self.CELL**2
        with torch.device("meta"):
            self.picture_fine = nn.Conv2d(pixels + 2, fine, 3, padding=1)  # two channels say where a cell lies
            self.picture_middle = nn.Sequential(Convolution(fine, middle, 3, stride=2, padding=1), _Step(middle))
            self.picture_coarse = Convolution(middle, coarse, 3, stride=2, padding=1)
            self.pose_fine = nn.Conv2d(pixels + 2, fine, 3, padding=1)
            self.pose_middle = Convolution(fine, middle, 3, stride=2, padding=1)
            self.pose_coarse = Convolution(middle, coarse, 3, stride=2, padding=1)
            self.plan = nn.Sequential(nn.Conv2d(2 * coarse, coarse, 1), *(_Step(coarse) for _ in range(config.blocks)))
            self.plan_middle = nn.Conv2d(coarse, middle, 1)
            self.context = nn.Conv2d(coarse, middle, 1)
            self.query = nn.Conv2d(middle, middle, 1)
            self.key = nn.Conv2d(middle, middle, 1)
            self.value = nn.Conv2d(middle, middle, 1)
            self.merge = nn.Conv2d(4 * middle, middle, 1)
            self.paint_middle = nn.Sequential(_Step(middle), _Step(middle))
            self.widen = nn.Conv2d(middle, 4 * fine, 3, padding=1)
            inputs = 3 * fine
            if config.carry:
                self.carried_fine = nn.Conv2d(4 * self.CELL**2, fine, 3, padding=1)
                inputs += fine
            self.paint_fine = nn.Sequential(nn.Conv2d(inputs, fine, 3, padding=1), _Step(fine))
            self.finish = nn.Conv2d(fine, pixels + config.carry * self.CELL**2, 3, padding=1)
        _fill(self, generator, he=True)
        with torch.no_grad():
            self.finish.weight.mul_(0.1)  # begin with grey, not with coloured noise

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        poses: Float[Tensor, "B 3 H W"],
        carried: Float[Tensor, "B 4 H W"] | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """As every generator; where nothing is carried, everything is painted."""
        painted, trust = self.paint(images, poses, carried)
        return lay(painted, trust, carried) if self.config.carry and carried is not None else painted

    def paint(
        self,
        images: Float[Tensor, "B 3 H W"],
        poses: Float[Tensor, "B 3 H W"],
        carried: Float[Tensor, "B 4 H W"] | None = None,
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B T H W"]]:
        """The whole image painted, and carried parts' trust in [0, 1]; T is 1 with ``carry``, else 0."""
        picture_fine = self.picture_fine(_with_places(functional.pixel_unshuffle(images, self.CELL)))  # stride 4
        pose_fine = self.pose_fine(_with_places(functional.pixel_unshuffle(poses, self.CELL)))
        image = self.picture_middle(_active(picture_fine))  # stride 8
        pose = self.pose_middle(_active(pose_fine))
        coarse = self.picture_coarse(_active(image))  # stride 16
        plan = self.plan(torch.cat([coarse, self.pose_coarse(_active(pose))], dim=1))
        plan, context = _doubled(self.plan_middle(_active(plan))), _doubled(self.context(_active(coarse)))
        fetched = self._fetch(pose + plan, image + context)
        x = self.paint_middle(self.merge(torch.cat([fetched, pose, plan, image], dim=1)))
        x = functional.pixel_shuffle(self.widen(_active(x)), 2)
        fine = [x, pose_fine, picture_fine]
        if self.config.carry:
            carried = carried if carried is not None else images.new_zeros(len(images), 4, *images.shape[2:])
            fine.append(self.carried_fine(functional.pixel_unshuffle(carried, self.CELL)))
        x = self.paint_fine(_active(torch.cat(fine, dim=1)))
        out = functional.pixel_shuffle(self.finish(_active(x)), self.CELL)
        return out[:, :3].tanh(), (out[:, 3:] + TRUST).sigmoid()

    @torch.no_grad()
    def take(self, other: "AttentionGenerator") -> None:
        """Go on from a generator of the same width and blocks that knew of no carried parts: none are heeded yet."""
        state = self.state_dict()
        for name, values in other.state_dict().items():
            rows = tuple(slice(0, side) for side in values.shape)
            state[name].zero_()
            state[name][rows] = values

    def _fetch(self, asking: Float[Tensor, "B C h w"], source: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Multi-head attention from the cells of the target to the cells of the source."""

        def heads(x: Tensor) -> Tensor:
            cells = x.shape[2] * x.shape[3]
            return x.reshape(len(x), self.HEADS, -1, cells).transpose(2, 3)  # (B, heads, cells, C / heads)

        rows = functional.scaled_dot_product_attention(
            heads(self.query(asking)), heads(self.key(source)), heads(self.value(source))
        )
        return rows.transpose(2, 3).reshape(asking.shape)


class _Step(nn.Module):
    """x + two convolutions, activated before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        out: Tensor = self.conv2(_active(self.conv1(_active(x))))
        return x + out


def _active(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.1)


def _doubled(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


def _with_places(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c h w"]:
    """Two more channels: row and column of each cell, from -1 to 1."""
    rows = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, x.shape[3], device=x.device, dtype=x.dtype)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([x, places.expand(len(x), -1, -1, -1)], dim=1)


def _fill(module: nn.Module, generator: torch.Generator | None, he: bool = False) -> None:
    """First weights of a module built on the meta device: biases 0, convolutions normal.

    Deviation 0.02, usual for networks with instance norms, or with ``he`` sqrt(2 / fan-in), and a tenth of that for
    the convolution that ends a residual step, so that without norms the signal does not grow with depth.
    """
    generator = generator if generator is not None else generator_from("initialise", 0)
    module.to_empty(device="cpu")
    endings = {id(step.conv2) for step in module.modules() if isinstance(step, _Step)}
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        fan_in = layer.weight[0].numel()
        deviation = (2 / fan_in) ** 0.5 if he else 0.02
        nn.init.normal_(layer.weight, std=0.1 * deviation if id(layer) in endings else deviation, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
