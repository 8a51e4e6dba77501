"""Geometry to a G-buffer: which surface each pixel sees, and its texture, normal and rest position there.

One pass of a plain z-buffer over all triangles of a person, compiled by numba. What the pixel looks like in a camera is
painted later, from the buffer; masks, part labels and visible key points come with it for nothing.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from dapg.core.errors import DataError
from dapg.synth.arrays import Array

try:
    import numba
except ImportError as error:  # pragma: no cover - the message is what matters
    raise DataError("rendering people needs numba and opencv: pip install 'dapg[synth]'") from error


@dataclass(frozen=True)
class Scene:
    """All surfaces of one posed person, one after the other."""

    vertices: Float32[Array, "V 3"]
    normals: Float32[Array, "V 3"]
    rest: Float32[Array, "V 3"]
    clip: Float32[Array, "V"]
    """A pixel is dropped where this, interpolated, is negative: hems and sleeve ends."""
    triangles: Int[Array, "T 3"]
    uv: Float32[Array, "T 3 2"]
    surface: Int[Array, "T"]
    """Number of the surface a triangle belongs to."""
    bias: Float32[Array, "S"]
    """How far (dm) a surface is moved to the camera, so that outer layers hide inner ones."""
    see_through: Bool[Array, "S"]
    """Surfaces whose texture has holes (hair)."""
    textures: UInt8[Array, "S R R 4"]


@dataclass(frozen=True)
class GBuffer:
    """What the camera sees, one row per covered pixel (N of them), in image order."""

    mask: Bool[Array, "H W"]
    surface: Int[Array, "N"]
    colour: Float32[Array, "N 3"]
    normals: Float32[Array, "N 3"]
    rest: Float32[Array, "N 3"]
    depth: Float32[Array, "H W"]
    """Towards the camera, in dm from the middle of the body; -1e9 where nothing is."""


@numba.njit(cache=True)
@no_type_check
def _skin(rest, index, weight, transforms, out):
    for v in range(rest.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        a = 0.0
        b = 0.0
        c = 0.0
        for k in range(index.shape[1]):
            w = weight[v, k]
            if w == 0.0:
                continue
            m = transforms[index[v, k]]
            a += w * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3])
            b += w * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3])
            c += w * (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
        out[v, 0] = a
        out[v, 1] = b
        out[v, 2] = c


def skin(
    rest: Float[Array, "V 3"],
    index: Int[Array, "V K"],
    weight: Float[Array, "V K"],
    transforms: Float[Array, "J 4 4"],
) -> Float[Array, "V 3"]:
    """Linear blend skinning: each vertex moves by the weighted mean of its bones' transforms."""
    out = np.empty_like(rest)
    _skin(rest, index, weight, transforms, out)
    return out


@numba.njit(cache=True)
@no_type_check
def _normals(vertices, triangles, out):
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
        bx, by, bz = vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1], vertices[k, 2] - vertices[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for c in range(3):
            v = triangles[t, c]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(out.shape[0]):
        length = (out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2) ** 0.5 + 1e-12
        out[v, 0] /= length
        out[v, 1] /= length
        out[v, 2] /= length


def vertex_normals(vertices: Float[Array, "V 3"], triangles: Int[Array, "T 3"]) -> Float[Array, "V 3"]:
    """Unit normals of the vertices, triangles weighted by area."""
    out = np.zeros_like(vertices)
    _normals(vertices, triangles, out)
    return out


@numba.njit(cache=True)
@no_type_check
def _raster(points, triangles, uv, surface, bias, clip, see_through, textures, depth, owner, weights):
    height, width = depth.shape
    size = textures.shape[1]
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if clip[i] < 0 and clip[j] < 0 and clip[k] < 0:
            continue
        x0, y0, z0 = points[i, 0], points[i, 1], points[i, 2]
        x1, y1, z1 = points[j, 0], points[j, 1], points[j, 2]
        x2, y2, z2 = points[k, 0], points[k, 1], points[k, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        s = surface[t]
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                px = column + 0.5
                py = row + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
                b0 = 1.0 - b1 - b2
                if b0 < 0 or b1 < 0 or b2 < 0:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2 + bias[s]
                if z < depth[row, column]:
                    continue
                if b0 * clip[i] + b1 * clip[j] + b2 * clip[k] < 0:
                    continue
                if see_through[s]:
                    u = b0 * uv[t, 0, 0] + b1 * uv[t, 1, 0] + b2 * uv[t, 2, 0]
                    v = b0 * uv[t, 0, 1] + b1 * uv[t, 1, 1] + b2 * uv[t, 2, 1]
                    if textures[s, int(v * (size - 1)) % size, int(u * (size - 1)) % size, 3] < 90:
                        continue
                depth[row, column] = z
                owner[row, column] = t
                weights[row, column, 0] = b0
                weights[row, column, 1] = b1
                weights[row, column, 2] = b2


@numba.njit(cache=True)
@no_type_check
def _gather(owner, weights, triangles, uv, surface, textures, normals, rest, out_s, out_c, out_n, out_r):
    size = textures.shape[1]
    n = 0
    for row in range(owner.shape[0]):
        for column in range(owner.shape[1]):
            t = owner[row, column]
            if t < 0:
                continue
            s = surface[t]
            out_s[n] = s
            u = 0.0
            v = 0.0
            for c in range(3):
                w = weights[row, column, c]
                u += w * uv[t, c, 0]
                v += w * uv[t, c, 1]
                p = triangles[t, c]
                for axis in range(3):
                    out_n[n, axis] += w * normals[p, axis]
                    out_r[n, axis] += w * rest[p, axis]
            ty = int(v * (size - 1)) % size
            tx = int(u * (size - 1)) % size
            for axis in range(3):
                out_c[n, axis] = textures[s, ty, tx, axis] / 255.0
            n += 1


def rasterise(scene: Scene, points: Float32[Array, "V 3"], height: int, width: int) -> GBuffer:
    """Z-buffer of a scene.

    ``points`` are column, row (pixels) and depth towards the camera (dm) of each vertex; the image has ``height``
    rows and ``width`` columns.
    """
    depth = np.full((height, width), -1e9, np.float32)
    owner = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    _raster(
        points,
        scene.triangles,
        scene.uv,
        scene.surface,
        scene.bias,
        scene.clip,
        scene.see_through,
        scene.textures,
        depth,
        owner,
        weights,
    )
    mask = owner >= 0
    count = int(mask.sum())
    number = np.zeros(count, np.int64)
    colour = np.zeros((count, 3), np.float32)
    normals = np.zeros((count, 3), np.float32)
    rest = np.zeros((count, 3), np.float32)
    _gather(
        owner,
        weights,
        scene.triangles,
        scene.uv,
        scene.surface,
        scene.textures,
        scene.normals,
        scene.rest,
        number,
        colour,
        normals,
        rest,
    )
    return GBuffer(mask, number, colour, normals, rest, depth)
