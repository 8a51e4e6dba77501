"""The scales every recipe comes in; importable without torch, for help texts."""

from collections.abc import Collection

from dapg.core.errors import UsageError, nearest

PRESETS = ("recommended", "paper", "gpu", "tiny", "demo")


def require_preset(preset: str, known: Collection[str] = PRESETS) -> None:
    """Refuse what is none of the ``known`` scales.

    Raises:
        UsageError: the nearest one is suggested.
    """
    if preset not in known:
        raise UsageError(f"no preset is called {preset!r}{nearest(preset, list(known))}; known: {', '.join(known)}")


PICTURES_PER_SECOND = {
    ("demo", "byol"): 293,
    ("demo", "channel_transformer"): 366,
    ("demo", "dapg"): 132,
    ("demo", "mocov2"): 610,
    ("demo", "pnl"): 646,
    ("demo", "simclr"): 451,
    ("demo", "supervised"): 458,
    ("demo", "agw"): 457,
    ("demo", "baseline"): 490,
    ("demo", "caj"): 442,
    ("demo", "cil"): 226,
    ("demo", "pmwgcn"): 376,
    ("tiny", "byol"): 135,
    ("tiny", "channel_transformer"): 160,
    ("tiny", "dapg"): 60,
    ("tiny", "mocov2"): 227,
    ("tiny", "pnl"): 225,
    ("tiny", "simclr"): 180,
    ("tiny", "supervised"): 193,
    ("tiny", "agw"): 244,
    ("tiny", "baseline"): 260,
    ("tiny", "caj"): 201,
    ("tiny", "cil"): 98,
    ("tiny", "pmwgcn"): 261,
}
"""Pictures trained per second on two cores, by preset and method (docs/results.md, benchmarks/data_wait.py)."""


def expected_seconds(preset: str, method: str, pictures: int) -> float | None:
    """Seconds that training on so many pictures takes on two cores; None where nobody has measured it."""
    rate = PICTURES_PER_SECOND.get((preset, method))
    return None if rate is None else pictures / rate
