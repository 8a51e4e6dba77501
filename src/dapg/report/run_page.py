"""One self-contained HTML page from run folders: tables, curves, ranked lists with green and red frames, settings."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text
from dapg.core.ranges import CountOrZero
from dapg.core.schema import REMEDY, Array, read_arrays, read_json
from dapg.core.settings import dump_yaml
from dapg.core.types import JsonObject
from dapg.core.words import without_folders
from dapg.report.collect import Run
from dapg.report.plots import (
    cmc_curves,
    corruption_heat_map,
    distance_histograms,
    training_curves,
    tsne_scatter,
)
from dapg.report.ranked_list import ranked_list
from dapg.report.render import render
from dapg.report.score_tables import (
    Row,
    corruption_rows,
    score_rows,
    sureness_rows,
    to_csv,
    to_markdown,
    training_rows,
)


class _Pair(TypedDict):
    modalities: list[str]
    same: list[CountOrZero]
    other: list[CountOrZero]


class _Distances(TypedDict):
    edges: list[float]
    pairs: list[_Pair]


class _Point(TypedDict):
    person: int
    modality: str
    x: float
    y: float


class _Figures(TypedDict, total=False):
    """``figures.json`` of an evaluation."""

    distances: _Distances | None
    tsne: list[_Point] | None


DRAWN = 40
"""Runs whose curves and images are on a page; of more, nobody reads them, and a page of thousands opens nowhere."""


def write_page(
    runs: Sequence[Run], path: Path, title: str = "dapg report", note: str = "", paths: bool = False
) -> list[Path]:
    """Write the page, and its score tables as Markdown and CSV beside it; returns the paths.

    Args:
        runs: what it shows.
        path: the page's file.
        title: its heading.
        note: stands below the title.
        paths: show absolute paths as they are; else their last part.

    Nothing is loaded from elsewhere: images and curves are inside the file.
    """
    if not paths:
        runs = [_without_folders(run) for run in runs]
    scores = score_rows(runs)
    drawn = runs[:DRAWN]
    if len(runs) > DRAWN:
        note += (
            f" The tables hold all {len(runs):,} runs; curves, maps and ranked lists are those of the first {DRAWN}."
        )
    text = render(
        "run_page.html",
        title=title,
        conclusion=_conclusion(runs),
        note=note.strip(),
        facts=_facts(runs),
        scores=_reported(runs, scores),
        sureness=sureness_rows(runs),
        comparable=not any(run.result and run.result.get("comparable") is False for run in runs),
        cmc=cmc_curves(drawn),
        corrupted=corruption_rows(runs),
        heat_maps=[(run.title, drawing) for run in drawn if (drawing := corruption_heat_map(run))],
        feature_spaces=_feature_spaces(drawn),
        trainings=training_rows(runs),
        curves=[(run.title, drawing) for run in drawn if run.stage != "evaluate" and (drawing := training_curves(run))],
        positives=_positives(drawn),
        searches=_searches(drawn),
        runs=[
            (
                f"{run.stage}: {run.folder if paths else without_folders(str(run.folder))}",
                " ".join(map(str, run.environment.get("command", []))),
                dump_yaml(run.settings),
            )
            for run in runs
        ],
    )
    atomic_write_text(path, text)
    written = [path]
    for addition, rows in (("", scores), ("-corrupted", corruption_rows(runs))):
        if rows:
            for suffix, table in ((".md", to_markdown(rows)), (".csv", to_csv(rows))):
                beside = path.with_name(path.stem + addition + suffix)
                atomic_write_text(beside, table)
                written.append(beside)
    return written


def _without_folders(run: Run) -> Run:
    return replace(
        run,
        settings=without_folders(run.settings),
        environment=without_folders(run.environment),
        result=without_folders(run.result),
    )


def _conclusion(runs: Sequence[Run]) -> str:
    """The highest mAP of each test, with its interval where there is one, and how many models it was the highest of.

    No model is named the best where another one's interval overlaps its own.
    """
    tests: dict[tuple[str, str], list[tuple[float, Run, JsonObject]]] = {}
    for run in runs:
        if run.stage == "evaluate" and run.result is not None:
            where = f"{run.result['data']['name']}, {run.result['data']['mode']}"
            score = run.result["scores"][run.result["feature"]]["mAP"]
            tests.setdefault((where, str(run.result["data"].get("hash"))), []).append((score, run, run.result))
    sentences = []
    for (where, _), models in tests.items():
        models.sort(key=lambda model: -model[0])
        bounds = [result.get("intervals", {}).get("mAP") for _, _, result in models]
        sure = [f" (95 % interval {100 * b['low']:.1f} to {100 * b['high']:.1f})" if b else "" for b in bounds]
        rivals = [n for n, b in enumerate(bounds) if n and b and bounds[0] and b["high"] >= bounds[0]["low"]]
        score, best, _ = models[0]
        if rivals:
            next_score, next_best, _ = models[rivals[0]]
            sentences.append(
                f"On {where}, these evaluations cannot tell which of {len(rivals) + 1} models has the highest mAP, "
                f"because their 95 % intervals overlap: {best.title} reaches {100 * score:.1f} %{sure[0]}, "
                f"{next_best.title} {100 * next_score:.1f} %{sure[rivals[0]]}. dapg compare, which pairs their "
                "queries, can tell smaller differences."
            )
        else:
            among = f", the highest of {len(models)} evaluations" if len(models) > 1 else ""
            sentences.append(f"{best.title} reaches an mAP of {100 * score:.1f} %{sure[0]} on {where}{among}.")
    return " ".join(sentences)


def _facts(runs: Sequence[Run]) -> str:
    """What the first run that says so was made with."""
    environment = next((run.environment for run in runs if run.environment), {})
    return ", ".join(
        [
            f"dapg {environment.get('dapg_version', '?')}",
            f"commit {(environment.get('commit') or 'unknown')[:12]}",
            f"torch {environment.get('packages', {}).get('torch', '?')}",
            f"device {environment.get('device', '?')}",
            str(environment.get("machine", "")),
        ]
    )


def _reported(runs: Sequence[Run], rows: list[Row]) -> list[Row]:
    """The rows of each model's reported feature and its variants."""
    headlines = {run.result["feature"].split(",")[0] for run in runs if run.stage == "evaluate" and run.result}
    return [row for row in rows if row["feature"].split(",")[0] in headlines]


