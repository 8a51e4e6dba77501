"""One page from the results of the benchmark: a line per model, heat maps, threshold drift, clean against corrupted."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from dapg.core.files import atomic_write_text
from dapg.core.types import JsonObject
from dapg.core.words import counted
from dapg.report.plots import Point, clean_against_corrupted, score_heat_map, threshold_drift
from dapg.report.render import render
from dapg.report.score_tables import Row

_IN_TITLE = 3
"""Models whose names the title has; of more it says how many."""
TARGET = 10.0
"""Per cent: the FPIR that thresholds are set to on clean images."""


def write_benchmark_page(path: Path, results: Sequence[JsonObject], printed: Sequence[Row] = ()) -> None:
    """Write the page; the same results give the same bytes.

    Args:
        path: the HTML file.
        results: of ``dapg benchmark``.
        printed: lines of a leaderboard that papers print.
    """
    names = list(dict.fromkeys(result["model"]["name"] for result in results))
    references = _references(results)
    rows = number_rows(results)
    same = [name for name in ("test", "protocol") if len(rows) > 1 and len({row[name] for row in rows}) == 1]
    text = render(
        "benchmark_page.html",
        title="vi-c 1.0: " + (", ".join(names) if len(names) <= _IN_TITLE else counted(len(names), "model")),
        conclusion=_conclusion(results),
        lists=sorted({f"{result['list']['list']}, SHA-256 {result['list']['sha256'][:12]}" for result in results}),
        tests=sorted({f"{result['data']['name']}, {result['data']['mode']}" for result in results}),
        comparable=all(result["data"]["comparable"] for result in results),
        numbers=[{name: cell for name, cell in row.items() if name not in same} for row in rows],
        open_set=open_set_rows(results),
        families=family_rows(results),
        missing=sorted(
            {
                _summary(r, name)["mCE_missing"]
                for r in results
                for name in r["protocols"]
                if r["features"] not in references
            }
            - {""}
        ),
        printed=[{key: value for key, value in row.items() if any(other[key] for other in printed)} for row in printed],
        points=clean_against_corrupted(_panels(results)),
        maps=[(_heading(r, name), _heat_map(r, name), _drift(r, name)) for r in results for name in r["protocols"]],
    )
    atomic_write_text(path, text)


def _conclusion(results: Sequence[JsonObject]) -> list[str]:
    """For each test and protocol the model with the highest corrupted mAP, its interval, and what it keeps of clean.

    Where other intervals overlap its own, it says of how many models these figures cannot tell the best.
    """
    tests: dict[tuple[str, str], list[tuple[JsonObject, str]]] = {}
    for result in results:
        for name, protocol in result["protocols"].items():
            where = f"{result['data']['name']}, {result['data']['mode']}, protocol {name}"
            listed = str(result["data"].get("hash"))
            tests.setdefault((where, listed), []).append((protocol["summary"], result["model"]["name"]))
    sentences = []
    for (where, _), models in tests.items():
        summary, model = max(models, key=lambda pair: pair[0]["mean"]["mAP"])
        retention = summary["retention"]["mAP"]
        lowest = summary["intervals"]["mAP"]["low"]
        rivals = sum(other["intervals"]["mAP"]["high"] >= lowest for other, _ in models) - 1
        among = f", the highest of {len(models)} models" if len(models) > 1 else ""
        among += f", though its interval overlaps that of {counted(rivals, 'other')}" if rivals else ""
        share = f", and keeps {_percent(retention)} % of its clean mAP" if retention is not None else ""
        score = _with_interval(summary["mean"]["mAP"], summary["intervals"]["mAP"])
        sentences.append(f"{where}: {model} reaches a corrupted mAP of {score} %{among}{share}.")
    return sentences


def number_rows(results: Sequence[JsonObject]) -> list[Row]:
    """A row per model and protocol, in per cent; mCE is 100 for a model that is another's reference."""
    rows, references = [], _references(results)
    for result in results:
        own = "100.0" if result["features"] in references else ""
        for name, protocol in result["protocols"].items():
            summary, mixture = protocol["summary"], protocol["mixture"]
            rows.append(
                {
                    "model": result["model"]["name"],
                    "test": f"{result['data']['name']}, {result['data']['mode']}",
                    "protocol": name,
                    "clean mAP": _with_interval(result["clean"]["mAP"], result["clean"]["intervals"]["mAP"]),
                    "corrupted mAP": _with_interval(summary["mean"]["mAP"], summary["intervals"]["mAP"]),
                    "retention": _percent(summary["retention"]["mAP"]),
                    "mCE": _percent(summary["mCE"]) or own,
                    "relative mCE": _percent(summary["relative_mCE"]) or own,
                    "worst type": f"{summary['worst_type']['type']} {_percent(summary['worst_type']['mAP'])}",
                    "worst tenth": _percent(summary["worst_tenth"]["mAP"]),
                    "mixture mAP": f"{_percent(mixture['mAP'])} ± {_points(mixture['spread']['mAP']['repeat']['std'])}",
                    "clean rank-1": _percent(result["clean"]["rank-1"]),
                    "corrupted rank-1": _percent(summary["mean"]["rank-1"]),
                }
            )
    return rows


