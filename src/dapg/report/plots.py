"""Curves as SVG text, drawn by matplotlib (extra ``plot``)."""

import io
from collections.abc import Sequence
from typing import Any

from dapg.core.errors import UsageError
from dapg.report.collect import Run

_INK, _GRID = "#333333", "#dddddd"
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, told apart with any kind of colour vision."""


def training_curves(run: Run) -> str:
    """Each logged number over the steps; empty when nothing was logged."""
    lines = [line for line in run.metrics if line.get("kind") == "train"]
    shown = ("loss", "positive_similarity", "feature_std", "effective_rank", "lr", "pictures_per_second")
    names = [name for name in shown if any(line.get(name) is not None for line in lines)]
    if not names:
        return ""
    figure, axes = _figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axis.plot(*zip(*points, strict=True), color=_LINES[0])
        _label(axis, name.replace("_", " "), "step")
    return _svg(figure)


def cmc_curves(runs: Sequence[Run]) -> str:
    """Rank-k of every evaluation's reported feature, one panel per test mode."""
    panels: dict[str, list[tuple[str, Sequence[float]]]] = {}
    for run in runs:
        if run.stage == "evaluate" and run.result is not None:
            where = f"{run.result['data']['name']}, {run.result['data']['mode']}"
            curve = run.result["scores"][run.result["feature"]]["cmc"]
            panels.setdefault(where, []).append((run.title, curve))
    if not panels:
        return ""
    figure, axes = _figure(len(panels))
    for axis, (where, curves) in zip(axes, panels.items(), strict=True):
        _draw_cmc(axis, curves)
        _label(axis, where, "rank")
    return _svg(figure)


def _draw_cmc(axis: Any, curves: Sequence[tuple[str, Sequence[float]]]) -> None:
    for number, (name, curve) in enumerate(curves):
        ranks = range(1, len(curve) + 1)
        axis.plot(ranks, [100 * value for value in curve], color=_LINES[number % len(_LINES)], label=name, marker=".")
    axis.set_ylim(0, 100)
    axis.legend(fontsize=7, frameon=False, loc="upper left")


def _figure(panels: int) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("drawing needs matplotlib: pip install 'dapg[plot]'") from error
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.0 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[panels:]:
        spare.set_axis_off()
    return figure, axes[:panels]


def _label(axis: Any, title: str, below: str) -> None:
    axis.set_title(title, fontsize=9, color=_INK)
    axis.set_xlabel(below, fontsize=8, color=_INK)
    axis.tick_params(labelsize=7, colors=_INK)
    axis.grid(color=_GRID, linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _svg(figure: Any) -> str:
    """SVG without date and random ids, so that the same numbers give the same text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dapg", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
