"""Who a synthetic person is: body, hair, garments, bag, and how each of them looks in visible and infrared light.

Persons share garments, dyes and hair on purpose. Near-infrared reflectance belongs to the garment: half of it follows
visible luminance, the rest hangs on dye and fabric (one fixed table) and on a draw of the garment's own, because many
dyes are transparent beyond 750 nm while dark leather and carbon black are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dapg.core.seeds import derive_seed
from dapg.synth.arrays import random_from

Odds = Mapping[str, float | int]
"""Name -> how often it is drawn, against the others."""

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)

DYES: dict[str, tuple[float, float, float]] = {
    "black": (0.06, 0.06, 0.07),
    "charcoal": (0.22, 0.22, 0.24),
    "grey": (0.50, 0.50, 0.51),
    "white": (0.90, 0.90, 0.88),
    "navy": (0.09, 0.13, 0.30),
    "blue": (0.15, 0.30, 0.62),
    "sky": (0.48, 0.66, 0.82),
    "denim": (0.26, 0.35, 0.50),
    "red": (0.62, 0.09, 0.10),
    "burgundy": (0.34, 0.07, 0.13),
    "green": (0.13, 0.38, 0.20),
    "olive": (0.34, 0.34, 0.18),
    "khaki": (0.68, 0.58, 0.42),
    "brown": (0.38, 0.24, 0.15),
    "yellow": (0.80, 0.66, 0.12),
    "orange": (0.82, 0.42, 0.12),
    "pink": (0.78, 0.46, 0.56),
    "purple": (0.36, 0.20, 0.46),
}
UPPER_DYES = {
    "black": 4, "charcoal": 2, "grey": 3, "white": 3.5, "navy": 2.5, "blue": 2, "sky": 1.5, "red": 2, "burgundy": 1,
    "green": 1.3, "olive": 1.2, "khaki": 1.2, "brown": 0.8, "yellow": 0.9, "orange": 0.7, "pink": 1.2, "purple": 0.8,
}  # fmt: skip
LOWER_DYES = {
    "black": 4, "charcoal": 1.5, "grey": 1.5, "white": 0.7, "navy": 2, "denim": 3.5, "blue": 0.7, "khaki": 1.6,
    "brown": 0.7, "olive": 0.9, "burgundy": 0.4,
}  # fmt: skip
SHOE_DYES = {
    "black": 3, "white": 2.5, "brown": 1.5, "grey": 1, "navy": 0.8, "red": 0.7, "khaki": 0.6,
}  # fmt: skip
BAG_DYES = {
    "black": 3, "navy": 1, "brown": 1, "grey": 1, "red": 1, "olive": 0.8, "yellow": 0.5, "white": 0.5, "pink": 0.5,
    "khaki": 0.6,
}  # fmt: skip
HAIR_DYES = {
    "black": ((0.05, 0.045, 0.045), 4.0),
    "dark brown": ((0.17, 0.11, 0.07), 3.0),
    "brown": ((0.34, 0.22, 0.12), 1.6),
    "blond": ((0.62, 0.50, 0.30), 1.0),
    "grey": ((0.52, 0.51, 0.50), 0.9),
    "red": ((0.45, 0.20, 0.09), 0.4),
}

# Cut -> (kit garment and half, or a helper surface; where sleeves may end as |x| in dm; fabrics)
UPPERS: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "sweater": ("male_casualsuit02", (9.0, 9.0, 3.4), ("cotton", "wool")),
    "shirt": ("male_casualsuit03", (9.0, 2.9), ("cotton",)),
    "t-shirt": ("male_casualsuit04", (9.0,), ("cotton", "polyester")),
    "hooded jacket": ("male_casualsuit05", (9.0,), ("polyester", "leather")),
    "polo": ("male_casualsuit06", (9.0,), ("cotton", "polyester")),
    "blazer": ("male_elegantsuit01", (9.0,), ("wool", "polyester")),
    "fitted t-shirt": ("female_casualsuit01", (9.0, 2.1), ("cotton", "polyester")),
    "blouse": ("female_elegantsuit01", (9.0, 3.3), ("cotton", "polyester")),
    "coat": ("helper-tights", (9.0,), ("wool", "leather", "polyester")),
    "vest": ("helper-tights", (1.75,), ("polyester",)),
}
UPPER_ODDS = {
    "male": dict(zip(UPPERS, (2.2, 1.5, 2.5, 1.6, 1.6, 1.0, 0.0, 0.0, 1.2, 0.8), strict=True)),
    "female": dict(zip(UPPERS, (1.8, 0.7, 0.4, 1.2, 0.4, 0.5, 2.6, 1.6, 1.5, 0.8), strict=True)),
}

# Cut -> (kit garment, or a helper surface; height of the hem in dm, rest body: feet are at -8; fabrics)
LOWERS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    "jeans": ("male_casualsuit02", -9.0, ("denim", "cotton")),
    "trousers": ("male_elegantsuit01", -9.0, ("wool", "cotton")),
    "leggings": ("female_sportsuit01", -9.0, ("polyester",)),
    "cropped trousers": ("male_casualsuit04", -5.3, ("cotton",)),
    "shorts": ("male_casualsuit04", -2.9, ("cotton", "denim", "polyester")),
    "short shorts": ("female_casualsuit02", -9.0, ("denim", "cotton")),
    "pencil skirt": ("female_elegantsuit01", -9.0, ("wool", "cotton")),
    "knee skirt": ("helper-skirt", -3.9, ("cotton", "wool", "denim")),
    "long skirt": ("helper-skirt", -6.6, ("cotton", "polyester")),
    "dungarees": ("male_worksuit01", -9.0, ("denim", "cotton")),
}
LOWER_ODDS = {
    "male": dict(zip(LOWERS, (4.5, 2.5, 0.0, 0.7, 1.6, 0.0, 0.0, 0.0, 0.0, 0.5), strict=True)),
    "female": dict(zip(LOWERS, (3.0, 1.0, 1.8, 0.6, 0.5, 0.8, 0.9, 1.2, 0.8, 0.4), strict=True)),
}
UPPER_PATTERNS = {
    "plain": 4.2, "stripes": 1.5, "pinstripes": 0.7, "check": 1.2, "yoke": 0.8, "band": 1.0, "raglan": 1.0,
    "print": 1.4, "lower half": 0.7, "dots": 0.5, "sides": 0.6, "open front": 0.8,
}  # fmt: skip
LOWER_PATTERNS = {"plain": 6.0, "side stripe": 1.2, "check": 0.7, "cuffs": 0.5, "knees": 0.3, "pinstripes": 0.4}
HAIR = {
    "male": {"short01": 2.0, "short02": 2.0, "short03": 1.5, "short04": 2.0, "afro01": 0.7, "bald": 1.0, "bob02": 0.3},
    "female": {
        "long01": 2.0, "ponytail01": 1.8, "bob01": 1.4, "bob02": 1.2, "braid01": 1.0, "short01": 0.5, "afro01": 0.5,
    },
}  # fmt: skip
SKINS = {
    "male": (
        "middleage_lightskinned_male_diffuse", "middleage_lightskinned_male_diffuse2",
        "young_lightskinned_male_diffuse", "young_lightskinned_male_diffuse3", "young_darkskinned_male_diffuse",
        "middleage_darkskinned_male_diffuse",
    ),
    "female": (
        "middleage_lightskinned_female_diffuse2", "young_lightskinned_female_diffuse2",
        "young_lightskinned_female_diffuse3", "young_darkskinned_male_diffuse",
    ),
}  # fmt: skip
BAGS = {"none": 5.0, "backpack": 2.2, "shoulder bag": 1.5, "hand bag": 1.2}
HATS = {"none": 7.5, "cap": 1.3, "beanie": 1.0, "brimmed hat": 0.5}


@dataclass(frozen=True)
class Garment:
    """One thing that is worn: cut, two colours with a pattern, and the same for the near infrared and the heat."""

    cut: str
    dye: str = ""
    fabric: str = ""
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    second_dye: str = ""
    second_colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pattern: str = "plain"
    period: float = 0.6
    """Length (dm) of one repeat of the pattern."""
    reflectance: float = 0.5
    """Near-infrared reflectance of the dye, 0 ... 1."""
    second_reflectance: float = 0.5
    warmth: float = 0.5
    """How much body heat shows on the outside, 0 ... 1."""
    sleeve: float = 9.0
    hem: float = -9.0

    def words(self) -> str:
        """For annotations: ``navy cotton t-shirt, stripes white``."""
        text = " ".join(word for word in (self.dye, self.fabric, self.cut) if word)
        return text if self.pattern == "plain" else f"{text}, {self.pattern} {self.second_dye}"


@dataclass(frozen=True)
class Person:
    """Everything that stays the same in all images of a person."""

    sex: str
    targets: dict[str, float]
    skin: str
    skin_reflectance: float
    hair: Garment
    upper: Garment
    lower: Garment
    shoes: Garment
    bag: Garment
    hat: Garment
    scarf: Garment

    def garments(self) -> dict[str, str]:
        """What is worn, in words, for annotations."""
        slots = ("upper", "lower", "shoes", "hair", "bag", "hat", "scarf")
        worn: dict[str, Garment] = {name: getattr(self, name) for name in slots}
        return {name: garment.words() for name, garment in worn.items() if garment.cut != "none"}


def _pick(generator: np.random.Generator, odds: Odds) -> str:
    names = list(odds)
    weights = np.array([odds[name] for name in names], float)
    return names[int(generator.choice(len(names), p=weights / weights.sum()))]


def _table(dye: str, fabric: str) -> float:
    """The fixed part of a dye's near-infrared behaviour, uniform in 0 ... 1: the same for every person and seed."""
    return float(derive_seed("synth", "near infrared", dye, fabric) / 2**63)


