"""Cameras: how an image is framed, lit, recorded and spoiled in visible, near-infrared or thermal light."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dapg.core.errors import DataError
from dapg.synth.arrays import Array
from dapg.synth.kit import Kit
from dapg.synth.paint import Paint
from dapg.synth.poses import rotation
from dapg.synth.raster import GBuffer, Scene
from dapg.synth.wardrobe import LUMINANCE

try:
    import cv2
except ImportError as error:  # pragma: no cover - the message is what matters
    raise DataError("rendering people needs numba and opencv: pip install 'dapg[synth]'") from error

SUPERSAMPLING = 2

Light = Literal["visible", "infrared", "thermal"]


@dataclass(frozen=True)
class Camera:
    """One camera at its place. Angles in degrees, lengths in dm, brightness as factors of 0 ... 1 images."""

    number: int
    light: Light
    background: str
    elevation: float
    """How far the camera looks down."""
    distance: float = 60.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gain: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    lamp: tuple[float, float, float] = (0.3, 0.8, 0.6)
    """Direction to the main light, camera coordinates."""
    ambient: float = 0.5
    blur: float = 0.5
    """Standard deviation in pixels of an image 192 high."""
    resolution: float = 1.0
    """Recorded size as a part of the stored size."""
    noise: float = 0.01
    quality: int = 80
    """JPEG quality of the recording."""
    looseness: float = 0.06
    """Mean empty margin around the person, as a part of the height."""
    haze: float = 0.0
    horizon: float = 92.0
    """Row of the 256-row panorama at which images begin."""


SYSU_CAMERAS = (
    Camera(
        1, "visible", "lab", elevation=9.0, distance=50.0, cast=(0.94, 1.03, 0.97), saturation=0.9,
        lamp=(0.2, 0.9, 0.4), ambient=0.55, blur=0.6, resolution=0.8, noise=0.016, quality=70, looseness=0.04,
    ),
    Camera(
        2, "visible", "lobby", elevation=14.0, distance=45.0, cast=(1.10, 1.0, 0.87), gain=0.95, gamma=0.93,
        saturation=0.95, lamp=(-0.5, 0.8, 0.5), ambient=0.6, blur=0.4, noise=0.012, looseness=0.06,
    ),
    Camera(
        3, "infrared", "lobby", elevation=12.0, distance=45.0, gain=1.15, gamma=0.85, blur=0.7, resolution=0.9,
        noise=0.02, quality=70, looseness=0.05,
    ),
    Camera(
        4, "visible", "park", elevation=5.0, distance=90.0, cast=(0.92, 0.99, 1.10), gain=1.08, gamma=1.1,
        saturation=1.05, lamp=(0.8, 0.6, 0.2), ambient=0.38, blur=0.5, resolution=0.7, noise=0.012, quality=60,
        looseness=0.08,
    ),
    Camera(
        5, "visible", "city", elevation=20.0, distance=70.0, cast=(1.03, 0.96, 1.03), gain=0.82, gamma=0.88,
        saturation=0.82, lamp=(-0.2, 0.9, -0.1), ambient=0.65, blur=0.8, resolution=0.6, noise=0.022, quality=55,
        looseness=0.05, haze=0.05,
    ),
    Camera(
        6, "infrared", "bridge", elevation=17.0, gain=1.0, gamma=0.9, blur=0.8, resolution=0.75, noise=0.028,
        quality=60, looseness=0.07,
    ),
)  # fmt: skip
"""SYSU-MM01's six: 1, 2 visible indoors, 3 infrared in the room of 2; 4, 5 visible and 6 infrared outside."""

REGDB_CAMERAS = (
    Camera(
        1, "visible", "esplanade", elevation=8.0, distance=80.0, cast=(1.02, 1.0, 0.97), saturation=0.95,
        lamp=(0.5, 0.7, 0.5), resolution=0.7, noise=0.014,
    ),
    Camera(
        2, "thermal", "esplanade", elevation=8.0, distance=80.0, blur=1.6, resolution=0.5, noise=0.012, quality=85
    ),
)  # fmt: skip
"""RegDB's pair: one visible and one thermal camera side by side."""


