"""Drawings as SVG text by matplotlib (extra ``plot``): panels that a page lays out, in its own ink."""

import hashlib
import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dapg.core.errors import UsageError
from dapg.core.types import JsonObject
from dapg.core.words import counted
from dapg.report.collect import Run
from dapg.report.styles import COLOURS, INK, styles
from dapg.scoring.robustness import worst

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRID = "#dddddd"


def training_curves(run: Run) -> str:
    """Each logged number over the steps; empty when nothing was logged."""
    lines = [line for line in run.metrics if line.get("kind") == "train"]
    terms = ("loss", "contrastive", "js", "positive_similarity", "negative_similarity", "feature_std")
    shown = (*terms, "effective_rank", "lr", "pictures_per_second")
    names = [name for name in shown if any(line.get(name) is not None for line in lines)]
    if not names:
        return ""
    axes = _panels(len(names))
    for axis, name in zip(axes, names, strict=True):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axis.plot(*zip(*points, strict=True), color=COLOURS[0])
        _label(axis, _WORDS.get(name, name.replace("_", " ")), "step")
    return _svg(axes)


_WORDS = {
    "js": "Jensen-Shannon term",
    "lr": "learning rate",
    "pictures_per_second": "images per second",
    "feature_std": "standard deviation of the features",
}


def loss_curves(panels: Mapping[str, Mapping[str, Sequence[Sequence[Sequence[int | float]]]]]) -> str:
    """Loss over steps: panel -> name -> the (step, loss) pairs of each seed; a style a name, a thin line a seed."""
    axes = _panels(len(panels), height=3.0)
    chosen = styles(name for names in panels.values() for name in names)
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name, curves in names.items():
            colour, _, dash = chosen[name]
            for seed, curve in enumerate(curves):
                steps, losses = zip(*curve, strict=True)
                label = name if seed == 0 else None
                axis.plot(steps, losses, linestyle=dash, color=colour, linewidth=0.9, label=label)
        if all(loss > 0 for curves in names.values() for curve in curves for _, loss in curve):
            axis.set_yscale("log")  # first steps are far above the rest
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        _label(axis, title, "step", "loss")
        axis.tick_params(which="minor", labelsize=6, colors=INK)
        _legend(axis)
    return _svg(axes)


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
    axes = _panels(len(panels))
    chosen = styles(name for curves in panels.values() for name, _ in curves)
    for axis, (where, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves:
            colour, marker, dash = chosen[name]
            ranks, percent = range(1, len(curve) + 1), [100 * value for value in curve]
            axis.plot(ranks, percent, color=colour, marker=marker, markersize=3, linestyle=dash, label=name)
        axis.set_ylim(0, 100)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _label(axis, where, "rank", "queries found (%)")
        _legend(axis)
    return _svg(axes)


def distance_histograms(figures: JsonObject) -> str:
    """Share of pairs by cosine distance, same person and other persons, one panel per pair of modalities."""
    distances = figures.get("distances") or {"pairs": []}
    pairs = [pair for pair in distances["pairs"] if sum(pair["same"]) and sum(pair["other"])]
    if not pairs:
        return ""
    axes = _panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=True):
        for kind, colour in (("same", COLOURS[0]), ("other", COLOURS[1])):
            shares = [100 * count / sum(pair[kind]) for count in pair[kind]]
            label = f"{kind} person, {sum(pair[kind]):,} pairs"
            axis.stairs(shares, distances["edges"], color=colour, alpha=0.45, fill=True, label=label)
        used = [place for kind in ("same", "other") for place, count in enumerate(pair[kind]) if count]
        axis.set_xlim(distances["edges"][min(used)], distances["edges"][max(used) + 1])
        _label(axis, " - ".join(pair["modalities"]), "cosine distance", "pairs (%)")
        _legend(axis)
    return _svg(axes)


def error_curves(pairs: Sequence[JsonObject]) -> str:
    """Detection error trade-off and reliability of thresholds (``evaluation/thresholds.py``), a line for each pair."""
    trade, reliability = _panels(2)
    for number, pair in enumerate(pairs):
        colour, label = COLOURS[number % len(COLOURS)], f"{pair['query']} - {pair['gallery']}"
        trade.plot(pair["det"]["FPIR"], pair["det"]["FNIR"], color=colour, label=label)
        bins = pair["reliability"]
        predicted, right = [line["predicted"] for line in bins], [line["right"] for line in bins]
        reliability.plot(predicted, right, color=colour, marker=".")
        reliability.vlines(predicted, [line["low"] for line in bins], [line["high"] for line in bins], color=colour)
    reliability.plot([0, 1], [0, 1], color=INK, linewidth=0.6)
    _label(trade, "errors", "strangers accepted (FPIR)", "persons missed (FNIR)")
    _label(reliability, "reliability", "predicted probability", "share that was right")
    _legend(trade)
    return _svg((trade, reliability))