def _references(results: Sequence[JsonObject]) -> set[str]:
    """Hashes of the features that errors are divided by."""
    return {result["reference"]["features"] for result in results if result.get("reference")}


def open_set_rows(results: Sequence[JsonObject]) -> list[Row]:
    """FNIR at FPIR, TAR at FAR, AUROC, and the mean false positives of the corrupted sets at the clean threshold."""
    rows = []
    for result in results:
        images = [("clean", result["clean"]["open_set"], "")]
        for name, protocol in result["protocols"].items():
            drift = [cell["FPIR"]["value"] for cell in protocol["cells"] if "FPIR" in cell]
            mean = f"{_percent(sum(drift) / len(drift))}, at most {_percent(max(drift))}" if drift else ""
            images.append((f"mixture, {name}", protocol["open_set"], mean))
        for what, measured, drift_text in images:
            row = {"model": result["model"]["name"], "pictures": what}
            for key in ("FNIR at FPIR 0.1", "FNIR at FPIR 0.01", "TAR at FAR 0.1", "TAR at FAR 0.01", "AUROC"):
                row[key] = measured["reason"] if "reason" in measured else measured[key]["text"]
            row["known persons"] = str(measured.get("known_persons", ""))
            row["FPIR at the clean threshold"] = drift_text
            rows.append(row)
    return rows


def family_rows(results: Sequence[JsonObject]) -> list[Row]:
    """Mean mAP of each family, of seen and unseen types, and how much types overlap."""
    rows = []
    for result in results:
        for name, protocol in result["protocols"].items():
            summary = protocol["summary"]
            rows.append(
                {
                    "model": result["model"]["name"],
                    "protocol": name,
                    **{family: _percent(value) for family, value in summary["families"].items()},
                    **{f"{which} types": _percent(value) for which, value in summary["lists"].items()},
                    "overlap of types": _number(summary["overlap"]),
                    "beyond clean errors": _number(summary["overlap_beyond_clean"]),
                }
            )
    return rows


def _panels(results: Sequence[JsonObject]) -> dict[str, list[Point]]:
    panels: dict[str, list[Point]] = {}
    for result in results:
        for name, protocol in result["protocols"].items():
            where = f"{result['data']['name']} {result['data']['mode']}, {name}"
            clean, summary = result["clean"], protocol["summary"]
            bars = (_bounds(clean["intervals"]["mAP"]), _bounds(summary["intervals"]["mAP"]))
            values = 100 * clean["mAP"], 100 * summary["mean"]["mAP"]
            panels.setdefault(where, []).append(Point(result["model"]["name"], *values, *bars))
    return panels


def _heat_map(result: JsonObject, name: str) -> str:
    types, levels, table = _grid(result, name)
    return score_heat_map(f"mAP, clean {_percent(result['clean']['mAP'])}", types, levels, table)


def _drift(result: JsonObject, name: str) -> str:
    return drift_drawing(result["protocols"][name]["cells"], "FPIR in per cent at the clean threshold")


def drift_drawing(cells: Sequence[JsonObject], title: str) -> str:
    """False positives over the severity, the mean over the types of each family; empty where thresholds mean nothing.

    Args:
        cells: of the benchmark.
        title: above the drawing.
    """
    if any("FPIR" not in cell for cell in cells):
        return ""
    levels = sorted({cell["severity"] for cell in cells})
    families = {}
    for family in dict.fromkeys(cell["family"] for cell in cells):
        rates: dict[int, list[float]] = {level: [] for level in levels}
        for cell in cells:
            if cell["family"] == family:
                rates[cell["severity"]].append(100 * cell["FPIR"]["value"])
        families[family] = [fmean(rates[level]) for level in levels]
    return threshold_drift(TARGET, families, levels, title)


def _grid(result: JsonObject, name: str) -> tuple[list[str], list[int], list[list[float]]]:
    """Types, severities, and the mAP of each cell in per cent."""
    cells = result["protocols"][name]["cells"]
    types = list(dict.fromkeys(cell["type"] for cell in cells))
    levels = sorted({cell["severity"] for cell in cells})
    by_place = {(cell["type"], cell["severity"]): 100 * cell["mAP"] for cell in cells}
    return types, levels, [[by_place[kind, level] for level in levels] for kind in types]


def _heading(result: JsonObject, name: str) -> str:
    return f"{result['model']['name']}: {result['data']['name']}, {result['data']['mode']}, protocol {name}"


def _summary(result: JsonObject, name: str) -> JsonObject:
    summary: JsonObject = result["protocols"][name]["summary"]
    return summary


def _bounds(interval: JsonObject) -> tuple[float, float]:
    return 100 * interval["low"], 100 * interval["high"]


def _with_interval(value: float, interval: JsonObject) -> str:
    low, high = _bounds(interval)
    return f"{_percent(value)} ({low:.1f} to {high:.1f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