def draw_street_camera(generator: np.random.Generator, kit: Kit) -> Camera:
    """A visible camera somewhere, for unlabelled images."""
    draw = generator.uniform
    cast = np.clip(1 + generator.normal(0, 0.10, 3), 0.7, 1.35)
    return Camera(
        0,
        "visible",
        kit.panorama_names[int(generator.integers(len(kit.panorama_names)))],
        float(draw(3, 22)),
        float(draw(40, 100)),
        (float(cast[0]), float(cast[1]), float(cast[2])),
        float(draw(0.72, 1.15)),
        float(draw(0.82, 1.2)),
        float(draw(0.65, 1.1)),
        (float(draw(-1, 1)), float(draw(0.3, 1)), float(draw(-0.2, 0.8))),
        float(draw(0.38, 0.65)),
        float(draw(0.3, 0.9)),
        float(draw(0.55, 1.0)),
        float(draw(0.006, 0.025)),
        int(generator.integers(50, 90)),
        float(draw(0.03, 0.1)),
        float(draw(0, 0.1)),
        float(draw(75, 110)),
    )


@dataclass(frozen=True)
class View:
    """How one image is taken: where the person is turned to, and how they lie in the image."""

    yaw: float
    elevation: float
    distance: float
    fill: float
    """Height of the person against the height of the image."""
    shift: tuple[float, float]
    """Middle of the person against the middle of the image, as parts of its width and height."""
    stretch: float = 1.0
    """Width against height, as crops of other shape are resized."""
    light: float = 1.0
    place: float = 0.0
    """Column of the panorama behind the person."""
    occluder: tuple[str, float] = ("none", 0.0)
    """``bottom``, ``left`` or ``right`` and the part of the image it covers."""


def draw_view(generator: np.random.Generator, camera: Camera, yaw: float, light: float, place: float) -> View:
    """Framing of one image around a track's direction, light and place."""
    draw = generator.uniform
    margin = max(0.01, camera.looseness + float(generator.normal(0, 0.03)))
    fill, shift = 1 - 2 * margin, (float(generator.normal(0, 0.05)), float(generator.normal(0, 0.012)))
    chance = generator.random()
    if chance < 0.10:  # the feet are cut off
        fill = float(draw(1.08, 1.3))
        shift = (shift[0], (fill - 1) / 2 + 0.02)
    elif chance < 0.13:  # the head is
        fill = float(draw(1.02, 1.12))
        shift = (shift[0], -(fill - 1) / 2 - 0.01)
    occluder = ("none", 0.0)
    if generator.random() < 0.14:
        side = str(generator.choice(["bottom", "bottom", "left", "right"]))
        occluder = (side, float(draw(0.15, 0.36)))
    return View(
        yaw % 360,
        camera.elevation + float(generator.normal(0, 2)),
        camera.distance * float(draw(0.85, 1.15)),
        fill,
        shift,
        float(draw(1.0, 1.2)),  # boxes are narrower than 1 : 2, and are widened to it
        light * float(draw(0.93, 1.07)),
        place + float(generator.normal(0, 12)),
        occluder,
    )


def canonical_view(yaw: float) -> View:
    """Level, centred, whole."""
    return View(yaw, 4.0, 80.0, 0.92, (0.0, 0.0))


@dataclass(frozen=True)
class Projection:
    """From posed body coordinates (dm) to pixels of an image of a given height."""

    turn: Float[Array, "3 3"]
    centre: Float[Array, "3"]
    distance: float
    scale: tuple[float, float]
    """Pixels a dm, across and down."""
    origin: tuple[float, float]

    def __call__(self, points: Float[Array, "N 3"]) -> Float[Array, "N 3"]:
        """Column, row, and depth towards the camera (dm)."""
        seen = (points - self.centre) @ self.turn.T
        near = self.distance / (self.distance - seen[:, 2])
        column = self.origin[0] + seen[:, 0] * near * self.scale[0]
        row = self.origin[1] - seen[:, 1] * near * self.scale[1]
        return np.stack([column, row, seen[:, 2]], axis=1)


