"""Names, families and lists of all corruptions, and mixed batches of them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from dapg.core import plugins
from dapg.core.device import send
from dapg.core.errors import UsageError, nearest
from dapg.core.rng import SampleGenerator
from dapg.corruptions.base import Corruption, Parameters, move, take

IMAGENET_C = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 common corruptions, in ImageNet-C's order: those stage 1 may draw, hence *seen*."""

UNSEEN = ("speckle_noise", "gaussian_blur", "spatter", "saturate", "rain")
"""The 5 that only tests use."""

SEEN = IMAGENET_C

VISIBLE_20 = (*IMAGENET_C, *UNSEEN)
"""The 20 of CIL, and so of SYSU-C and RegDB-C, in the order of CIL-ReID."""

NONE = "none"
"""An image left as it is, an entry of the infrared list."""

INFRARED_20 = (*(name for name in VISIBLE_20 if name != "saturate"), NONE)
"""The 20 of ML-MDA's infrared images: no saturate, and ``none`` instead."""

SEVERITIES = (1, 2, 3, 4, 5)

DRAWS = 2
"""Version of the draws: raised when a seed gives another image by more than rounding, and stored with every score.

2: rain begins and falls as the reference's does.
"""


def corruptions() -> dict[str, Corruption]:
    """Every corruption by name: one object of each class in this folder's files and in plug-ins, the lists' first.

    Raises:
        UsageError: two of one name.
    """
    return _corruptions(plugins.folders("corruptions"))


@functools.cache
def _corruptions(folders: tuple[Path, ...]) -> dict[str, Corruption]:
    """The same, once for each set of folders."""
    known: dict[str, Corruption] = {}
    for kind in plugins.load_all("corruptions", Corruption):
        if kind.name in known:
            raise UsageError(
                f"two corruptions are called {kind.name!r}: {kind.__module__}, {known[kind.name].__module__}"
            )
        known[kind.name] = kind()
    ordered = [*(name for name in VISIBLE_20 if name in known), *sorted(set(known) - set(VISIBLE_20))]
    return {name: known[name] for name in ordered}


def names() -> list[str]:
    """Names of all corruptions."""
    return list(corruptions())


