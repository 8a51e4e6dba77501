"""One self-contained HTML page from run folders: tables, curves, ranked lists with green and red frames, settings."""

import base64
import html
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text, read_json
from dapg.core.settings import dump_yaml
from dapg.core.types import JsonObject
from dapg.report.collect import Run
from dapg.report.plots import (
    cmc_curves,
    corruption_heat_map,
    distance_histograms,
    overlay,
    training_curves,
    tsne_scatter,
)
from dapg.report.score_tables import (
    Row,
    corruption_rows,
    score_rows,
    sureness_rows,
    to_csv,
    to_html,
    to_markdown,
    training_rows,
)

Read = Callable[[str], bytes]
_STYLE = Path(__file__).with_name("style.css")


def write_page(runs: Sequence[Run], path: Path, title: str = "dapg report", note: str = "") -> list[Path]:
    """Write the page, and its score tables as Markdown and CSV beside it; returns the paths.

    ``note`` stands below the title.

    Nothing is loaded from elsewhere: pictures and curves are inside the file.
    """
    sections = [
        _scores(runs),
        _corrupted(runs),
        _feature_space(runs),
        _training(runs),
        _positives(runs),
        _ranked_lists(runs),
        _details(runs),
    ]
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{stylesheet()}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{_made(runs)}{_note(note)}{''.join(sections)}</body></html>\n"
    )
    atomic_write_text(path, text)
    written = [path]
    for addition, rows in (("", score_rows(runs)), ("-corrupted", corruption_rows(runs))):
        if rows:
            for suffix, table in ((".md", to_markdown(rows)), (".csv", to_csv(rows))):
                beside = path.with_name(path.stem + addition + suffix)
                atomic_write_text(beside, table)
                written.append(beside)
    return written


def stylesheet() -> str:
    """The pages' CSS."""
    return _STYLE.read_text(encoding="utf-8")


def _made(runs: Sequence[Run]) -> str:
    environment = next((run.environment for run in runs if run.environment), {})
    facts = [
        f"dapg {environment.get('dapg_version', '?')}",
        f"commit {(environment.get('commit') or 'unknown')[:12]}",
        f"torch {environment.get('packages', {}).get('torch', '?')}",
        f"device {environment.get('device', '?')}",
        str(environment.get("machine", "")),
    ]
    return f'<p class="note">{html.escape(", ".join(facts))}</p>'


def _note(text: str) -> str:
    return f"<p><b>{html.escape(text)}</b></p>" if text else ""


def _scores(runs: Sequence[Run]) -> str:
    rows = score_rows(runs)
    if not rows:
        return ""
    text = (
        "<h2>Scores</h2><p>In percent; the mean over the trials of the protocol. Each model's reported feature, raw "
        "and centred per camera, and after what was asked for: flip averaging, re-ranking, query expansion; the tables "
        "beside this page have all features.</p>" + to_html(_reported(runs, rows))
    )
    sure = sureness_rows(runs)
    if sure:
        text += (
            "<h3>How sure</h3><p>Intervals from drawing test persons anew (bootstrap); the spread over galleries or "
            "partitions stands apart, because ten galleries of one model are not ten models.</p>" + to_html(sure)
        )
    if any(run.result and run.result.get("comparable") is False for run in runs):
        text += (
            '<p class="note">At least one of these splits is not a published one: its scores say how methods compare '
            "here, and nothing about SYSU-MM01 or RegDB.</p>"
        )
    return text + f"<h3>CMC</h3>{cmc_curves(runs)}"


def _reported(runs: Sequence[Run], rows: list[Row]) -> list[Row]:
    """The rows of each model's reported feature and its variants."""
    headlines = {run.result["feature"].split(",")[0] for run in runs if run.stage == "evaluate" and run.result}
    return [row for row in rows if row["feature"].split(",")[0] in headlines]


def _corrupted(runs: Sequence[Run]) -> str:
    rows = corruption_rows(runs)
    if not rows:
        return ""
    maps = [f"<h3>{html.escape(run.title)}</h3>{drawn}" for run in runs if (drawn := corruption_heat_map(run))]
    return (
        "<h2>Corrupted test pictures</h2><p>In percent. <i>seen</i> are the 15 corruptions that pre-training may draw, "
        "<i>unseen</i> the other 5; relative is the corrupted score as a share of the clean one. ± repeats is the "
        "standard deviation over test sets with other types, severities and noise, ± trials over galleries.</p>"
        f"{to_html(rows)}{''.join(maps)}"
    )


def _feature_space(runs: Sequence[Run]) -> str:
    """Histograms of distances and t-SNE maps, from what evaluations left in ``figures.json``."""
    parts = []
    for run in runs:
        path = run.folder / "figures.json"
        if run.stage != "evaluate" or run.result is None or not path.exists():
            continue
        figures = read_json(path)
        drawn = distance_histograms(figures) + tsne_scatter(figures)
        if drawn:
            where = f"{run.result['data']['name']}, {run.result['data']['mode']}, feature {run.result['feature']}"
            parts.append(f"<h3>{html.escape(run.title)} <small>({html.escape(where)})</small></h3>{drawn}")
    if not parts:
        return ""
    intro = (
        "<p>Distances between all test pictures of the same person and of different persons, by kind of light. In a "
        "t-SNE map near points are alike; distances between far groups and their sizes mean nothing.</p>"
    )
    return f"<h2>Feature space</h2>{intro}{''.join(parts)}"


def _training(runs: Sequence[Run]) -> str:
    rows = training_rows(runs)
    if not rows:
        return ""
    curves = [
        f"<h3>{html.escape(run.title)}</h3>{drawn}"
        for run in runs
        if run.stage != "evaluate" and (drawn := training_curves(run))
    ]
    return f"<h2>Training</h2>{to_html(rows)}{''.join(curves)}"


