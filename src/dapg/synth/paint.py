"""From a G-buffer to material: visible albedo, near-infrared reflectance and heat of each covered pixel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from dapg.synth.arrays import Array
from dapg.synth.figure import Figure
from dapg.synth.raster import GBuffer
from dapg.synth.wardrobe import LUMINANCE, Garment, Person


@dataclass(frozen=True)
class Paint:
    """Looks of the covered pixels of a G-buffer, in its order, all 0 ... 1."""

    visible: Float32[Array, "N 3"]
    infrared: Float32[Array, "N"]
    heat: Float32[Array, "N"]


def paint(figure: Figure, buffer: GBuffer) -> Paint:
    """Colour every covered pixel of a figure."""
    person = figure.person
    count = len(buffer.surface)
    visible = np.zeros((count, 3), np.float32)
    infrared = np.zeros(count, np.float32)
    heat = np.zeros(count, np.float32)
    luminance = buffer.colour @ LUMINANCE
    for number, material in enumerate(figure.materials):
        chosen = np.flatnonzero(buffer.surface == number)
        if not len(chosen):
            continue
        place = buffer.rest[chosen]
        if material == "skin":
            visible[chosen] = buffer.colour[chosen]
            relative = luminance[chosen] / figure.texture_mean[number]
            infrared[chosen] = person.skin_reflectance * np.clip(0.75 + 0.25 * relative, 0.5, 1.2)
            heat[chosen] = 0.92
            continue
        garment = _garment(person, material)
        detail = np.clip((luminance[chosen] / figure.texture_mean[number]) ** 0.7, 0.45, 1.6)
        if figure.layers[number].texture is None or material == "hair":
            detail = detail * _weave(place, garment)
        second = pattern(place, garment, material)
        visible[chosen] = np.where(second[:, None], garment.second_colour, garment.colour) * detail[:, None]
        reflected = np.where(second, garment.second_reflectance, garment.reflectance)
        infrared[chosen] = reflected * detail**0.6
        heat[chosen] = 0.25 + 0.4 * garment.warmth - 0.06 * second
        if material in ("upper", "under"):
            strap = _strap(place, person.bag.cut)
            visible[chosen[strap]] = person.bag.colour
            infrared[chosen[strap]] = person.bag.reflectance
    return Paint(np.clip(visible, 0, 1), np.clip(infrared, 0, 1), np.clip(heat, 0, 1))


def _garment(person: Person, material: str) -> Garment:
    if material != "under":
        garment: Garment = getattr(person, material)
        return garment
    vest = person.upper  # what is worn below a vest takes the vest's second dye
    return Garment(
        "sweater", colour=vest.second_colour, reflectance=vest.second_reflectance, warmth=min(1.0, vest.warmth + 0.3)
    )


def _weave(place: Float32[Array, "N 3"], garment: Garment) -> Float32[Array, "N"]:
    """Folds and strands for surfaces without a texture of their own: a few fixed waves."""
    x, y, z = place.T
    phase = garment.period * 7
    wave = np.sin(2.1 * x + 1.3 * y + phase) + np.sin(4.3 * z - 2.9 * x + phase) + np.sin(1.1 * y + 3.7 * x)
    return np.asarray(1.0 + 0.05 * wave, np.float32)


def _strap(place: Float32[Array, "N 3"], bag: str) -> Bool[Array, "N"]:
    x, y, z = place.T
    if bag == "backpack":
        return np.asarray((z > 0) & (y > 2.4) & (np.abs(np.abs(x) - 1.05) < 0.17))
    if bag == "shoulder bag":  # from the left shoulder to the right hip
        across = (x + 1.7) * 4.6 - (y - 0.6) * 2.9
        return np.asarray((np.abs(across) / 5.44 < 0.16) & (np.abs(x) < 2.0) & (y > 0.4))
    return np.zeros(len(x), bool)


def pattern(place: Float32[Array, "N 3"], garment: Garment, material: str) -> Bool[Array, "N"]:
    """Where the second dye of a garment is, from rest positions (dm)."""
    x, y, z = place.T
    torso = np.abs(x) < 1.8
    turn = 2 * np.pi / garment.period
    kind = garment.pattern
    if kind == "stripes":
        return np.asarray(np.sin(y * turn) > 0.15)
    if kind == "pinstripes":
        return np.asarray(np.sin(x * turn * 1.3) > 0.6)
    if kind == "check":
        return np.asarray((np.sin(y * turn) > 0) ^ (np.sin(x * turn) > 0))
    if kind == "dots":
        return np.asarray(np.sin(y * turn) * np.sin(x * turn) > 0.45)
    if kind == "yoke":
        return np.asarray(y > 4.1)
    if kind == "band":
        middle = 3.3 if material != "hat" else y.mean()
        return np.asarray(torso & (np.abs(y - middle) < 0.25 + 0.4 * garment.period))
    if kind == "raglan":
        return np.asarray(~torso)
    if kind == "print":
        return np.asarray((np.abs(x) < 0.85) & (np.abs(y - 3.4) < 0.8) & ((z > 0.3) | (garment.period > 0.9)))
    if kind == "lower half":
        return np.asarray(torso & (y < 2.5))
    if kind == "sides":
        return np.asarray((np.abs(x) > 1.15) & torso)
    if kind == "open front":
        return np.asarray((np.abs(x) < 0.4) & (z > 0.3))
    if kind == "side stripe":
        return np.asarray((np.abs(x) > 1.5 - 0.115 * y) & (np.abs(z - 0.15) < 0.3))
    if kind == "cuffs":
        return np.asarray(y < -6.2)
    if kind == "knees":
        return np.asarray((np.abs(y + 3.7) < 0.7) & (z > 0.2))
    return np.zeros(len(x), bool)
