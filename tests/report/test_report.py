"""The report from hand-made run folders: its numbers, its frames, and that it is one file that stands alone."""

import base64
import csv
import html
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dapg import cli
from dapg.core.errors import DataError, UsageError
from dapg.report import plots
from dapg.report.collect import collect
from dapg.report.experiment_page import ExperimentPage, Section, Table, write_experiment
from dapg.report.run_page import write_page
from dapg.report.score_tables import (
    corruption_rows,
    score_rows,
    sureness_rows,
    to_csv,
    to_markdown,
    training_rows,
)
from page_text import Reader, check_page, shown_images

pytest.importorskip("matplotlib")

EVIL = '<script>alert("x")</script>&'


def evaluation(folder: Path, model: str = "histogram", first: float = 0.25, **result: Any) -> Path:
    """A finished evaluation with one ranked list: a right and a wrong answer."""
    (folder / "pictures").mkdir(parents=True)
    entries = []
    for number, colour in enumerate(((250, 0, 0), (0, 250, 0), (0, 0, 250))):
        Image.new("RGB", (8, 16), colour).save(folder / "pictures" / f"{number}.jpg")
        picture = f"pictures/{number}.jpg"
        entries.append({"path": f"p{number}.png", "person": number, "camera": number + 1, "picture": picture})
    settings = {"stage": "evaluate", "model": model, "out": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    environment = {"command": ["dapg", "evaluate", model], "dapg_version": "9.8.7", "packages": {"torch": "2.6"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    whole = {
        "data": {"name": "toy", "mode": "cross-modal"},
        "comparable": False,
        "trials": [{}, {}],
        "feature": "main",
        "scores": {
            "other": {"cmc": [0.125, 0.5, 1.0], "mAP": 0.0625, "mINP": 0.03125},
            "main": {"cmc": [first, 0.5, 0.6, 0.7, 0.8125, 1.0], "mAP": 0.4321, "mINP": 0.1234},
        },
        "ranked_lists": [
            {"query": entries[0], "answers": [{**entries[1], "match": True}, {**entries[2], "match": False}]}
        ],
    }
    (folder / "result.json").write_text(json.dumps({**whole, **result}))
    return folder


def training(folder: Path, finished: bool = True) -> Path:
    folder.mkdir(parents=True)
    settings = {
        "stage": "pretrain",
        "name": "simclr",
        "train": {"steps": 30},
        "backbone": {"name": "resnet18", "width": 0.25, "init": "random"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = [{"step": step, "kind": "train", "loss": 3.0 / step, "lr": 0.1, "bad": None} for step in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "ki')
    if finished:
        result = {
            "steps": 30,
            "seconds": 61.4,
            "pictures_per_second": 312.6,
            "data_wait": 0.0625,
            "logs": {"loss": 0.6},
            "bad_images": {"x.png": ["empty", "y.png"]},
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def page(tmp_path: Path, *folders: Path, title: str = "dapg report") -> str:
    write_page(collect(list(folders)), tmp_path / "page.html", title)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_holds_the_numbers(tmp_path: Path) -> None:
    text = Reader(page(tmp_path, evaluation(tmp_path / "e"), training(tmp_path / "t"))).text
    for number in ("25.0", "81.2", "43.2", "12.3"):
        assert f"\n{number}\n" in text, number
    beside = next(tmp_path.glob("*.md")).read_text()
    for number in ("25.0", "81.2", "43.2", "12.3", "12.5", "-", "6.2", "3.1"):
        assert f"| {number} |" in beside, f"{number}: the table beside the page has the other features too"
    for word in ("30", "61", "313", "6.2 %", "0.600", "resnet18 x 0.25, from random", "histogram (e)", "dapg 9.8.7"):
        assert word in text, word
    assert "not a published one" in text
    assert "histogram (e) reaches an mAP of 43.2 % on toy, cross-modal." in text


@pytest.mark.parametrize("lowest, tied", [(0.43, True), (0.41, True), (0.45, False)])
def test_no_winner_is_named_where_intervals_overlap(tmp_path: Path, lowest: float, tied: bool) -> None:
    def scored(name: str, score: float, low: float, high: float) -> None:
        interval = {"value": score, "low": low, "high": high, "persons": 96, "seeds": 1}
        scores = {"main": {"cmc": [0.2], "mAP": score, "mINP": 0.1}}
        evaluation(tmp_path / name, scores=scores, intervals=dict.fromkeys(("rank-1", "mAP", "mINP"), interval))

    scored("a", 0.42, 0.40, 0.44)
    scored("b", 0.46, lowest, 0.48)
    scored("c", 0.10, 0.05, 0.15)
    text = Reader(page(tmp_path, tmp_path)).text
    assert ("cannot tell which of 2 models has the highest mAP" in text) == tied
    best = (
        f"histogram (b) reaches 46.0 % (95 % interval {100 * lowest:.1f} to 48.0), histogram (a) 42.0 % (95 % interval"
    )
    assert (best in text) == tied
    assert ("histogram (b) reaches an mAP of 46.0 %" in text) != tied
    assert ("the highest of 3 evaluations" in text) != tied


def test_models_of_different_test_lists_are_not_ranked(tmp_path: Path) -> None:
    """Such as RegDB's partitions, which have one name and mode."""
    for number in (1, 2):
        data = {"name": "regdb", "mode": "visible-to-thermal", "hash": f"list {number}"}
        evaluation(tmp_path / f"partition-{number}", data=data)
    text = Reader(page(tmp_path, tmp_path)).text
    assert text.count("reaches an mAP of 43.2 % on regdb, visible-to-thermal.") == 2
    assert "the highest of" not in text


def test_a_panel_shows_the_part_where_its_models_are() -> None:
    """Two points of one span: a tenth of it on either side; of a single value half a point."""
    assert plots._limits([(36.0, 35.0, 37.0), (40.0, 39.0, 45.0)]) == (34.0, 46.0)
    assert plots._limits([(20.0,)]) == (19.5, 20.5)


def test_a_long_name_of_a_legend_is_wrapped_and_not_cut_off() -> None:
    name = "stage 1 without L_total: InfoNCE with one positive, the batch's negatives"
    drawn = plots.clean_against_corrupted({"AGW": [plots.Point(name, 36.0, 20.0), plots.Point("none", 35.0, 19.0)]})
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", drawn)]
    assert max(map(len, texts)) <= 50
    assert name in " ".join(texts)


def with_figures(folder: Path) -> Path:
    """Distances, a t-SNE map and one ranked list's maps beside an evaluation's result."""
    pair = {"modalities": ["infrared", "visible"], "same": [3, 1, 0], "other": [0, 1, 7]}
    lonely = {"modalities": ["infrared", "infrared"], "same": [0, 0, 0], "other": [1, 2, 3]}
    point = {"x": 1.0, "y": 2.0, "camera": 1}
    figures = {
        "distances": {"edges": [0.0, 0.5, 1.0, 2.0], "pairs": [pair, lonely]},
        "tsne": [{**point, "person": 4, "modality": "visible"}, {**point, "person": 9, "modality": "infrared"}],
    }
    (folder / "figures.json").write_text(json.dumps(figures))
    maps = np.zeros((3, 2, 1), dtype=np.float16)
    maps[:, 1] = 1
    np.savez(folder / "activations.npz", allow_pickle=False, **{"0": maps})
    return folder


def test_feature_space_and_activation_maps_are_drawn(tmp_path: Path) -> None:
    folder = with_figures(evaluation(tmp_path / "e"))
    whole = page(tmp_path, folder)
    text = Reader(whole).text
    for word in (
        "infrared - visible",
        "same person, 4 pairs",
        "other person, 8 pairs",
        "t-SNE, 2 images of 2 persons",
    ):
        assert word in text, word
    assert "infrared - infrared" not in text, "no pair of the same person: nothing to compare"
    assert "Grad-CAM, Selvaraju" in text
    pictures = [shown.content for shown in shown_images(whole)]
    assert len(pictures) == 6, "three images, three maps"
    plain, overlaid = (np.asarray(Image.open(io.BytesIO(pictures[n]))).astype(int) for n in (0, 3))
    cold, hot = overlaid[:4].mean(axis=(0, 1)), overlaid[-4:].mean(axis=(0, 1))
    assert plain.shape == overlaid.shape
    assert cold[0] < hot[0], "the lower half, where the map is 1, is redder"
    (folder / "activations.npz").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"activations\.npz cannot be read"):
        page(tmp_path, folder)


def test_how_sure_and_what_moves_the_score_stand_apart(tmp_path: Path) -> None:
    interval = {"value": 0.25, "low": 0.2, "high": 0.31, "persons": 96, "seeds": 1}
    spread = {"gallery": {"levels": 10, "std": 0.0123}, "seed": {"levels": 1, "std": 0.0}}
    measures = ("rank-1", "mAP", "mINP")
    sure: dict[str, Any] = {"intervals": dict.fromkeys(measures, interval), "spread": dict.fromkeys(measures, spread)}
    (row,) = sureness_rows(collect([evaluation(tmp_path / "e", **sure)]))
    assert row["mAP, 95 % interval"] == "20.0 to 31.0"
    assert row["test persons"] == "96"
    assert row["spread"].startswith("rank-1 ± 1.23 over 10 galleries; mAP")
    assert "seed" not in row["spread"]
    assert "20.0 to 31.0" in Reader(page(tmp_path, tmp_path / "e")).text


def test_variants_of_a_chosen_feature_are_on_the_page(tmp_path: Path) -> None:
    scores = {"cmc": [0.5], "mAP": 0.4, "mINP": 0.3}
    names = ("main", "main, flip-averaged", "main, flip-averaged, k-reciprocal", "other")
    folder = evaluation(tmp_path / "e", feature=names[1], scores=dict.fromkeys(names, scores))
    text = Reader(page(tmp_path, folder)).text
    for name in names[:3]:
        assert f"\n{name}\n" in text, name
    assert "\nother\n" not in text


def test_single_pictures_have_grey_frames(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e")
    result = json.loads((folder / "result.json").read_text())
    for answer in result["ranked_lists"][0]["answers"]:
        answer.update(match=None, similarity=0.875)
    kept = {key: result[key] for key in ("data", "ranked_lists", "feature")}
    (folder / "result.json").write_text(json.dumps(kept))
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": "explain", "model": "runs/first"}))
    text = page(tmp_path, folder)
    assert text.count('<figure class="unknown">') == 2
    assert "0.88" in text
    assert "first (e)" in text
    assert "<h2>Scores</h2>" not in text


def test_right_and_wrong_answers_have_their_frames_and_pictures(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e")
    text = page(tmp_path, folder)
    shown = shown_images(text)
    assert [(figure.kind, figure.label) for figure in shown] == [
        ("query", "p0.png, person 0"),
        ("right", "p1.png, person 1"),
        ("wrong", "p2.png, person 2"),
    ]
    for number, figure in enumerate(shown):
        assert figure.content == (folder / "pictures" / f"{number}.jpg").read_bytes()
    assert [figure.caption for figure in shown] == ["query\ncamera 1", "✓ camera 2", "✗ camera 3"]
    assert ('aria-label="same person">✓' in text, 'aria-label="another person">✗' in text) == (True, True)
    assert ".wrong svg { border-color: var(--wrong); border-style: dashed }" in text, "no colour alone"


def test_an_image_is_stored_once_however_often_it_is_shown(tmp_path: Path) -> None:
    text = page(tmp_path, evaluation(tmp_path / "a"), evaluation(tmp_path / "b"))
    assert len(shown_images(text)) == 6
    assert text.count("data:image/jpeg") == 3


def test_corrupted_lists_stand_below_the_clean_ones(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e")
    assert "corrupted images" not in Reader(page(tmp_path, folder)).text
    result = json.loads((folder / "result.json").read_text())
    (entry,) = json.loads(json.dumps(result["ranked_lists"]))
    entry["query"]["corruption"], entry["answers"][0]["corruption"] = "none", "fog 3"
    entry["answers"][0]["picture"] = "corrupted/ab/pictures/1.jpg"
    (folder / "corrupted" / "ab" / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 16), (9, 9, 9)).save(folder / "corrupted" / "ab" / "pictures" / "1.jpg")
    (folder / "result.json").write_text(json.dumps({**result, "corrupted_lists": [entry]}))
    shown = shown_images(page(tmp_path, folder))[3:]
    assert [image.label for image in shown] == ["p0.png, person 0, none", "p1.png, person 1, fog 3", "p2.png, person 2"]
    assert shown[1].content == (folder / "corrupted" / "ab" / "pictures" / "1.jpg").read_bytes()


@pytest.mark.parametrize(
    ("positives", "below"),
    [
        ("generated", "generated images of the person: front, <b>"),
        ("shuffled", "generated images of somebody else"),
    ],
)
def test_positives_of_an_alignment_are_shown(tmp_path: Path, positives: str, below: str) -> None:
    folder = training(tmp_path / "t")
    settings = {"stage": "align", "name": "dapg_align", "positives": positives, "train": {}, "backbone": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    result = json.loads((folder / "result.json").read_text())
    more = {"poses": ["front", "<b>"], "generator": {"pairs": "self"}}
    (folder / "result.json").write_text(json.dumps({**result, **more}))
    assert "Positives" not in page(tmp_path, folder), "no sheet, no chapter"
    Image.new("RGB", (64, 256), (1, 2, 3)).save(folder / "positives.jpg")
    text = page(tmp_path, folder)
    assert base64.b64encode((folder / "positives.jpg").read_bytes()).decode() in text
    assert below in Reader(text).text
    assert "learnt from pairs of kind self" in text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    whole = page(tmp_path, evaluation(tmp_path / "e"), training(tmp_path / "t"))
    check_page(whole)
    reader = Reader(whole)
    assert not {"script", "iframe", "object", "embed", "link"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name, attributes[name])
    assert "@import" not in whole
    assert not re.search(r"url\((?!#|&quot;#)", whole)


def corrupted_set(name: str, group: str, rank_one: float, relative: float | None = 0.5, **more: Any) -> dict[str, Any]:
    spread = {"repeat": {"levels": 3, "std": 0.015}, "trial": {"levels": 1, "std": 0.0}}
    relatives = {"rank-1": relative, "mAP": relative, "mINP": relative}
    spreads = dict.fromkeys(relatives, spread)
    scores = {"rank-1": rank_one, "mAP": 0.2, "mINP": 0.1, "relative": relatives, "spread": spreads}
    return {"name": name, "group": group, "scores": {"main": scores}, **more}


def test_corrupted_scores_stand_beside_clean_ones(tmp_path: Path) -> None:
    cells = [
        corrupted_set(f"{kind} {level}", "cell", value, types=[kind], severities=[level])
        for kind, level, value in (("fog", 1, 0.2125), ("fog", 5, 0.0375), ("rain", 1, 0.1875))
    ]
    rows = [corrupted_set("all", "all", 0.125), corrupted_set("seen", "list", 0.15, None), *cells]
    folder = evaluation(tmp_path / "e", corrupted=rows)
    clean, all_, seen = corruption_rows(collect([folder]))
    assert (clean["pictures"], clean["rank-1"], clean["relative rank-1"]) == ("clean", "25.0", "")
    assert (all_["pictures"], all_["rank-1"], all_["relative rank-1"]) == ("all", "12.5", "0.50")
    assert (all_["± repeats"], all_["± trials"]) == ("1.5", ""), "one trial has no spread"
    assert seen["relative mAP"] == "", "nothing is a share of a score of 0"
    text = page(tmp_path, folder)
    table, maps = text[text.index("<h2>Corrupted test images") :].split("</table>", 1)
    assert "12.5" in table
    for number in ("21.2", "3.8", "18.8", "rank-1, clean 25.0", "mAP, clean 43.2", "fog", "rain"):
        assert f">{number}<" in maps, f"{number} is not in the heat map"
    assert (tmp_path / "page-corrupted.csv").read_text().count("\n") == 4
    assert corruption_rows(collect([evaluation(tmp_path / "clean")])) == []


def test_text_of_others_is_escaped_everywhere(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", model=EVIL, data={"name": EVIL, "mode": EVIL})
    result = json.loads((folder / "result.json").read_text())
    for entry in (result["ranked_lists"][0]["query"], *result["ranked_lists"][0]["answers"]):
        entry["path"] = '"><script>' + EVIL
    result["scores"][EVIL] = result["scores"]["other"]
    (folder / "result.json").write_text(json.dumps(result))
    reader = Reader(page(tmp_path, folder, title=EVIL))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "alert" in reader.text, "it is shown as text"


def test_built_twice_it_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    folders = (evaluation(tmp_path / "e"), training(tmp_path / "t"))
    written = []
    for name in ("one", "two"):
        paths = write_page(collect(list(folders)), tmp_path / name / "page.html")
        assert [path.suffix for path in paths] == [".html", ".md", ".csv"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_two_evaluations_of_one_model_are_two_rows_and_two_curves(tmp_path: Path) -> None:
    folders = (evaluation(tmp_path / "seed 0"), evaluation(tmp_path / "seed 1", first=0.375))
    assert [row["model"] for row in score_rows(collect(list(folders)))] == [
        *["histogram (seed 0)"] * 2,
        *["histogram (seed 1)"] * 2,
    ]
    text = page(tmp_path, *folders)
    curves = text[text.index("<h3>CMC</h3>") : text.index("<h2>Ranked lists</h2>")]
    assert "histogram (seed 0)" in curves
    assert "histogram (seed 1)" in curves


def test_unfinished_runs_are_shown_as_such(tmp_path: Path) -> None:
    folder = training(tmp_path / "t", finished=False)
    (row,) = training_rows(collect([folder]))
    assert (row["steps"], row["seconds"], row["loss"], row["unreadable images"]) == ("unfinished", "", "", "0")
    assert "unfinished" in page(tmp_path, folder)
    assert not (tmp_path / "page.md").exists(), "no score, no score table"


def test_a_lost_thumbnail_does_not_lose_the_page(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e")
    (folder / "pictures" / "1.jpg").unlink()
    assert [image.content for image in shown_images(page(tmp_path, folder)) if image.label == "p1.png, person 1"] == [
        b""
    ]


def test_absolute_paths_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    folder = training(tmp_path / "run")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings |= {
        "data": {"root": f"{tmp_path}/pictures"},
        "more": f"synthetic={tmp_path}/people",
        "windows": "C:\\a\\b",
    }
    settings["backbone"]["init"] = f"{tmp_path}/first"
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "environment.json").write_text(json.dumps({"command": ["/usr/bin/dapg", f"--out={tmp_path}/run"]}))
    text = page(tmp_path, folder)
    assert str(tmp_path) not in text
    for shown in (
        ".../pictures",
        "synthetic=.../people",
        "from .../first",
        "pretrain: .../run",
        ".../b",
        "--out=.../run",
    ):
        assert shown in text
    write_page(collect([folder]), tmp_path / "page.html", paths=True)
    assert f"{tmp_path}/pictures" in (tmp_path / "page.html").read_text()


def test_tables_by_hand(tmp_path: Path) -> None:
    rows = score_rows(collect([evaluation(tmp_path / "e", model="a|b, c")]))
    assert [row["feature"] for row in rows] == ["main", "other"], "the reported feature first"
    assert rows[0] == {
        "model": "a|b, c (e)",
        "data": "toy, cross-modal",
        "feature": "main",
        "rank-1": "25.0",
        "rank-5": "81.2",
        "mAP": "43.2",
        "mINP": "12.3",
        "trials": "2",
    }
    assert rows[1]["rank-5"] == "-", "a curve of three ranks has none"
    lines = to_markdown(rows).splitlines()
    assert lines[0] == "| model | data | feature | rank-1 | rank-5 | mAP | mINP | trials |"
    assert lines[1] == "|---|---|---|---|---|---|---|---|"
    assert lines[2] == "| a\\|b, c (e) | toy, cross-modal | main | 25.0 | 81.2 | 43.2 | 12.3 | 2 |"
    assert list(csv.DictReader(io.StringIO(to_csv(rows)))) == rows
    rows = [{"<x>": "<b>", "n": "-12.5", "p": "3.0 %", "w": "1.2.3"}]
    section = Section("s", [Table("h", rows)])
    write_experiment(tmp_path / "page.html", ExperimentPage("t", [], {}, [section], {}, []))
    table = (tmp_path / "page.html").read_text()
    assert '<th scope="col">&lt;x&gt;</th>' in table
    assert "<td>&lt;b&gt;</td>" in table
    assert '<td class="number">-12.5</td>' in table
    assert '<td class="number">3.0 %</td>' in table
    assert "<td>1.2.3</td>" in table


def test_collect_finds_runs_at_any_depth_once_in_order(tmp_path: Path) -> None:
    training(tmp_path / "b" / "run")
    evaluation(tmp_path / "b" / "run" / "evaluate-toy")
    evaluation(tmp_path / "a")
    found = collect([tmp_path / "b", tmp_path])
    assert [run.folder.name for run in found] == ["run", "evaluate-toy", "a"]
    assert [run.stage for run in found] == ["pretrain", "evaluate", "evaluate"]
    assert [line["step"] for line in found[0].metrics] == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no run \(a folder with config\.yaml\) below .*empty"):
        collect([tmp_path / "empty"])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'dapg\[plot\]'"):
        page(tmp_path, evaluation(tmp_path / "e"))


def test_a_long_table_is_printed_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {f"{'x' * 40}{number}": {"cmc": [0.5], "mAP": 0.4, "mINP": 0.3} for number in range(42)}
    evaluation(tmp_path / "e", scores=scores, feature=next(iter(scores)))
    assert cli.main(["report", str(tmp_path / "e"), "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert said.count(f"  {'x' * 29}...  ") == 40
    assert f"and 2 more rows in {tmp_path / 'page.md'}" in said


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluation(tmp_path / "e")
    out = tmp_path / "new" / "first.html"
    assert cli.main(["report", str(folder), "--out", str(out), "--title", "First look"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"written: {out}" in said
    assert said[1].split() == ["model", "data", "feature", "rank-1", "rank-5", "mAP", "mINP", "trials"]
    assert said[2].split() == ["histogram", "(e)", "toy,", "cross-modal", "main", "25.0", "81.2", "43.2", "12.3", "2"]
    assert said[2].index("43.2") == said[1].index("mAP")
    assert "<h1>First look</h1>" in out.read_text(encoding="utf-8")
    for words, message in (
        ([], "dapg report needs a folder"),
        (["--out", "x.html"], "dapg report needs a folder"),
        ([str(folder), "--titel", "x"], "unknown option --titel; did you mean '--title'?"),
        ([str(folder), "--out"], "--out needs a value"),
        (["/nowhere"], "/nowhere is not a folder"),
    ):
        assert cli.main(["report", *words]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["report", str(folder), "--out", str(tmp_path)]) == 1
    assert "could not write" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["report", "x", "--help"])
    assert capsys.readouterr().out.startswith("usage: dapg report")


def test_of_many_runs_only_the_first_are_drawn_and_all_are_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapg.report.run_page.DRAWN", 2)
    folders = [training(tmp_path / f"run {number}") for number in range(4)]
    text = page(tmp_path, *folders)
    assert "The tables hold all 4 runs" in Reader(text).text
    assert [text.count(f"<h3>simclr (run {number})</h3>") for number in range(4)] == [1, 1, 0, 0]
    assert all(f"run {number}" in text[text.index("<h2>Training</h2>") :] for number in range(4))
