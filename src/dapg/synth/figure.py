"""A person as surfaces: the shaped body, what it wears, and the scene it makes in a pose."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from dapg.synth.arrays import Array
from dapg.synth.kit import WAIST, Kit, Surface
from dapg.synth.poses import Pose, Skeleton
from dapg.synth.raster import Scene, skin, vertex_normals
from dapg.synth.wardrobe import LOWERS, LUMINANCE, UPPERS, Person

BONES_PER_VERTEX = 4


@dataclass(frozen=True)
class Layer:
    """One surface of a person in the rest pose, ready to be moved."""

    material: str
    vertices: Float[Array, "V 3"]
    rest: Float[Array, "V 3"]
    clip: Float[Array, "V"]
    triangles: Int[Array, "T 3"]
    uv: Float[Array, "T 3 2"]
    bones: Int[Array, "V K"]
    weights: Float[Array, "V K"]
    bias: float
    texture: str | None = None
    see_through: bool = False


class Figure:
    """Geometry of one person, shared by all images of them."""

    def __init__(self, kit: Kit, person: Person) -> None:
        """Shape the body and dress it."""
        self._kit = kit
        self.person = person
        self.body = kit.shaped(person.targets)
        self.skeleton = Skeleton(kit, self.body)
        self._hidden = np.zeros(len(self.body), bool)
        self.layers: list[Layer] = []
        self._lower()
        self._upper()
        shoes = kit.garment("clothes", person.shoes.cut)
        self._surface("shoes", shoes, 0.06)
        self._hidden[shoes.hides] = True
        self._head()
        self._bag()
        self._skin()
        self.materials = [layer.material for layer in self.layers]
        self._stack()

    # ---- dressing --------------------------------------------------------------------------------------------------

    def _lower(self) -> None:
        garment = self.person.lower
        source, _, _ = LOWERS[garment.cut]
        if source == "helper-skirt":
            surface = self._kit.helper(source)
            self._surface("lower", surface, 0.06, clip=surface.rest[:, 1] - garment.hem, inflate=0.05)
            return
        surface = self._kit.garment("clothes", source, "lower")
        over = garment.cut == "dungarees"
        self._surface("lower", surface, 0.16 if over else 0.04, clip=surface.rest[:, 1] - garment.hem)
        hidden = surface.hides[(self._kit.base.vertices[surface.hides, 1] <= (9 if over else WAIST))]
        self._hidden[hidden[self._kit.base.vertices[hidden, 1] > garment.hem + 0.4]] = True

    def _upper(self) -> None:
        garment = self.person.upper
        source, _, _ = UPPERS[garment.cut]
        if source == "helper-tights":
            if garment.cut == "vest":
                self._kit_upper("under", "male_casualsuit02", 9.0)
            self._tailored()
            return
        self._kit_upper("upper", source, garment.sleeve)

    def _kit_upper(self, material: str, source: str, sleeve: float) -> None:
        surface = self._kit.garment("clothes", source, "upper")
        self._surface(material, surface, 0.10, clip=sleeve - np.abs(surface.rest[:, 0]))
        place = self._kit.base.vertices[surface.hides]
        self._hidden[surface.hides[(place[:, 1] > WAIST) & (np.abs(place[:, 0]) < sleeve - 0.3)]] = True

    def _tailored(self) -> None:
        """Coat and vest, cut from the body's helper surfaces and let out a little."""
        garment = self.person.upper
        tights = self._kit.helper("helper-tights")
        x, y = np.abs(tights.rest[:, 0]), tights.rest[:, 1]
        clip = np.minimum(np.minimum(y - 0.15, 5.72 - y), min(garment.sleeve, 4.2) - x)
        self._surface("upper", tights, 0.45 if garment.cut == "vest" else 0.17, clip=clip, inflate=0.17)
        if garment.cut == "coat":
            skirt = self._kit.helper("helper-skirt")
            clip = np.minimum(skirt.rest[:, 1] - garment.hem, 1.6 - skirt.rest[:, 1])
            self._surface("upper", skirt, 0.15, clip=clip, inflate=0.16)

    def _head(self) -> None:
        person = self.person
        head = self.skeleton.head("head")
        skin_points = self.body[self._kit.group["body"]]
        crown = skin_points[skin_points[:, 1] > head[1] + 0.5]
        top, half = crown[:, 1].max(), (crown.max(0) - crown.min(0)) / 2
        middle = np.array([0.0, top, (crown[:, 2].max() + crown[:, 2].min()) / 2])
        line = top - 0.72
        if person.hair.cut != "bald":
            surface = self._kit.garment("hair", person.hair.cut)
            clip = None
            if person.hat.cut != "none":
                offset = (
                    self.body[self._kit.group["body"], 1].max()
                    - self._kit.base.vertices[:, 1][self._kit.group["body"]].max()
                )
                clip = line + 0.2 - offset - surface.rest[:, 1]
            self._surface("hair", surface, 0.2, clip=clip, see_through=True)
            self._hidden[surface.hides] = True
        if person.hat.cut != "none":
            deep = 0.95 if person.hat.cut == "beanie" else 0.72
            centre = middle - [0, deep, 0]
            size = np.array([half[0] + 0.17, deep + 0.22, half[2] + 0.2])
            vertices, triangles = _ball(centre, size, lowest=-0.05)
            self._rigid("hat", vertices, triangles, "head", 0.3)
            brim = {"cap": (0.0, 0.55), "brimmed hat": (0.75, 0.75), "beanie": None}[person.hat.cut]
            if brim is not None:
                around, front = brim
                size = np.array([half[0] + (around or 0.1), 0.07, half[2] + front])
                vertices, triangles = _ball(centre + np.array([0, 0.05, 0.0 if around else 0.55]), size)
                self._rigid("hat", vertices, triangles, "head", 0.3)
        if person.scarf.cut != "none":
            neck = self.skeleton.head("neck_01")
            vertices, triangles = _ring(neck + np.array([0, 0.15, 0.12]), 0.78, 0.30)
            self._rigid("scarf", vertices, triangles, "spine_03", 0.15)
            vertices, triangles = _ball(neck + np.array([0.35, -1.3, 1.15]), np.array([0.3, 1.3, 0.14]))
            self._rigid("scarf", vertices, triangles, "spine_03", 0.25)

    def _bag(self) -> None:
        cut = self.person.bag.cut
        if cut == "backpack":
            back = self.body[self._kit.group["helper-tights"]]
            level = back[np.abs(back[:, 1] - 3.6) < 0.5]
            centre = np.array([0.0, 3.3, level[:, 2].min() - 0.55])
            vertices, triangles = _ball(centre, np.array([1.35, 1.85, 0.75]), square=0.45)
            self._rigid("bag", vertices, triangles, "spine_02", 0.05)
        elif cut == "shoulder bag":
            hip = self.skeleton.head("thigh_r")
            vertices, triangles = _ball(hip + np.array([-1.25, 0.1, 0.2]), np.array([0.42, 0.85, 1.15]), square=0.4)
            self._rigid("bag", vertices, triangles, "pelvis", 0.05)
        elif cut == "hand bag":
            hand = self.skeleton.head("hand_r")
            along = hand - self.skeleton.head("lowerarm_r")
            centre = hand + along / np.linalg.norm(along) * 1.9
            vertices, triangles = _ball(centre, np.array([0.40, 0.80, 1.0]), square=0.3)
            self._rigid("bag", vertices, triangles, "hand_r", 0.05)

    def _skin(self) -> None:
        surface = self._kit.skin
        keep = ~self._hidden[surface.anchors[:, 0]]
        self._surface("skin", replace(surface.part(keep), texture=self.person.skin), 0.0)

    # ---- surfaces --------------------------------------------------------------------------------------------------

    def _surface(
        self,
        material: str,
        surface: Surface,
        bias: float,
        clip: Float[Array, "V"] | None = None,
        inflate: float = 0.0,
        see_through: bool = False,
    ) -> None:
        vertices = surface.fit(self.body)
        if inflate:
            vertices = vertices + inflate * vertex_normals(vertices, surface.triangles)
        mixed = (self._kit.skin_weights[surface.anchors] * surface.weights[..., None]).sum(1).clip(0)
        bones = np.argsort(-mixed, axis=1, kind="stable")[:, :BONES_PER_VERTEX]
        weights = np.take_along_axis(mixed, bones, 1)
        self.layers.append(
            Layer(
                material,
                vertices,
                surface.rest,
                np.ones(len(vertices)) if clip is None else clip,
                surface.triangles,
                surface.uv,
                bones,
                weights / weights.sum(1, keepdims=True),
                bias,
                surface.texture,
                see_through,
            )
        )

    def _rigid(
        self, material: str, vertices: Float[Array, "V 3"], triangles: Int[Array, "T 3"], bone: str, bias: float
    ) -> None:
        """A surface that hangs on one bone."""
        bones = np.zeros((len(vertices), BONES_PER_VERTEX), np.int64)
        bones[:, 0] = self.skeleton.bones.index(bone)
        weights = np.zeros((len(vertices), BONES_PER_VERTEX))
        weights[:, 0] = 1.0
        uv = np.zeros((len(triangles), 3, 2))
        clip = np.ones(len(vertices))
        self.layers.append(Layer(material, vertices, vertices, clip, triangles, uv, bones, weights, bias))

    def _stack(self) -> None:
        """All layers one after the other, in the types the rasteriser takes."""
        starts = np.cumsum([0] + [len(layer.vertices) for layer in self.layers])
        self._vertices = np.concatenate([layer.vertices for layer in self.layers])
        self._bones = np.concatenate([layer.bones for layer in self.layers])
        self._weights = np.concatenate([layer.weights for layer in self.layers])
        self._triangles = np.concatenate(
            [layer.triangles + start for layer, start in zip(self.layers, starts, strict=False)]
        )
        self._rest = np.concatenate([layer.rest for layer in self.layers]).astype(np.float32)
        self._clip = np.concatenate([layer.clip for layer in self.layers]).astype(np.float32)
        self._uv = np.concatenate([layer.uv for layer in self.layers]).astype(np.float32) % 1.0
        self._number = np.repeat(np.arange(len(self.layers)), [len(layer.triangles) for layer in self.layers])
        self._bias = np.array([layer.bias for layer in self.layers], np.float32)
        self._see_through: Bool[Array, "S"] = np.array([layer.see_through for layer in self.layers])
        self._textures = np.stack([self._kit.texture(layer.texture) for layer in self.layers])
        self.texture_mean: Float32[Array, "S"] = np.array(
            [_typical(texture, layer.uv) for texture, layer in zip(self._textures, self.layers, strict=True)],
            np.float32,
        )
        drawn = self._clip[self._triangles].max(1) >= 0
        self.drawn = np.unique(self._triangles[drawn])
        """Vertices of what can be seen: their extent is the person's box."""

    def posed(self, pose: Pose) -> tuple[Scene, Float[Array, "18 3"]]:
        """The scene in a pose, and the key points in it (dm, y up, facing +z)."""
        transforms = self.skeleton.transforms(pose)
        vertices = skin(self._vertices, self._bones, self._weights, transforms)
        normals = vertex_normals(vertices, self._triangles)
        scene = Scene(
            vertices.astype(np.float32),
            normals.astype(np.float32),
            self._rest,
            self._clip,
            self._triangles,
            self._uv,
            self._number,
            self._bias,
            self._see_through,
            self._textures,
        )
        return scene, self.skeleton.key_points(transforms)


