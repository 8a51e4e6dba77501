"""One colour, mark and line for each method on every page: Okabe and Ito's colours, told apart by any kind of eyes."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

INK = "#333333"
"""Lines and text; a page shows it in its own ink."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
_MARKERS, _DASHES = ("o", "s", "^", "D", "v"), ("-", "--", ":", "-.", "solid")


class Style(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str = "o"
    dash: str = "-"


_METHODS = {
    "both stages": Style(COLOURS[0]),
    "stage 1": Style(COLOURS[5], "D"),
    "ImageNet": Style(COLOURS[4], "s"),
    "random weights": Style(INK, "v"),
    "SimCLR": Style(COLOURS[2], "^"),
    "BYOL": Style(COLOURS[3], "s"),
    "MoCo v2": Style(COLOURS[1], "D"),
    "PNL": Style(COLOURS[1], "^"),
    "VTBR": Style(COLOURS[3], "v"),
    "SSL": Style(COLOURS[2], "v"),
}
_SAME = {
    "DAPG, both stages": "both stages",
    "DAPG, stage 1": "stage 1",
    "ImageNet, supervised": "ImageNet",
    "no pre-training": "random weights",
    "scores-agw-from-stage-2": "both stages",
    "scores-agw-from-stage-1": "stage 1",
    "scores-agw-from-imagenet": "ImageNet",
    "scores-agw-from-random": "random weights",
}
"""Titles of the experiment's arms and of the demo's evaluations -> what the demo's page calls them."""


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style of its own for each name: a method's is the same everywhere, others take what is free, in their order."""
    names = list(dict.fromkeys(names))
    chosen = {name: _METHODS[_SAME.get(name, name)] for name in names if _SAME.get(name, name) in _METHODS}
    taken = {(style.colour, style.marker) for style in chosen.values()}
    free = (
        Style(colour, marker, dash)
        for (marker, dash), colour in itertools.product(zip(_MARKERS, _DASHES, strict=True), COLOURS)
        if (colour, marker) not in taken
    )
    for name in names:
        if name not in chosen:
            chosen[name] = next(free, Style(INK, "x", ":"))
    return chosen
