"""Ablations of stage 1 as data: which settings of the method each cell changes, one question to a sweep."""

from typing import Any

from dapg.core.errors import UsageError, nearest
from dapg.core.settings import merge
from dapg.recipes import pretraining
from dapg.train.pretrain import PretrainSettings

Changes = dict[str, Any]
"""Settings of the method, nested, that differ from the preset's."""

METHOD = "dapg"

SWEEPS: dict[str, dict[str, Changes]] = {
    "temperature": {f"tau-{tau}": {"temperature": tau} for tau in (0.07, 0.1, 0.2, 0.7)},
    "alpha": {f"alpha-{alpha}": {"alpha": alpha} for alpha in (0.25, 0.5, 0.75, 1.0)},
    "js": {
        "js-none": {"js_weight": 0.0},
        "js-1": {"js_weight": 1.0},
        "js-12": {"js_weight": 12.0},
        "js-1-over-dimensions": {"js_weight": 1.0, "distribution": "dimensions"},
    },
    "severity": {
        f"severity-{low}-{high}": {"chain": {"severities": [low, high]}}
        for low, high in ((1, 1), (1, 2), (1, 3), (1, 5), (3, 5))
    },
    "family": {
        "all-families": {},
        **{
            f"without-{family}": {"chain": {"leave_out": [family]}}
            for family in ("noise", "blur", "weather", "digital")
        },
    },
    "reading": {
        "recommended": {},
        "one-crop": {"chain": {"geometry": "shared"}},
        "mean-outside": {"positives_reduction": "mean_outside"},
        "queue": {"negatives": "queue"},
        "batch": {"negatives": "batch"},
        "mix-of-noisy-only": {"chain": {"mixture": "weights"}},
    },
    "beyond": {
        "recommended": {},
        "channels": {"channel": 0.5},
        "curriculum": {"curriculum": 0.5},
        "symmetric": {"symmetric": True},
    },
}
"""Question -> name of a cell -> what it changes. ``family`` leaves one out in training, to be tested on it."""


def sweep(name: str, preset: str = "tiny") -> dict[str, PretrainSettings]:
    """Complete settings of every cell of a sweep at a scale.

    Raises:
        UsageError: no such sweep or preset.
    """
    if name not in SWEEPS:
        raise UsageError(f"no sweep is called {name!r}{nearest(name, list(SWEEPS))}; known: {', '.join(SWEEPS)}")
    base = pretraining(METHOD, preset)
    return {cell: merge(base, {"method": changes}, f"{name}/{cell}") for cell, changes in SWEEPS[name].items()}