def _feature_spaces(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Histograms of distances and t-SNE maps, from what evaluations left in ``figures.json``: run, where, drawing."""
    spaces = []
    for run in runs:
        path = run.folder / "figures.json"
        if run.stage != "evaluate" or run.result is None or not path.exists():
            continue
        figures = read_json(path, _Figures)
        if drawing := distance_histograms(figures) + tsne_scatter(figures):
            where = f"{run.result['data']['name']}, {run.result['data']['mode']}, feature {run.result['feature']}"
            spaces.append((run.title, where, drawing))
    return spaces


def _positives(runs: Sequence[Run]) -> list[tuple[str, str, bytes]]:
    """The sheets that alignments left: run, what each image was aligned with, JPEG."""
    sheets = []
    for run in runs:
        sheet = run.folder / "positives.jpg"
        if run.stage != "align" or not sheet.exists():
            continue
        result = run.result or {}
        who = {"shuffled": "generated images of somebody else", "true": "other images of the person"}
        below = who.get(run.settings["positives"], "generated images of the person")
        below += f": {', '.join(poses)}" if (poses := result.get("poses")) else ""
        pairs = result.get("generator", {}).get("pairs")
        below += f" (the generator learnt from pairs of kind {pairs})" if pairs else ""
        sheets.append((run.title, below, sheet.read_bytes()))
    return sheets


def _searches(runs: Sequence[Run]) -> list[JsonObject]:
    """Ranked lists of each run, of clean and of corrupted images."""
    searches = []
    for run in runs:
        result = run.result or {}
        lists, corrupted = (result.get(key) or [] for key in ("ranked_lists", "corrupted_lists"))
        if not lists and not corrupted:
            continue
        read = partial(_image, run.folder)
        maps = _activations(run.folder) if lists else {}
        searches.append(
            {
                "name": run.title,
                "where": f"{result['data']['name']}, {result['data']['mode']}",
                "mapped": bool(maps),
                "lists": [ranked_list(read, entry, maps.get(str(number))) for number, entry in enumerate(lists)],
                "corrupted": [ranked_list(read, entry) for entry in corrupted],
            }
        )
    return searches


def _image(folder: Path, name: str) -> bytes:
    path = folder / name
    return path.read_bytes() if path.exists() else b""


def _activations(folder: Path) -> JsonObject:
    """Arrays of ``activations.npz``, by the number of the ranked list; empty where there are none."""
    path = folder / "activations.npz"
    if not path.exists():
        return {}
    maps = read_arrays(path)
    if not all(Array("f", (None, None, None)).fits(array) for array in maps.values()):
        raise DataError(f"{path} holds something else than maps; {REMEDY}")
    return dict(maps)