def tsne_scatter(figures: JsonObject) -> str:
    """Each image where t-SNE puts it: a colour a person, circles visible and crosses infrared."""
    points = figures.get("tsne") or []
    if not points:
        return ""
    import matplotlib

    persons = sorted({point["person"] for point in points})
    colours = matplotlib.colormaps["hsv"]
    (axis,) = _panels(1, height=4.0)
    for modality, marker in (("visible", "o"), ("infrared", "x")):
        chosen = [point for point in points if point["modality"] == modality]
        axis.scatter(
            [point["x"] for point in chosen],
            [point["y"] for point in chosen],
            c=[colours(persons.index(point["person"]) / len(persons)) for point in chosen],
            marker=marker,
            s=12,
            linewidths=0.9,
            label=modality,
        )
    _label(axis, f"t-SNE, {len(points)} images of {len(persons)} persons", "")
    axis.set_xticks([])
    axis.set_yticks([])
    _legend(axis)
    return _svg([axis])


def overlay(image: bytes, activation: "NDArray[Any]") -> bytes:
    """A JPEG image with a map (h, w) in 0 ... 1 laid over it, as JPEG: dark blue nothing, red the most."""
    import matplotlib
    from PIL import Image

    shown = Image.open(io.BytesIO(image)).convert("RGB")
    values = Image.fromarray(activation.astype("float32")).resize(shown.size, Image.Resampling.BICUBIC)
    colours = matplotlib.colormaps["turbo"](np.clip(np.asarray(values), 0, 1))[..., :3]
    mixed = 0.5 * np.asarray(shown) / 255 + 0.5 * colours
    stream = io.BytesIO()
    Image.fromarray((255 * mixed).round().astype("uint8")).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def corruption_heat_map(run: Run) -> str:
    """rank-1 and mAP of each corruption (rows) at each severity (columns); empty without ``detail: grid``."""
    cells = [row for row in (run.result or {}).get("corrupted") or [] if row["group"] == "cell"]
    if run.result is None or not cells:
        return ""
    names = list(dict.fromkeys(row["types"][0] for row in cells))
    levels = sorted({row["severities"][0] for row in cells})
    feature = run.result["feature"]
    clean = run.result["scores"][feature]
    axes = _panels(2, height=0.22 * len(names) + 0.8)
    for axis, measure, reference in zip(axes, ("rank-1", "mAP"), (clean["cmc"][0], clean["mAP"]), strict=True):
        table = [[float("nan")] * len(levels) for _ in names]
        for row in cells:
            place = names.index(row["types"][0]), levels.index(row["severities"][0])
            table[place[0]][place[1]] = 100 * row["scores"][feature][measure]
        _draw_heat_map(axis, f"{measure}, clean {100 * reference:.1f}", names, levels, table, 100 * reference)
    return _svg(axes)


def severity_maps(
    names: Sequence[str], levels: Sequence[int], models: Sequence[tuple[str, float, list[list[float]]]]
) -> str:
    """Scores (mAP) of two models by corruption and severity, and the first less the second.

    Args:
        names: the corruptions: rows.
        levels: the severities: columns.
        models: title, clean mAP, mAP by row and column; in per cent.
    """
    axes = _panels(3, height=0.22 * len(names) + 0.8)
    for axis, (title, clean, table) in zip(axes, models, strict=False):
        _draw_heat_map(axis, f"{title}: clean {clean:.1f}", names, levels, table, clean)
    (*_, first), (*_, second) = models
    less = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(first, second, strict=True)]
    _draw_heat_map(axes[2], "difference", names, levels, less, max(abs(v) for row in less for v in row), signed=True)
    return _svg(axes)


@dataclass(frozen=True)
class Point:
    """A model's clean and corrupted score in per cent, with their intervals where there are some."""

    name: str
    clean: float
    corrupted: float
    clean_interval: tuple[float, float] | None = None
    corrupted_interval: tuple[float, float] | None = None


