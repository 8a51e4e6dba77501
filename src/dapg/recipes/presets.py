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
    ("demo", "mocov2"): 382,
    ("demo", "simclr"): 323,
    ("demo", "agw"): 400,
    ("tiny", "agw"): 139,
    ("tiny", "mocov2"): 154,
    ("tiny", "simclr"): 139,
}
"""Pictures trained per second on two cores, by preset and method (docs/results.md, benchmarks/data_wait.py)."""


def expected_seconds(preset: str, method: str, pictures: int) -> float | None:
    """Seconds that training on so many pictures takes on two cores; None where nobody has measured it."""
    rate = PICTURES_PER_SECOND.get((preset, method))
    return None if rate is None else pictures / rate