def get(name: str) -> Corruption:
    """The corruption of a name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    known = corruptions()
    _refuse_unknown(name, list(known))
    return known[name]


def families() -> dict[str, list[str]]:
    """Family -> names of its corruptions: noise, blur, weather, digital, extra."""
    grouped: dict[str, list[str]] = {}
    for name, corruption in corruptions().items():
        grouped.setdefault(corruption.family, []).append(name)
    return grouped


def without_family(family: str, among: Sequence[str] = IMAGENET_C) -> tuple[str, ...]:
    """The names that are not of a family: what stage 1 draws from when a family is left out for the test.

    Raises:
        UsageError: no such family.
    """
    known = families()
    if family not in known:
        raise UsageError(f"no family of corruptions is called {family!r}; known: {', '.join(known)}")
    return tuple(name for name in among if name not in known[family])


GROUPS = {"all": VISIBLE_20, "seen": SEEN, "unseen": UNSEEN}
"""Lists of corruptions by name; the name of a family is one, too."""


def expand(words: Sequence[str]) -> tuple[str, ...]:
    """Corruptions, families (noise, blur, ...) and groups (all, seen, unseen) as names of corruptions, each once.

    Raises:
        UsageError: a word that is none of them; the nearest is suggested.

    Example:
        >>> expand(["noise", "fog"])
        ('gaussian_noise', 'shot_noise', 'impulse_noise', 'fog')
    """
    lists = {**GROUPS, **families()}
    chosen: dict[str, None] = {}
    for word in words:
        if word not in lists and word != NONE:
            _refuse_unknown(word, [*lists, *names()])
        chosen.update(dict.fromkeys(lists.get(word, (word,))))
    return tuple(chosen)


def _refuse_unknown(word: str, known: list[str]) -> None:
    if word not in known:
        raise UsageError(f"no corruption is called {word!r}{nearest(word, known)}; known: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Draw:
    """Corruption ``name`` of some rows of a batch, with every random choice made."""

    name: str
    rows: Int[Tensor, "b"]
    """On the host."""
    parameters: Parameters

    def to(self, device: torch.device | str) -> "Draw":
        """The same draw for images on another device."""
        return Draw(self.name, self.rows, move(self.parameters, torch.device(device)))


def draw(
    shape: torch.Size, names: Sequence[str], severities: Int[Tensor, "B"], generator: SampleGenerator
) -> list[Draw]:
    """One corruption a sample for images of ``shape`` = (B, C, H, W): parameters grouped by type.

    Row i depends on ``names[i]``, ``severities[i]`` (on the host) and stream i only. ``none`` leaves an image as it
    is. With C = 1 noise is equal on all three channels.

    Raises:
        UsageError: an unknown name, a severity outside 1 ... 5, or images below 32 pixels.
    """
    _check(shape, names, severities)
    draws = []
    for name, rows in _rows_by_name(names):
        group = torch.Size((len(rows), *shape[1:]))
        draws.append(Draw(name, rows, get(name).draw(group, severities[rows], generator.rows(rows).fork(name))))
    return draws


def apply(images: Shaped[Tensor, "B 3 H W"], draws: Sequence[Draw], chunk: int = 64) -> Shaped[Tensor, "B 3 H W"]:
    """Corrupt a batch with draws made before, on the images' device; uint8 or float in [0, 1], the same out.

    On a GPU at most ``chunk`` images of a type are worked on at once, which bounds the memory of intermediate
    results. On the CPU it is one or a few at a time, so that they stay in the cache.
    """
    images = images.contiguous()
    result = _to_fill(images, sum(len(group.rows) for group in draws))
    for group in draws:
        moved = group.to(images.device)
        _apply_to_rows(get(group.name), images, result, moved.rows, moved.parameters, chunk)
    return result


def _to_fill(images: Shaped[Tensor, "B 3 H W"], corrupted: int) -> Shaped[Tensor, "B 3 H W"]:
    """The result before any row is written: a copy only where some rows stay as they are."""
    return torch.empty_like(images) if corrupted == len(images) else images.clone()


def _apply_to_rows(
    corruption: Corruption,
    images: Shaped[Tensor, "B 3 H W"],
    result: Shaped[Tensor, "B 3 H W"],
    rows: Int[Tensor, "b"],
    parameters: Parameters,
    chunk: int,
) -> None:
    """Write the corrupted rows of ``images`` into ``result``."""
    if images.device.type == "cpu":
        pixels = images.shape[-2] * images.shape[-1]
        chunk = max(1, min(corruption.cpu_batch, corruption.cpu_pixels // pixels))
    if chunk == 1:
        for place, row in enumerate(rows.tolist()):
            here = slice(row, row + 1)
            result[here] = corruption.apply(images[here], take(parameters, slice(place, place + 1)))
        return
    first = int(rows[0])
    if len(rows) == int(rows[-1]) - first + 1:  # neighbours need not be gathered
        for start in range(first, first + len(rows), chunk):
            here = slice(start, min(start + chunk, first + len(rows)))
            result[here] = corruption.apply(images[here], take(parameters, slice(start - first, here.stop - first)))
        return
    places = send(rows, images.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        damaged = corruption.apply(images.index_select(0, places[part]), take(parameters, part))
        if images.device.type == "cpu":  # index_copy_ goes byte by byte there
            for row, image in zip(rows[part].tolist(), damaged, strict=True):
                result[row] = image
        else:
            result.index_copy_(0, places[part], damaged)


def corrupt(
    images: Shaped[Tensor, "B 3 H W"],
    names: Sequence[str] | str,
    severities: Int[Tensor, "B"] | int,
    generator: SampleGenerator,
    chunk: int = 64,
    equal_channels: bool = False,
) -> Shaped[Tensor, "B 3 H W"]:
    """Draw and apply: one named corruption a sample, or one name and one severity for all.

    ``chunk`` bounds how many images are drawn for and worked on at once; it changes nothing in the result.
    ``equal_channels`` is for infrared images: the same noise on all three channels.

    Raises:
        UsageError: as ``draw``.

    Example:
        >>> images = torch.zeros(2, 3, 64, 32, dtype=torch.uint8)
        >>> corrupt(images, ["fog", "rain"], torch.tensor([1, 3]), SampleGenerator(torch.tensor([7, 8]))).shape
        torch.Size([2, 3, 64, 32])
    """
    named = [names] * len(images) if isinstance(names, str) else list(names)
    levels = severities if isinstance(severities, Tensor) else torch.full((len(images),), severities)
    shape = torch.Size((len(images), 1 if equal_channels else 3, *images.shape[-2:]))
    _check(shape, named, levels)
    if images.device.type == "cpu":
        chunk = min(chunk, _CPU_DRAWS)
    images = images.contiguous()
    groups = _rows_by_name(named)
    result = _to_fill(images, sum(len(rows) for _, rows in groups))
    for name, rows in groups:
        corruption = get(name)
        for part in torch.split(rows, chunk):
            group = torch.Size((len(part), *shape[1:]))
            parameters = corruption.draw(group, levels[part], generator.rows(part).fork(name))
            moved = move(parameters, images.device)
            _apply_to_rows(corruption, images, result, part, moved, chunk)
    return result


_CPU_DRAWS = 8
"""Images drawn for together on the CPU: their noise still fits into the cache."""


def _check(shape: torch.Size, names: Sequence[str], severities: Int[Tensor, "N"]) -> None:
    """Refuse what no corruption can do."""
    if min(shape[-2:]) < 32:
        raise UsageError(f"corruptions need images of 32 pixels or more on both sides, these have {tuple(shape[-2:])}")
    if len(names) != len(severities) or len(names) != shape[0]:
        raise UsageError(f"{shape[0]} images need as many names and severities, not {len(names)}, {len(severities)}")
    if len(names) > 0 and not 1 <= int(severities.min()) <= int(severities.max()) <= 5:
        raise UsageError("severities are 1, 2, 3, 4 or 5")


def _rows_by_name(names: Sequence[str]) -> list[tuple[str, Int[Tensor, "b"]]]:
    """Each name that occurs, save ``none``, with its rows."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return [(name, torch.tensor(rows[name])) for name in sorted(set(rows) - {NONE})]