def _reflectance(generator: np.random.Generator, colour: tuple[float, float, float], dye: str, fabric: str) -> float:
    """Near-infrared reflectance of dyed fabric: luminance, the dye's table entry and a draw of this garment."""
    luminance: float = float(np.asarray(colour) @ LUMINANCE) ** 0.7
    own = float(generator.uniform())
    if fabric == "leather":
        return 0.06 + 0.5 * luminance
    return float(np.clip(0.05 + 0.45 * luminance + 0.30 * _table(dye, fabric) + 0.22 * own, 0.04, 0.97))


def _colour(generator: np.random.Generator, dye: str) -> tuple[float, float, float]:
    r, g, b = np.clip(np.array(DYES[dye]) * generator.uniform(0.85, 1.15) + generator.normal(0, 0.012, 3), 0.02, 0.96)
    return float(r), float(g), float(b)


def _garment(
    generator: np.random.Generator,
    cut: str,
    dyes: Odds,
    fabrics: tuple[str, ...],
    patterns: Odds,
    sleeve: float = 9.0,
    hem: float = -9.0,
) -> Garment:
    fabric = str(generator.choice(np.array(fabrics)))
    dye = _pick(generator, dyes)
    if fabric == "denim" and generator.random() < 0.7:
        dye = "denim"
    colour = _colour(generator, dye)
    first = float(np.asarray(colour) @ LUMINANCE)
    for _ in range(8):  # a second dye that can be told from the first
        second_dye = _pick(generator, dict.fromkeys(DYES, 1.0))
        second = _colour(generator, second_dye)
        if abs(float(np.asarray(second) @ LUMINANCE) - first) > 0.22:
            break
    return Garment(
        cut,
        dye,
        fabric,
        colour,
        second_dye,
        second,
        _pick(generator, patterns),
        float(generator.uniform(0.55, 1.3)),
        _reflectance(generator, colour, dye, fabric),
        _reflectance(generator, second, second_dye, fabric),
        float(generator.uniform(0.25, 0.8)),
        sleeve,
        hem,
    )


