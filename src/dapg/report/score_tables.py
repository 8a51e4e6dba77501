"""Score tables: one list of rows, written as Markdown or CSV."""

from collections.abc import Sequence
from typing import Any

from dapg.core.files import csv_text
from dapg.core.types import JsonObject
from dapg.core.words import counted
from dapg.report.collect import Run

Row = dict[str, str]


def score_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per evaluation and feature, the reported feature first; scores in percent with one decimal.

    With several trials the number is their mean, as the papers print it.
    """
    rows = []
    for run in runs:
        if run.stage != "evaluate" or run.result is None:
            continue
        headline = run.result["feature"]
        for feature in sorted(run.result["scores"], key=lambda name: (name != headline, name)):
            scores = run.result["scores"][feature]
            rows.append(
                {
                    "model": run.title,
                    "data": f"{run.result['data']['name']}, {run.result['data']['mode']}",
                    "feature": feature,
                    "rank-1": _percent(scores["cmc"][0]),
                    "rank-5": _percent(scores["cmc"][4]) if len(scores["cmc"]) > 4 else "-",
                    "mAP": _percent(scores["mAP"]),
                    "mINP": _percent(scores["mINP"]),
                    "trials": str(len(run.result["trials"])),
                }
            )
    return rows


def corruption_rows(runs: Sequence[Run]) -> list[Row]:
    """The reported feature of each evaluation on clean images and on each corrupted test set, in percent.

    ``±`` is the standard deviation over repeats alone, or over trials (galleries) alone; ``relative`` is the share of
    the clean score. Single corruptions at single severities are for the heat map.
    """
    rows = []
    for run in runs:
        if run.stage != "evaluate" or run.result is None or not run.result.get("corrupted"):
            continue
        feature = run.result["feature"]
        clean = run.result["scores"][feature]
        where = {"model": run.title, "data": f"{run.result['data']['name']}, {run.result['data']['mode']}"}
        rows.append(
            {
                **where,
                "pictures": "clean",
                "rank-1": _percent(clean["cmc"][0]),
                "± repeats": "",
                "± trials": "",
                "mAP": _percent(clean["mAP"]),
                "mINP": _percent(clean["mINP"]),
                "relative rank-1": "",
                "relative mAP": "",
            }
        )
        rows += [{**where, **_corrupted(row, feature)} for row in run.result["corrupted"] if row["group"] != "cell"]
    return rows


def _corrupted(row: JsonObject, feature: str) -> Row:
    scores = row["scores"][feature]
    spread = scores["spread"]["rank-1"]
    return {
        "pictures": row["name"],
        "rank-1": _percent(scores["rank-1"]),
        "± repeats": _percent(spread["repeat"]["std"]) if spread["repeat"]["levels"] > 1 else "",
        "± trials": _percent(spread["trial"]["std"]) if spread["trial"]["levels"] > 1 else "",
        "mAP": _percent(scores["mAP"]),
        "mINP": _percent(scores["mINP"]),
        "relative rank-1": _number(scores["relative"]["rank-1"], 2),
        "relative mAP": _number(scores["relative"]["mAP"], 2),
    }


def sureness_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per evaluation: how far the reported scores may be luck, and what moves them.

    Intervals are over test persons; each ± is a standard deviation over the trials' galleries or partitions.
    """
    rows = []
    for run in runs:
        if run.stage != "evaluate" or run.result is None or "spread" not in run.result:
            continue
        row = {
            "model": run.title,
            "data": f"{run.result['data']['name']}, {run.result['data']['mode']}",
            "feature": str(run.result["feature"]),
        }
        causes = []
        for measure in ("rank-1", "mAP", "mINP"):
            interval = run.result["intervals"][measure]
            row[f"{measure}, 95 % interval"] = f"{_percent(interval['low'])} to {_percent(interval['high'])}"
            row["test persons"] = str(interval["persons"])
            for cause, levels in run.result["spread"][measure].items():
                if levels["levels"] > 1:
                    causes.append(f"{measure} ± {100 * levels['std']:.2f} over {counted(levels['levels'], cause)}")
        row["spread"] = "; ".join(causes)
        rows.append({key: row[key] for key in sorted(row, key=lambda key: key == "spread")})
    return rows


def training_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per training run: length, speed, last loss."""
    rows = []
    for run in runs:
        if run.stage == "evaluate" or "train" not in run.settings:
            continue
        done = run.result or {}
        backbone = run.settings.get("backbone", {})
        rows.append(
            {
                "run": run.folder.name,
                "method": str(run.settings.get("name", run.stage)),
                "backbone": f"{backbone.get('name')} x {backbone.get('width')}, from {backbone.get('init')}",
                "steps": str(done.get("steps", "unfinished")),
                "seconds": _number(done.get("seconds"), 0),
                "pictures/s": _number(done.get("pictures_per_second"), 0),
                "waiting for data": f"{100 * done['data_wait']:.1f} %" if "data_wait" in done else "",
                "loss": _number(done.get("logs", {}).get("loss"), 3),
                "unreadable images": str(len(done.get("bad_images", {}))),
            }
        )
    return rows


def to_markdown(rows: Sequence[Row]) -> str:
    """A GitHub table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row[column].replace("|", "\\|") for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def to_text(rows: Sequence[Row], widest: int = 32) -> str:
    """Columns for the terminal; what is longer than ``widest`` letters is cut."""
    columns = list(rows[0])
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    lines = [[cell if len(cell) <= widest else f"{cell[: widest - 3]}..." for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header."""
    columns = list(rows[0])
    return csv_text([columns, *([row[column] for column in columns] for row in rows)])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
