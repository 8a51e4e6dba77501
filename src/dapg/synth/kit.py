"""The MakeHuman kit as arrays: body, shape targets, rig, garments, hair, textures, backgrounds.

Formats after MakeHuman's public asset files (CC0): a ``.target`` row is ``index dx dy dz`` added to the base body; a
``.mhclo`` ties each garment vertex to one body vertex, or to three with weights and an offset. Lengths are decimetres,
y is up, the body faces +z, its left side is +x.
"""

import gzip
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from dapg.core.errors import DataError
from dapg.synth.arrays import Array

ASSETS_VARIABLE = "DAPG_SYNTH_ASSETS"
TEXTURE_SIZE = 192
WAIST = 1.0
"""Height (dm, rest body) that parts what an upper garment hides of the skin from what a lower one hides."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh whose vertices follow the body.

    Vertex i sits at ``sum_k weights[i, k] * body[anchors[i, k]] + offsets[i] * scale``; ``scales`` names, per axis,
    two body vertices and the distance between them that the offsets were made for (None: offsets as they are).
    """

    anchors: Int[Array, "V 3"]
    weights: Float[Array, "V 3"]
    offsets: Float[Array, "V 3"]
    triangles: Int[Array, "T 3"]
    uv: Float[Array, "T 3 2"]
    rest: Float[Array, "V 3"]
    """Where the vertices are on the base body: patterns are painted in these coordinates."""
    hides: Int[Array, "N"]
    """Body vertices that lie below this surface."""
    texture: str | None = None
    scales: tuple[tuple[int, int, float], ...] = ()

    def fit(self, body: Float[Array, "N 3"]) -> Float[Array, "V 3"]:
        """The vertices on a body of other shape."""
        scale = np.ones(3)
        if self.scales:
            scale = np.array([abs(body[a, k] - body[b, k]) / length for k, (a, b, length) in enumerate(self.scales)])
        return np.asarray((body[self.anchors] * self.weights[..., None]).sum(1) + self.offsets * scale)

    def part(self, keep: Bool[Array, "V"]) -> "Surface":
        """The triangles all of whose vertices are kept."""
        chosen = keep[self.triangles].all(1)
        used, triangles = np.unique(self.triangles[chosen], return_inverse=True)
        return Surface(
            self.anchors[used],
            self.weights[used],
            self.offsets[used],
            triangles.reshape(-1, 3),
            self.uv[chosen],
            self.rest[used],
            self.hides,
            self.texture,
            self.scales,
        )


@dataclass(frozen=True)
class _Obj:
    """A Wavefront file: positions, texture coordinates, triangles of both, and the group of each triangle."""

    vertices: Float[Array, "V 3"]
    coordinates: Float[Array, "U 2"]
    triangles: Int[Array, "T 3"]
    corners: Int[Array, "T 3"]
    groups: list[str]
    members: dict[str, Int[Array, "N"]] = field(default_factory=dict)


def find_kit(assets: Path | str | None) -> tuple[Path, Path]:
    """Folders of the kit and of the backgrounds below ``assets`` (or the folder that DAPG_SYNTH_ASSETS names).

    ``assets`` holds ``makehuman_cc0`` and ``backgrounds_cc0``, or is ``makehuman_cc0`` itself with the other beside.

    Raises:
        DataError: nothing given, or a file of the kit is missing.
    """
    chosen = assets or os.environ.get(ASSETS_VARIABLE)
    if not chosen:
        raise DataError(
            f"the people are rendered from the CC0 MakeHuman kit: give its folder with --assets or {ASSETS_VARIABLE}. "
            "See docs/reference/synthetic.md."
        )
    folder = Path(chosen)
    kit = folder if (folder / "base").is_dir() else folder / "makehuman_cc0"
    backgrounds = kit.parent / "backgrounds_cc0"
    for path in (kit / "base", kit / "rig", kit / "targets", kit / "clothes", kit / "hair", kit / "textures"):
        if not path.is_dir():
            raise DataError(
                f"MakeHuman kit not found under {folder}: expected the folder {path}. See docs/reference/synthetic.md."
            )
    if not any(backgrounds.glob("*.png")):
        raise DataError(f"no background panorama found: expected {backgrounds}/*.png. See docs/reference/synthetic.md.")
    return kit, backgrounds