def _typical(texture: Array, uv: Float[Array, "T 3 2"]) -> float:
    """Median luminance of a texture where the triangles use it, 0.08 at least."""
    size = texture.shape[0]
    place = (uv.mean(1) % 1.0 * (size - 1)).astype(np.int64)
    texels = texture[place[:, 1], place[:, 0], :3] / 255.0
    return max(float(np.median(texels @ LUMINANCE)), 0.08)


def _ball(
    centre: Float[Array, "3"], size: Float[Array, "3"], lowest: float = -1.0, square: float = 1.0
) -> tuple[Float[Array, "V 3"], Int[Array, "T 3"]]:
    """A superellipsoid: ``square`` 1 is an ellipsoid, towards 0 a box; cut off below ``lowest`` (-1 ... 1)."""
    rows, columns = 12, 20
    latitude = np.linspace(np.arcsin(max(lowest, -1.0)), np.pi / 2, rows)[:, None]
    longitude = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]

    def power(value: Float[Array, "..."]) -> Float[Array, "..."]:
        return np.asarray(np.sign(value) * np.abs(value) ** square)

    flat = power(np.cos(latitude))
    points = np.stack(
        [
            flat * power(np.cos(longitude)),
            power(np.sin(latitude)) * np.ones_like(longitude),
            flat * power(np.sin(longitude)),
        ],
        axis=-1,
    )
    return points.reshape(-1, 3) * size + centre, _grid(rows, columns)


def _ring(centre: Float[Array, "3"], radius: float, thickness: float) -> tuple[Float[Array, "V 3"], Int[Array, "T 3"]]:
    """A torus that lies flat, a little lower in front."""
    rows, columns = 9, 24
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    across = np.linspace(0, 2 * np.pi, rows)[:, None]
    distance = radius + thickness * np.cos(across)
    height = 1.2 * thickness * np.sin(across) - 0.25 * np.sin(around)
    points = np.stack([distance * np.cos(around), height, distance * np.sin(around)], axis=-1)
    return points.reshape(-1, 3) + centre, _grid(rows, columns)


def _grid(rows: int, columns: int) -> Int[Array, "T 3"]:
    """Triangles of a grid of vertices that closes over its columns; they face outwards."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