def project(scene: Scene, drawn: Array, view: View, height: int, width: int) -> Projection:
    """The projection that puts the drawn vertices of a scene where a view wants them."""
    points = scene.vertices[drawn].astype(np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    turn = rotation("x", view.elevation) @ rotation("y", view.yaw)
    start = Projection(turn, centre, view.distance, (1.0, 1.0), (0.0, 0.0))
    flat = start(points)
    low, high = flat.min(0), flat.max(0)
    scale = height * view.fill / (high[1] - low[1])
    across = scale * view.stretch
    middle = (low + high) / 2
    origin = (width * (0.5 + view.shift[0]) - middle[0] * across, height * (0.5 + view.shift[1]) - middle[1] * scale)
    return replace(start, scale=(float(across), float(scale)), origin=(float(origin[0]), float(origin[1])))


def background(kit: Kit, camera: Camera, view: View, height: int, width: int) -> Float32[Array, "H W 3"]:
    """The stretch of the camera's panorama behind the person."""
    panorama = kit.panorama(camera.background)
    rows = 120
    columns = round(rows * width / height)
    top = int(min(max(camera.horizon + (view.elevation - camera.elevation), 0), panorama.shape[0] - rows))
    across = (int(view.place) + np.arange(columns)) % panorama.shape[1]
    window = np.ascontiguousarray(panorama[top : top + rows][:, across])
    return np.asarray(cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def occlusion(view: View, height: int, width: int) -> Bool[Array, "H W"]:
    """Pixels covered by the thing in front of the person."""
    covered = np.zeros((height, width), bool)
    side, part = view.occluder
    if side == "bottom":
        covered[round(height * (1 - part)) :] = True
    elif side == "left":
        covered[:, : round(width * part)] = True
    elif side == "right":
        covered[:, round(width * (1 - part)) :] = True
    return covered


def expose(
    kit: Kit,
    camera: Camera,
    view: View,
    buffer: GBuffer,
    looks: Paint,
    turn: Float[Array, "3 3"],
    generator: np.random.Generator,
) -> UInt8[Array, "h w 3"]:
    """The recorded image, smaller than the G-buffer by ``SUPERSAMPLING``."""
    height, width = (side // SUPERSAMPLING for side in buffer.mask.shape)
    behind = background(kit, camera, view, *buffer.mask.shape)
    normals = buffer.normals @ turn.T.astype(np.float32)
    image = {"visible": _visible, "infrared": _infrared, "thermal": _thermal}[camera.light](
        camera, view, buffer, looks, normals, behind
    )
    covered = occlusion(view, *buffer.mask.shape)
    if covered.any():
        image[covered] = _occluder(kit, camera, view, generator, *covered.shape)[covered]
    return _record(camera, image, generator, height, width)


def _visible(
    camera: Camera,
    view: View,
    buffer: GBuffer,
    looks: Paint,
    normals: Float32[Array, "N 3"],
    behind: Float32[Array, "H W 3"],
) -> Float32[Array, "H W 3"]:
    lamp = np.array(camera.lamp, np.float32)
    lamp /= np.linalg.norm(lamp)
    # Half-Lambert: light wraps around the body as it does under an open sky.
    shade = camera.ambient + (1.15 - camera.ambient) * (0.5 + 0.5 * normals @ lamp) ** 1.5
    image = behind * _contact_shadow(buffer.mask, 0.45)[..., None]
    image[buffer.mask] = looks.visible * shade[:, None]
    grey = image @ LUMINANCE
    image = grey[..., None] + (image - grey[..., None]) * camera.saturation
    image = image * (np.array(camera.cast, np.float32) * camera.gain * view.light)
    return np.asarray(image * (1 - camera.haze) + camera.haze * 0.7, np.float32)


def _infrared(
    camera: Camera,
    view: View,
    buffer: GBuffer,
    looks: Paint,
    normals: Float32[Array, "N 3"],
    behind: Float32[Array, "H W 3"],
) -> Float32[Array, "H W 3"]:
    """Lit from the camera: what is near and faces it is bright, the room behind fades."""
    height, width = buffer.mask.shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    falloff = np.exp(-0.35 * ((rows + 0.1) ** 2 + 0.6 * columns**2))
    image = 0.07 + 0.33 * (behind @ LUMINANCE) * _contact_shadow(buffer.mask, 0.3)
    image[buffer.mask] = looks.infrared * (0.35 + 0.65 * np.clip(normals[:, 2], 0, 1))
    image = image * falloff * (camera.gain * view.light**2)
    return np.repeat(image[..., None], 3, axis=2).astype(np.float32)


def _thermal(
    camera: Camera,
    view: View,
    buffer: GBuffer,
    looks: Paint,
    normals: Float32[Array, "N 3"],
    behind: Float32[Array, "H W 3"],
) -> Float32[Array, "H W 3"]:
    """Heat over an ambient of little contrast."""
    image = 0.12 + 0.14 * (behind @ LUMINANCE)
    image[buffer.mask] = looks.heat * (0.8 + 0.2 * np.clip(normals[:, 2], 0, 1))
    image = image * camera.gain * view.light
    return np.repeat(image[..., None], 3, axis=2).astype(np.float32)


def _contact_shadow(mask: Bool[Array, "H W"], strength: float) -> Float32[Array, "H W"]:
    """A soft dark ellipse where the person meets the ground; 1 where nothing is darkened."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    if not len(rows) or rows.max() >= height - 2:
        return np.ones((height, width), np.float32)
    bottom = rows.max()
    feet = columns[rows > bottom - 0.04 * height]
    across = (np.arange(width, dtype=np.float32)[None] - feet.mean()) / (0.5 * np.ptp(feet) + 0.08 * height)
    down = (np.arange(height, dtype=np.float32)[:, None] - (bottom - 0.012 * height)) / (0.035 * height)
    return np.asarray(1 - strength * np.exp(-(across**2 + down**2)), np.float32)


def _occluder(
    kit: Kit, camera: Camera, view: View, generator: np.random.Generator, height: int, width: int
) -> Float32[Array, "H W 3"]:
    """Something near and out of focus, as a desk, a hedge or a pillar: a patch of the panorama's lower half."""
    panorama = kit.panorama(camera.background)
    row, column = int(generator.integers(120, 190)), int(generator.integers(panorama.shape[1] - 30))
    patch = np.ascontiguousarray(panorama[row : row + 60, column : column + 30])
    patch = cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC)
    patch = np.clip(patch, 0, 1) * np.float32(generator.uniform(0.4, 1.0))
    if camera.light != "visible":
        patch = np.repeat((patch @ LUMINANCE)[..., None] * np.float32(0.7), 3, axis=2)
    return np.asarray(patch * (np.array(camera.cast, np.float32) * camera.gain * view.light), np.float32)


def _record(
    camera: Camera, image: Float32[Array, "H W 3"], generator: np.random.Generator, height: int, width: int
) -> UInt8[Array, "h w 3"]:
    """Lens, sensor and compression."""
    size = (max(8, round(width * camera.resolution)), max(16, round(height * camera.resolution)))
    small = cv2.resize(np.clip(image, 0, 1), size, interpolation=cv2.INTER_AREA)
    sigma = camera.blur * camera.resolution * height / 192
    if sigma > 0.15:
        small = cv2.GaussianBlur(small, (0, 0), sigma)
    small = np.clip(small, 0, 1) ** camera.gamma
    channels = 3 if camera.light == "visible" else 1
    noise = generator.standard_normal((size[1], size[0], channels), np.float32) * camera.noise
    grain = (np.clip(small + noise * (0.6 + 0.8 * np.sqrt(small)), 0, 1) * 255 + 0.5).astype(np.uint8)
    _, code = cv2.imencode(".jpg", grain[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    recorded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1]
    full = (
        recorded if size == (width, height) else cv2.resize(recorded, (width, height), interpolation=cv2.INTER_LINEAR)
    )
    if camera.light != "visible":  # exactly grey, though stored with three channels
        full = np.repeat(full[..., 1:2], 3, axis=2)
    return np.ascontiguousarray(full)