def _upper(generator: np.random.Generator, sex: str) -> Garment:
    cut = _pick(generator, UPPER_ODDS[sex])
    _, sleeves, fabrics = UPPERS[cut]
    patterns = dict(UPPER_PATTERNS)
    if cut in ("t-shirt", "fitted t-shirt", "polo", "vest"):
        patterns.pop("open front")
    hem = float(generator.choice([-4.6, -2.8, -1.4])) if cut == "coat" else -9.0
    return _garment(generator, cut, UPPER_DYES, fabrics, patterns, float(generator.choice(sleeves)), hem)


def _lower(generator: np.random.Generator, sex: str) -> Garment:
    cut = _pick(generator, LOWER_ODDS[sex])
    _, hem, fabrics = LOWERS[cut]
    return _garment(generator, cut, LOWER_DYES, fabrics, LOWER_PATTERNS, hem=hem)


def _shape(generator: np.random.Generator, sex: str) -> dict[str, float]:
    """Shape targets and their weights."""
    people = str(generator.choice(["african", "asian", "caucasian"]))
    age = str(generator.choice(["young", "young", "old"]))
    muscle, weight = float(generator.uniform(-1, 1)), float(generator.uniform(-0.9, 1))
    targets = {f"{people}-{sex}-{age}": 1.0}
    for muscle_name, muscle_part in _parts(muscle, "muscle"):
        for weight_name, weight_part in _parts(weight, "weight"):
            targets[f"universal-{sex}-{age}-{muscle_name}-{weight_name}"] = muscle_part * weight_part
    height = float(generator.uniform(-0.55, 0.6))
    end = "max" if height > 0 else "min"
    targets[f"height_{sex}-young-averagemuscle-averageweight-{end}height"] = abs(height)
    return targets