def clean_against_corrupted(panels: Mapping[str, Sequence[Point]]) -> str:
    """Each model as a point with error bars, clean score to the right and corrupted score upwards.

    On the line nothing is lost. A panel shows the part where its models are: from 0 on, they would lie on each other.
    """
    axes = _panels(len(panels), height=3.2)
    chosen = styles(point.name for points in panels.values() for point in points)
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
        right = _limits([(point.clean, *(point.clean_interval or ())) for point in points])
        up = _limits([(point.corrupted, *(point.corrupted_interval or ())) for point in points])
        axis.set(xlim=right, ylim=up)
        axis.plot([0, 100], [0, 100], color=_GRID, linewidth=0.8)
        for point in points:
            colour, marker, _ = chosen[point.name]
            axis.errorbar(
                [point.clean],
                [point.corrupted],
                xerr=_bars(point.clean, point.clean_interval),
                yerr=_bars(point.corrupted, point.corrupted_interval),
                marker=marker,
                linestyle="",
                elinewidth=0.8,
                color=colour,
                label=point.name,
            )
        _label(axis, title, "mAP on clean images (%)", "mAP on corrupted images (%)")
        _legend(axis)
    return _svg(axes)


def _limits(values: Sequence[tuple[float, ...]]) -> tuple[float, float]:
    """Of an axis: all values, and a tenth of their span, or half a point, on either side."""
    lowest, highest = min(map(min, values)), max(map(max, values))
    margin = max(0.1 * (highest - lowest), 0.5)
    return lowest - margin, highest + margin


@dataclass(frozen=True)
class Gain:
    """A point of a curve of gains: (value, low, high) in points of mAP, and from how many seeds."""

    place: str
    clean: tuple[float, float, float]
    corrupted: tuple[float, float, float]
    seeds: int


def gain_curves(panels: Mapping[str, Sequence[Gain]]) -> str:
    """Gains with intervals over what grows, on clean (filled) and corrupted images (open)."""
    axes = _panels(len(panels))
    for axis, (title, gains) in zip(axes, panels.items(), strict=True):
        axis.axhline(0, color=_GRID, linewidth=0.8)
        for label, shift, points in (
            ("clean", -0.06, [gain.clean for gain in gains]),
            ("corrupted", 0.06, [gain.corrupted for gain in gains]),
        ):
            axis.errorbar(
                [place + shift for place in range(len(gains))],
                [value for value, _, _ in points],
                yerr=[[value - low for value, low, _ in points], [high - value for value, _, high in points]],
                marker="o",
                markerfacecolor=COLOURS[0] if label == "clean" else "none",
                color=COLOURS[0],
                linestyle="-" if label == "clean" else "--",
                capsize=2,
                label=label,
            )
        axis.set_xticks(range(len(gains)), [f"{gain.place}\n{counted(gain.seeds, 'seed')}" for gain in gains])
        _label(axis, title, "", "gain (points of mAP)")
        _legend(axis)
    return _svg(axes)


def clean_and_corrupted(points: Sequence[Point]) -> str:
    """A row for each model: its mAP on clean images as a filled mark, on corrupted ones as an open one, with bars."""
    (axis,) = _panels(1, height=0.42 * len(points) + 1.0)
    chosen = styles(point.name for point in points)
    for row, point in enumerate(points):
        colour = chosen[point.name].colour
        for value, interval, filled in (
            (point.clean, point.clean_interval, True),
            (point.corrupted, point.corrupted_interval, False),
        ):
            axis.errorbar(
                [value],
                [row - 0.12 if filled else row + 0.12],
                xerr=_bars(value, interval),
                marker="o",
                markerfacecolor=colour if filled else "none",
                color=colour,
                capsize=2,
                linestyle="",
            )
    for face, label in ((INK, "clean"), ("none", "corrupted")):
        axis.plot([], [], marker="o", markerfacecolor=face, color=INK, linestyle="", label=label)
    axis.set_yticks(range(len(points)), [point.name for point in points])
    axis.set_ylim(len(points) - 0.5, -0.5)
    axis.set_xlim(left=0)
    _label(axis, "mAP by what AGW starts from", "mAP (%)")
    _legend(axis)
    return _svg([axis])