class Kit:
    """Everything read from the kit's folder, each file once and only when asked for."""

    def __init__(self, assets: Path | str | None = None) -> None:
        """Look for the kit.

        Raises:
            DataError: see ``find_kit``.
        """
        self.folder, self._backgrounds = find_kit(assets)
        self._targets: dict[str, tuple[Int[Array, "N"], Float[Array, "N 3"]]] = {}
        self._surfaces: dict[str, Surface] = {}
        self._textures: dict[str | None, UInt8[Array, "S S 4"]] = {}
        self._panoramas: dict[str, Float[Array, "H W 3"]] = {}

    # ---- body ------------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> _Obj:
        """The base body with its helper and joint groups."""
        return self._obj("base/base.obj")

    @cached_property
    def group(self) -> dict[str, Int[Array, "N"]]:
        """Vertex numbers of each group of the base body."""
        return self.base.members

    @cached_property
    def skin(self) -> Surface:
        """The visible skin (group ``body``)."""
        return self._of_base("body")

    def helper(self, name: str) -> Surface:
        """A helper surface of the base body: ``helper-tights`` or ``helper-skirt``."""
        if name not in self._surfaces:
            self._surfaces[name] = self._of_base(name)
        return self._surfaces[name]

    def _of_base(self, group: str) -> Surface:
        base = self.base
        chosen = np.array([name == group for name in base.groups])
        used, triangles = np.unique(base.triangles[chosen], return_inverse=True)
        anchors = np.repeat(used[:, None], 3, axis=1)
        weights = np.tile([1.0, 0.0, 0.0], (len(used), 1))
        offsets = np.zeros((len(used), 3))
        uv = base.coordinates[base.corners[chosen]]
        nothing = np.zeros(0, np.int64)
        return Surface(anchors, weights, offsets, triangles.reshape(-1, 3), uv, base.vertices[used], nothing)

    def shaped(self, targets: dict[str, float]) -> Float[Array, "N 3"]:
        """The base body with weighted targets added."""
        vertices = self.base.vertices.copy()
        for name, weight in targets.items():
            index, offset = self._target(name)
            vertices[index] += weight * offset
        return vertices

    def _target(self, name: str) -> tuple[Int[Array, "N"], Float[Array, "N 3"]]:
        if name not in self._targets:
            rows = [line.split() for line in self._lines(f"targets/{name}.target") if line[:1] not in ("#", "", "\n")]
            index = np.array([int(row[0]) for row in rows], np.int64)
            offset = np.array([[float(value) for value in row[1:4]] for row in rows]).reshape(-1, 3)
            self._targets[name] = (index, offset)
        return self._targets[name]

    # ---- rig -------------------------------------------------------------------------------------------------------

    @cached_property
    def bones(self) -> dict[str, tuple[str, dict[str, object]]]:
        """Bone -> (parent or "", definition), parents first."""
        data = json.loads((self.folder / "rig/rig.game_engine.json").read_text(encoding="utf-8"))
        raw = data.get("bones", data)
        ordered: dict[str, tuple[str, dict[str, object]]] = {}

        def add(name: str) -> None:
            if name in ordered:
                return
            parent = raw[name]["parent"] or ""
            if parent:
                add(parent)
            ordered[name] = (parent, raw[name])

        for name in raw:
            add(name)
        return ordered

    def joint(self, body: Float[Array, "N 3"], bone: str, end: str = "head") -> Float[Array, "3"]:
        """Where a bone's ``head`` or ``tail`` is in a body."""
        place = self.bones[bone][1][end]
        assert isinstance(place, dict)
        if place["strategy"] == "CUBE":
            return np.asarray(body[self.group[place["cube_name"]]].mean(0))
        if place["strategy"] == "VERTEX":
            return np.asarray(body[place["vertex_index"]])
        return np.asarray(body[place["vertex_indices"]].mean(0))

    @cached_property
    def skin_weights(self) -> Float[Array, "N J"]:
        """How much each bone moves each base vertex; rows sum to one."""
        with gzip.open(self.folder / "rig/weights.game_engine.json.gz", "rt") as stream:
            raw = json.load(stream)["weights"]
        weights = np.zeros((len(self.base.vertices), len(self.bones)))
        for column, bone in enumerate(self.bones):
            for vertex, weight in raw.get(bone, []):
                weights[vertex, column] = weight
        weights[weights.sum(1) == 0, 0] = 1.0
        return np.asarray(weights / weights.sum(1, keepdims=True))

    # ---- garments --------------------------------------------------------------------------------------------------

    def garment(self, kind: str, name: str, part: str = "all") -> Surface:
        """A garment of ``clothes`` or ``hair``; ``part`` is ``upper``, ``lower`` or ``all`` of a suit."""
        key = f"{kind}/{name}/{part}"
        if key not in self._surfaces:
            whole = self._clothes(kind, name)
            self._surfaces[key] = whole if part == "all" else _half(whole, part == "upper")
        return self._surfaces[key]

    def _clothes(self, kind: str, name: str) -> Surface:
        obj = self._obj(f"{kind}/{name}.obj")
        rows: list[tuple[float, ...]] = []
        scales: dict[str, tuple[int, int, float]] = {}
        hidden: list[int] = []
        mode = ""
        for line in self._lines(f"{kind}/{name}.mhclo"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] in ("x_scale", "y_scale", "z_scale"):
                scales[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
            elif words[0] in ("verts", "delete_verts"):
                mode = words[0]
            elif mode == "verts" and words[0].lstrip("-").isdigit():
                values = tuple(float(word) for word in words)
                rows.append(values if len(values) > 1 else (values[0], 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
            elif mode == "delete_verts":
                hidden += _ranges(words)
        table = np.array(rows)
        surface = Surface(
            table[:, :3].astype(np.int64),
            table[:, 3:6],
            table[:, 6:9],
            obj.triangles,
            obj.coordinates[obj.corners],
            np.zeros((len(table), 3)),
            np.array(hidden, np.int64),
            name,
            tuple(scales[axis] for axis in "xyz") if len(scales) == 3 else (),
        )
        object.__setattr__(surface, "rest", surface.fit(self.base.vertices))
        return surface

    # ---- images --------------------------------------------------------------------------------------------------

    def texture(self, name: str | None) -> UInt8[Array, "S S 4"]:
        """RGBA texture of a garment, hair or skin, first row at v = 0; plain grey where the kit has none."""
        if name not in self._textures:
            path = self.folder / f"textures/{name}_diffuse.png"
            if not path.exists():
                path = self.folder / f"textures/{name}.png"
            size = (TEXTURE_SIZE, TEXTURE_SIZE)
            if name is None or not path.exists():
                pixels = np.full((*size, 4), 200, np.uint8)
                pixels[..., 3] = 255
            else:
                pixels = np.asarray(Image.open(path).convert("RGBA").resize(size, Image.Resampling.BOX))[::-1]
            self._textures[name] = np.ascontiguousarray(pixels)
        return self._textures[name]

    @cached_property
    def panorama_names(self) -> list[str]:
        """Names of the background panoramas, sorted."""
        return sorted(path.stem for path in self._backgrounds.glob("*.png"))

    def panorama(self, name: str) -> Float[Array, "H W 3"]:
        """A background panorama, values 0 ... 1."""
        if name not in self._panoramas:
            path = self._backgrounds / f"{name}.png"
            if not path.exists():
                raise DataError(f"background panorama not found: expected {path}. See docs/reference/synthetic.md.")
            self._panoramas[name] = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
        return self._panoramas[name]

    # ---- files -----------------------------------------------------------------------------------------------------

    def _lines(self, relative: str) -> list[str]:
        path = self.folder / f"{relative}.gz"
        if not path.exists():
            raise DataError(
                f"MakeHuman kit under {self.folder} is incomplete: expected {path}. See docs/reference/synthetic.md."
            )
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return stream.read().splitlines()

    def _obj(self, relative: str) -> _Obj:
        vertices: list[list[float]] = []
        coordinates: list[list[float]] = []
        triangles: list[tuple[int, int, int]] = []
        corners: list[tuple[int, int, int]] = []
        groups: list[str] = []
        group = ""
        for line in self._lines(relative):
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                coordinates.append([float(word) for word in words[1:3]])
            elif words[0] == "g":
                group = words[1]
            elif words[0] == "f":
                pairs = [word.split("/") for word in words[1:]]
                points = [int(pair[0]) - 1 for pair in pairs]
                textured = [int(pair[1]) - 1 if len(pair) > 1 and pair[1] else 0 for pair in pairs]
                for k in range(1, len(points) - 1):
                    triangles.append((points[0], points[k], points[k + 1]))
                    corners.append((textured[0], textured[k], textured[k + 1]))
                    groups.append(group)
        faces = np.array(triangles, np.int64)
        names = np.array(groups)
        members = {str(name): np.unique(faces[names == name]) for name in np.unique(names)}
        uv = np.array(coordinates or [[0.0, 0.0]])
        return _Obj(np.array(vertices), uv, faces, np.array(corners, np.int64), groups, members)


def _ranges(words: list[str]) -> list[int]:
    """``12 - 15 40`` -> 12, 13, 14, 15, 40."""
    numbers: list[int] = []
    i = 0
    while i < len(words):
        if i + 2 < len(words) and words[i + 1] == "-":
            numbers += range(int(words[i]), int(words[i + 2]) + 1)
            i += 3
            continue
        if words[i].isdigit():
            numbers.append(int(words[i]))
        i += 1
    return numbers


def components(count: int, triangles: Int[Array, "T 3"]) -> Int[Array, "V"]:
    """The smallest vertex number that each of ``count`` vertices is joined to by triangles."""
    label = np.arange(count)
    while True:
        lowest = label[triangles].min(1)
        new = label.copy()
        for k in range(3):
            np.minimum.at(new, triangles[:, k], lowest)
        new = new[new]  # follow the label's own label: halves the number of rounds
        if (new == label).all():
            return label
        label = new


def _half(suit: Surface, upper: bool) -> Surface:
    """Upper or lower pieces of a suit; a piece is connected, and belongs where its highest point is."""
    label = components(len(suit.rest), suit.triangles)
    keep = np.zeros(len(suit.rest), bool)
    for piece in np.unique(label):
        members = label == piece
        top = suit.rest[members, 1].max()
        bottom = suit.rest[members, 1].min()
        is_upper = bool(top > 2.5) and not bool(bottom < -5)  # dungarees reach both: a lower garment
        keep[members] = is_upper == upper
    return suit.part(keep)