def _parts(value: float, what: str) -> tuple[tuple[str, float], tuple[str, float]]:
    return ((f"{'max' if value > 0 else 'min'}{what}", abs(value)), (f"average{what}", 1 - abs(value)))


def draw_person(seed: int, group: str, number: int) -> Person:
    """The person of a number: a function of seed, group (``labelled`` or ``unlabelled``) and number only."""
    generator = random_from(seed, "person", group, number)
    sex = str(generator.choice(["male", "female"]))
    targets = _shape(generator, sex)
    upper, lower = _upper(generator, sex), _lower(generator, sex)
    # One person in four wears something many others wear too, to the very pattern: a uniform, a bestseller.
    if generator.random() < 0.25:
        upper = _upper(random_from(seed, "common upper", sex, int(generator.integers(8))), sex)
    if generator.random() < 0.45:
        lower = _lower(random_from(seed, "common lower", sex, int(generator.integers(6))), sex)
    shoes = _garment(generator, f"shoes0{generator.integers(1, 7)}", SHOE_DYES, ("leather", "polyester"), {"plain": 1})
    hair_dye = _pick(generator, {name: odds for name, (_, odds) in HAIR_DYES.items()})
    hair = Garment(
        _pick(generator, HAIR[sex]),
        hair_dye,
        "",
        HAIR_DYES[hair_dye][0],
        reflectance=float(generator.uniform(0.10, 0.30) + 0.5 * np.asarray(HAIR_DYES[hair_dye][0]).mean()),
        warmth=float(generator.uniform(0.45, 0.6)),
    )
    bag_cut, hat_cut = _pick(generator, BAGS), _pick(generator, HATS)
    bag = _garment(generator, bag_cut, BAG_DYES, ("polyester", "leather"), {"plain": 2.0, "band": 1.0})
    hat = _garment(generator, hat_cut, BAG_DYES, ("cotton", "wool"), {"plain": 1.0})
    scarf_cut = (
        "scarf" if generator.random() < (0.3 if upper.cut in ("coat", "hooded jacket", "blazer") else 0.08) else "none"
    )
    scarf = _garment(generator, scarf_cut, UPPER_DYES, ("wool",), {"plain": 1.0, "stripes": 1.0})
    skin = str(generator.choice(np.array(SKINS[sex])))
    return Person(sex, targets, skin, float(generator.uniform(0.62, 0.78)), hair, upper, lower, shoes, bag, hat, scarf)