def _positives(runs: Sequence[Run]) -> str:
    """The sheets that alignments left: pictures, and below each what it was aligned with."""
    parts = []
    for run in runs:
        sheet = run.folder / "positives.jpg"
        if run.stage != "align" or not sheet.exists():
            continue
        result = run.result or {}
        who = {"shuffled": "generated pictures of somebody else", "true": "other pictures of the person"}
        below = who.get(run.settings["positives"], "generated pictures of the person")
        below += f": {', '.join(poses)}" if (poses := result.get("poses")) else ""
        pairs = result.get("generator", {}).get("pairs")
        below += f" (the generator learnt from pairs of kind {pairs})" if pairs else ""
        data = base64.b64encode(sheet.read_bytes()).decode()
        parts.append(
            f"<h3>{html.escape(run.title)}</h3><p>On top the picture, below it {html.escape(below)}."
            f'</p><div class="wide"><img src="data:image/jpeg;base64,{data}" alt="positives"></div>'
        )
    return f"<h2>Positives of the alignment</h2>{''.join(parts)}" if parts else ""


def _ranked_lists(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        result = run.result or {}
        lists, corrupted = (result.get(key) or [] for key in ("ranked_lists", "corrupted_lists"))
        read = partial(_picture, run.folder)
        if lists:
            maps = _activations(run.folder)
            rows = "".join(ranked_list(read, entry, maps.get(str(n))) for n, entry in enumerate(lists))
            where = f"{result['data']['name']}, {result['data']['mode']}"
            note = _MAPS_NOTE if maps else ""
            parts.append(f"<h3>{html.escape(run.title)} <small>({html.escape(where)})</small></h3>{note}{rows}")
        if corrupted:
            rows = "".join(ranked_list(read, entry, None) for entry in corrupted)
            parts.append(f"<h4>{html.escape(run.title)}, the same queries with corrupted pictures</h4>{rows}")
    if not parts:
        return ""
    intro = (
        "<p>Left the query, then its nearest gallery pictures: green ✓ the same person, red ✗ another one, grey where "
        "nobody knows.</p>"
    )
    return f"<h2>Ranked lists</h2>{intro}{''.join(parts)}"


_MAPS_NOTE = (
    '<p class="note">Below each answer what makes it like the query, below the query what makes it like its first '
    "answer (Grad-CAM, Selvaraju et al. 2017, of the cosine similarity); a query without answers shows how strong its "
    "features are (Zagoruyko and Komodakis 2017). Each map is scaled to its own largest value: red.</p>"
)


def _picture(folder: Path, name: str) -> bytes:
    path = folder / name
    return path.read_bytes() if path.exists() else b""


def _activations(folder: Path) -> JsonObject:
    """Arrays of ``activations.npz``, by the number of the ranked list; empty where there are none."""
    path = folder / "activations.npz"
    if not path.exists():
        return {}
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it, or make the folder anew") from error


def ranked_list(read: Read, entry: JsonObject, maps: Any = None) -> str:
    """A row of pictures, query first, and one of maps below it where there are some.

    Args:
        read: the JPEG file of an entry's ``picture``; empty where there is none.
        entry: as ``evaluation.pictures.describe_lists`` makes it.
        maps: (1 + answers, h, w), 0 ... 1, or None.
    """
    rows = [_row(read, entry, None)]
    if maps is not None:
        rows.append(_row(read, entry, maps))
    return "".join(f'<div class="list">{"".join(figures)}</div>' for figures in rows)


def _row(read: Read, entry: JsonObject, maps: Any) -> list[str]:
    captions = [_caption(entry["query"], "")]
    kinds = ["query"]
    for answer in entry["answers"]:
        match = answer["match"]
        kinds.append("unknown" if match is None else "right" if match else "wrong")
        mark = {"right": "<b>✓</b> ", "wrong": "<b>✗</b> "}.get(kinds[-1], "")
        captions.append(_caption(answer, mark))
    shown = [entry["query"], *entry["answers"]]
    return [
        _figure(read(one["picture"]), one, kind, caption if maps is None else "", None if maps is None else maps[place])
        for place, (one, kind, caption) in enumerate(zip(shown, kinds, captions, strict=True))
    ]


def _caption(entry: JsonObject, mark: str) -> str:
    """The camera, and the similarity where it is known."""
    camera = "" if entry["camera"] == -1 else f"camera {_text(entry['camera'])}"
    likeness = f"<br>{entry['similarity']:.2f}" if isinstance(entry.get("similarity"), float) else ""
    return f"{mark}{camera}{likeness}"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _figure(content: bytes, entry: JsonObject, kind: str, caption: str, activation: Any) -> str:
    if activation is not None and content:
        content = overlay(content, activation)
    data = base64.b64encode(content).decode()
    facts = [entry["path"], f"person {entry['person']}", *filter(None, [entry.get("corruption")])]
    title = html.escape(", ".join(facts), quote=True)
    source = f"data:image/jpeg;base64,{data}"
    return f'<figure class="{kind}"><img src="{source}" alt="{title}" title="{title}"><span>{caption}</span></figure>'


def _details(runs: Sequence[Run]) -> str:
    parts = ["<h2>Settings</h2>"]
    for run in runs:
        command = " ".join(map(str, run.environment.get("command", [])))
        parts.append(
            f"<details><summary>{html.escape(run.stage)}: {html.escape(str(run.folder))}</summary>"
            f"<pre>{html.escape(command)}</pre><pre>{html.escape(dump_yaml(run.settings))}</pre></details>"
        )
    return "".join(parts)