def _bars(value: float, interval: tuple[float, float] | None) -> list[list[float]] | None:
    """Lengths to both sides; an interval over other averages may leave the value out, and no bar has a negative end."""
    return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def score_heat_map(title: str, names: Sequence[str], levels: Sequence[int], table: list[list[float]]) -> str:
    """Scores in per cent by corruption and severity, the worst tenth in frames."""
    axes = _panels(1, height=0.22 * len(names) + 0.8)
    _draw_heat_map(axes[0], title, names, levels, table, max(max(row) for row in table))
    return _svg(axes)


def threshold_drift(target: float, families: Mapping[str, Sequence[float]], levels: Sequence[int], title: str) -> str:
    """False positives in per cent over the severity, a line for each family, at a threshold set on clean images.

    Args:
        target: the rate that the threshold was set to.
        families: name -> rate at each severity.
        levels: the severities.
        title: above the drawing.
    """
    (axis,) = _panels(1, height=3.0)
    axis.axhline(target, color=INK, linewidth=0.8, linestyle=":", label=f"as set on clean images: {target:g}")
    for number, (name, rates) in enumerate(families.items()):
        axis.plot(levels, rates, color=COLOURS[number % len(COLOURS)], marker=".", label=name)
    axis.set_xticks(list(levels))
    axis.set_ylim(bottom=0)
    _label(axis, title, "severity", "strangers accepted (%)")
    _legend(axis)
    return _svg([axis])


def _draw_heat_map(
    axis: Any,
    title: str,
    names: Sequence[str],
    levels: Sequence[int],
    table: list[list[float]],
    highest: float,
    signed: bool = False,
) -> None:
    """Corruptions down, severities to the right, the number in each cell; colours up to ``highest``.

    Frames mark the worst tenth of the cells; not of differences.
    """
    highest = max(highest, 1e-9)
    colours, lowest = ("RdBu", -highest) if signed else ("viridis", 0.0)
    axis.imshow(table, cmap=colours, vmin=lowest, vmax=highest, aspect="auto")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            dark = abs(value) > 0.6 * highest if signed else value < 0.6 * highest
            text = f"{value:+.1f}" if signed else f"{value:.1f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    scores = np.array(table, dtype=np.float64)
    if not signed and not np.isnan(scores).any():
        for row, column in np.argwhere(worst(scores).tenth).tolist():
            corner = (column - 0.46, row - 0.44)
            axis.add_patch(_rectangle(corner, 0.92, 0.88))
    axis.set_xticks(range(len(levels)), [str(level) for level in levels])
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    _label(axis, title, "severity")
    axis.grid(visible=False)


def _rectangle(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor=COLOURS[1], linewidth=1.4)


def _panels(count: int, height: float = 2.6) -> list[Any]:
    """Axes of ``count`` figures of their own, which a page puts beside or below each other as its width allows."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("drawing needs matplotlib: pip install 'dapg[plot]'") from error
    return [Figure(figsize=(4.0, height), layout="constrained").subplots() for _ in range(count)]


def _legend(axis: Any) -> None:
    """Below the axes, never over data; the figure grows by its rows."""
    handles, labels = axis.get_legend_handles_labels()
    if not labels:
        return
    labels = [textwrap.fill(label, 50) for label in labels]
    lines = [line for label in labels for line in label.splitlines()]
    columns = max(1, min(3, len(labels), 60 // (max(map(len, lines)) + 6)))
    axis.figure.set_figheight(axis.figure.get_figheight() + 0.18 * -(-len(lines) // columns))
    axis.figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, labelcolor=INK
    )


def _label(axis: Any, title: str, below: str, beside: str = "") -> None:
    axis.set_title(title, fontsize=9, color=INK)
    axis.set_xlabel(below, fontsize=8, color=INK)
    axis.set_ylabel(beside, fontsize=8, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(color=_GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(INK)


def _svg(axes: Sequence[Any]) -> str:
    """The figures of some axes, without date and random ids, so that the same numbers give the same text."""
    return f'<div class="panels">{"".join(map(_one_svg, axes))}</div>'


def _one_svg(axis: Any) -> str:
    """Ink and grid are the page's, in the light and in the dark; names of parts are told apart from other drawings'."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dapg", "svg.fonttype": "none"}):
        axis.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    key = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{key}", svg)
    svg = svg.replace(INK, "currentColor").replace(_GRID, "var(--grid)")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(axis.get_title())}"', 1)
