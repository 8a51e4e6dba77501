"""One self-contained HTML page from run folders: tables, curves, ranked lists with green and red frames, settings."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dapg.core.files import atomic_write_text
from dapg.core.settings import dump_yaml
from dapg.report.collect import Run
from dapg.report.plots import cmc_curves, corruption_heat_map, training_curves
from dapg.report.tables import Row, corruption_rows, score_rows, to_csv, to_html, to_markdown, training_rows

_STYLE = Path(__file__).with_name("style.css")


def write_page(runs: Sequence[Run], path: Path, title: str = "dapg report") -> list[Path]:
    """Write the page, and its score tables as Markdown and CSV beside it; returns the paths.

    Nothing is loaded from elsewhere: pictures and curves are inside the file.
    """
    sections = [_scores(runs), _corrupted(runs), _training(runs), _ranked_lists(runs), _details(runs)]
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{_made(runs)}{''.join(sections)}</body></html>\n"
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


def _scores(runs: Sequence[Run]) -> str:
    rows = score_rows(runs)
    if not rows:
        return ""
    text = (
        "<h2>Scores</h2><p>In percent; the mean over the trials of the protocol. Each model's reported feature, raw "
        "and centred per camera; the tables beside this page have all features.</p>" + to_html(_reported(runs, rows))
    )
    if any(run.result and run.result.get("comparable") is False for run in runs):
        text += (
            '<p class="note">At least one of these splits is not a published one: its scores say how methods compare '
            "here, and nothing about SYSU-MM01 or RegDB.</p>"
        )
    return text + f"<h3>CMC</h3>{cmc_curves(runs)}"


def _reported(runs: Sequence[Run], rows: list[Row]) -> list[Row]:
    """The rows of each model's reported feature and its variants."""
    headlines = {run.result["feature"] for run in runs if run.stage == "evaluate" and run.result}
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


def _ranked_lists(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        lists = (run.result or {}).get("ranked_lists") or []
        if lists:
            rows = "".join(_ranked_list(run.folder, entry) for entry in lists)
            where = f"{run.result['data']['name']}, {run.result['data']['mode']}" if run.result else ""
            parts.append(f"<h3>{html.escape(run.title)} <small>({html.escape(where)})</small></h3>{rows}")
    if not parts:
        return ""
    intro = "<p>Left the query, then its nearest gallery pictures: green ✓ the same person, red ✗ another one.</p>"
    return f"<h2>Ranked lists</h2>{intro}{''.join(parts)}"


def _ranked_list(folder: Path, entry: dict[str, Any]) -> str:
    figures = [_figure(folder, entry["query"], "query", f"camera {_text(entry['query']['camera'])}")]
    for answer in entry["answers"]:
        kind, mark = ("right", "✓") if answer["match"] else ("wrong", "✗")
        figures.append(_figure(folder, answer, kind, f"<b>{mark}</b> camera {_text(answer['camera'])}"))
    return f'<div class="list">{"".join(figures)}</div>'


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _figure(folder: Path, entry: dict[str, Any], kind: str, caption: str) -> str:
    picture = folder / entry["picture"]
    data = base64.b64encode(picture.read_bytes()).decode() if picture.exists() else ""
    title = html.escape(f"{entry['path']}, person {entry['person']}", quote=True)
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
