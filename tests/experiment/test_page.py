"""The page and the tables' notes from made-up cells: checks, differences, curves, hours; nothing but results needed."""

import base64
import csv
import fnmatch
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapg.corruptions.library import DRAWS
from dapg.experiment import claims, heat_maps, provenance, secondary
from dapg.experiment.figures import comparisons, difference, in_common, lines, ours_and_others, spread_of
from dapg.experiment.growth import gains
from dapg.experiment.matrix import Source
from dapg.experiment.page import write_report
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import CellResult, Stored, add_cell, read_cells
from dapg.report.experiment_page import ExperimentPage
from dapg.scoring.bootstrap import PersonScores
from made_up_cells import made_up
from page_text import check_page, shown_images

pytest.importorskip("matplotlib")


def store(experiment: Experiment, chances: dict[str, float]) -> None:
    """Made-up results of the cells that fit a pattern, with its chance of a hit."""
    for cell in experiment.cells():
        for pattern, better in chances.items():
            if fnmatch.fnmatch(cell.name, pattern):
                add_cell(experiment.folder, made_up(cell, better, modes_of(cell.data)))


def stored_of(experiment: Experiment) -> Stored:
    return read_cells(experiment.folder, with_persons=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Two seeds of four arms from ImageNet: never a hit under AGW from ImageNet, always one from stage 1."""
    root = tmp_path_factory.mktemp("made") / "results"
    experiment = Experiment(("table1", "beyond"), starts=("imagenet",), seeds=2, results=root)
    store(experiment, {"in-sup+agw-*": 0.0, "dapg-1+agw-*": 1.0, "in-sup+cil-*": 0.5, "simclr+agw-*": 0.5})
    return experiment


@pytest.fixture
def experiment(made: Experiment, tmp_path: Path) -> Experiment:
    """A copy of its own."""
    shutil.copytree(made.results, tmp_path / "results")
    return replace(made, results=tmp_path / "results")


def files_of(experiment: Experiment) -> dict[str, bytes]:
    """Everything below the results."""
    whole = sorted(path for path in experiment.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(experiment.folder)): path.read_bytes() for path in whole}


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page)))


def test_page_is_made_from_results_alone_and_byte_equal(experiment: Experiment, tmp_path: Path) -> None:
    text = write_report(experiment)
    first = files_of(experiment)
    there = replace(experiment, results=tmp_path / "copy", runs=tmp_path / "nothing")
    for kept in ("persons", "cells.jsonl"):
        source, target = experiment.folder / kept, there.folder / kept
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    assert write_report(there) == text
    assert files_of(there) == first
    whole = first["page/report.html"].decode()
    check_page(whole)
    page = text_of(whole)
    assert "dapg reproduce show TABLE --pictures makes them" in page
    # 4 arms x 2 seeds: 8 fine-tunings of 72 s, 4 pre-trainings of 36 s, 8 scorings of 18 s = 864 s.
    assert "cpu (2 cores, 1 thread, torch 2.6) 0123456789 8 12 0.20 0.04 0.24" in page
    command = "dapg reproduce run table1 --scale=small --data=synthetic --starts=imagenet --seeds=2 --repeats=2"
    assert "4 cells, 0.12 h on cpu (2 cores, 1 thread, torch 2.6), commits 0123456789." in page
    assert f"Run by {command} ." in page
    assert "By other settings" not in page
    for panel in ("AGW from ImageNet", "pre-training simclr, from imagenet"):
        assert f">{panel}</text>" in whole, panel
    assert "Not run: PNL; BYOL; SSL (reconstruction); VTBR; " in page
    assert "Not run: MoCo v2; " in page
    # Stage 1 always hits, SimCLR half of the time.
    assert "AGW from ImageNet, 2 seeds: on corrupted images DAPG (stage 1) is ahead of the strongest other" in page
    assert "No comparison is registered for these cells" in page
    rows = list(csv.DictReader(io.StringIO(first["cells.csv"].decode())))
    first_row = {
        "cell": "dapg-1+agw-synthetic-imagenet-0",
        "mAP clean": "100.00",
        "minutes training": "1.8",
        "minutes scoring": "0.3",
        "commit": "0123456789",
        "draws": str(DRAWS),
        "corrupted list": "0123456789abcdef",
    }
    assert {key: rows[0][key] for key in first_row} == first_row
    table = first["tables/beyond.md"].decode()
    assert table.rstrip().rpartition("\n")[2] == "Not run: caj on synthetic, first weights imagenet."
    assert "caj" not in first["tables/beyond.csv"].decode()


def test_it_is_said_where_fewer_seeds_are_shown_than_stored(experiment: Experiment) -> None:
    said = "2 seeds are stored, 1 shown (--seeds)."
    assert said not in write_report(experiment)
    assert said in write_report(replace(experiment, seeds=1))


def test_gain_under_corruption_is_told_from_that_on_clean_images(tmp_path: Path) -> None:
    """Two persons gain 0.1 on clean images and 0.3 on corrupted ones, so 20 points more; nobody's rank-1 moves."""
    experiment = Experiment(("primary",), starts=("imagenet",), seeds=2, results=tmp_path)
    arms = {"in-sup": ((0.2, 0.4), (0.1, 0.1)), "dapg-1-mixed-outside": ((0.3, 0.5), (0.4, 0.4))}
    chances = {f"{arm}+agw-*": 0.5 for arm in arms} | {"in-sup+cil-*": 0.5}
    store(experiment, chances)
    stored = {}
    for name, result in stored_of(experiment).items():
        persons = {
            f"all-100/{condition}": PersonScores((1, 2), np.array([[0.5, mean, 0.0, 1.0] for mean in means]))
            for condition, means in zip(("clean", "all"), arms[result.arm], strict=True)
        }
        stored[name] = replace(result, persons=persons)
    table = secondary.answers(experiment, stored)
    rows = {row["claim"]: row for row in table.rows}
    assert len(rows) == 3
    gained = rows["stage 1 gains more on corrupted than on clean images, AGW"]
    assert (gained["difference"], gained["verdict"]) == ("+20.00 (+20.00 to +20.00)", "holds here")
    robust = rows["Fig. 1: CIL is above AGW on corrupted images"]
    assert (robust["difference"], robust["verdict"]) == ("+0.00 (+0.00 to +0.00)", "cannot be told")
    assert len(secondary.answers(replace(experiment, seeds=1), stored).rows) == 0, "one seed decides nothing"


def test_printed_values_are_for_orientation_on_other_people(experiment: Experiment) -> None:
    experiment = replace(experiment, tables=("table1",))
    found = {(line.arm, line.finetuning, *line.column): line for line in lines(experiment, stored_of(experiment))}
    one = found["in-sup", "agw", "all-100", "clean", "rank-1"]
    assert (one.value, one.paper, one.difference) == (0.0, 47.5, None)
    text = write_report(experiment)
    assert "0.0 (0.0–0.0) [47.50]" in text
    assert "[45.41†]" in text, "copied wrongly: its source has 45.51"
    assert "on SYSU-MM01, for orientation only: these are other people" in text


def test_gain_grows_with_the_persons_of_fine_tuning(tmp_path: Path) -> None:
    """Never a hit from ImageNet; after stage 1 a half with 50 persons and all with every person: 50 and 100 points."""
    experiment = Experiment(("labels", "images"), starts=("imagenet",), seeds=2, results=tmp_path / "results")
    hits = {"in-sup+agw-*": 0.0, "dapg-1-mixed-outside+agw-50-*": 0.5, "dapg-1-mixed-outside+agw-synthetic*": 1.0}
    store(experiment, hits)
    curves = gains(stored_of(experiment))
    assert list(curves) == ["persons of fine-tuning, synthetic, from imagenet"]
    few, every = curves[next(iter(curves))]
    assert (few.place, few.seeds, few.clean[0]) == ("50", 2, 50.0)
    assert (every.place, every.clean, every.corrupted) == ("all", (100.0, 100.0, 100.0), (100.0, 100.0, 100.0))
    write_report(experiment)
    page = files_of(experiment)["page/report.html"].decode()
    check_page(page)
    assert "How the gain grows" in page
    assert "AGW on 50 persons from ImageNet, 2 seeds: on corrupted images" in text_of(page)


def test_difference_on_the_papers_data(tmp_path: Path) -> None:
    """RegDB, two partitions, always a hit: 100 less the printed value."""
    regdb = Experiment(("table1",), "paper", (Source("regdb", "/data/regdb"),), ("imagenet",), 1, results=tmp_path)
    store(regdb, {"in-sup+agw-regdb-[12]-*": 1.0})
    (line,) = [
        each
        for each in lines(regdb, stored_of(regdb))
        if each.value is not None and each.column[0::2] == ("visible-to-thermal", "mAP")
    ]
    assert (line.value, line.paper, line.difference) == (100.0, 66.37, 33.63)
    text = write_report(regdb)
    assert "100.0 (100.0–100.0) [66.37, +33.6]" in text
    assert "the paper's value, ours minus it" in text
    assert "--data=regdb=PATH" in text, "where the data lie is nobody's business"


def test_figures_show_the_seeds_that_the_tables_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three are stored, always a hit with the first and never with the others."""
    experiment = Experiment(("table3",), starts=("imagenet",), seeds=3, results=tmp_path)
    store(experiment, {"dapg-1+agw-*-0": 1.0, "dapg-1+agw-*-[12]": 0.0})
    pages: list[ExperimentPage] = []
    monkeypatch.setattr("dapg.experiment.page.write_experiment", lambda path, page: pages.append(page))
    for seeds, expected in ((1, 100.0), (3, 100 / 3)):
        write_report(replace(experiment, seeds=seeds))
        ((point,),) = pages.pop().points.values()
        assert point.clean == pytest.approx(expected)


def test_nothing_is_subtracted_from_rendered_thermal_people(tmp_path: Path) -> None:
    """The paper's value for RegDB stands beside them, for orientation."""
    thermal = Experiment(("table1",), "small", (Source("thermal", "thermal"),), ("imagenet",), 1, results=tmp_path)
    assert thermal.folder.name == "reproduce-small-thermal", "beside other people's tables"
    store(thermal, {"in-sup+agw-*": 1.0})
    (line,) = [
        each
        for each in lines(thermal, stored_of(thermal))
        if each.value is not None and each.column[0::2] == ("visible-to-thermal", "mAP")
    ]
    assert (line.data, line.value, line.paper, line.difference) == ("thermal", 100.0, 66.37, None)
    text = write_report(thermal)
    assert "on RegDB, for orientation only: these are other people" in text
    assert "ours minus it" not in text


def test_an_arm_with_one_seed_is_shown_but_not_judged(tmp_path: Path) -> None:
    """Nor does it take the place of the arm with more."""
    experiment = Experiment(("primary",), starts=("imagenet",), seeds=2, results=tmp_path)
    chances = {"in-sup+agw-*": 0.0, "dapg-1-mixed-outside+agw-*": 1.0, "simclr+agw-*-0": 0.5, "dapg+agw-*-0": 0.5}
    store(experiment, chances)
    stored = stored_of(experiment)
    assert {(gap.arm, gap.other) for gap in comparisons(experiment, "primary", stored)} == {
        ("dapg-1-mixed-outside", "in-sup")
    }
    assert ours_and_others({"dapg": [], "in-sup": []}) == ("dapg", [])
    single = {name: result for name, result in stored.items() if result.seed == 0}
    others = {gap.other for gap in comparisons(replace(experiment, seeds=1), "primary", single)}
    assert others == {"in-sup", "simclr", "dapg-1-mixed-outside"}, "where all have one, each is compared"
    text = write_report(experiment)
    assert "| SimCLR | 1 |" in text


def test_one_seed_on_three_partitions_is_one_seed(tmp_path: Path) -> None:
    """It is not judged beside two seeds on one partition each, and does not take their place."""
    regdb = Experiment(("primary",), "small", (Source("regdb", "/data/regdb"),), ("imagenet",), 2, results=tmp_path)
    store(regdb, {"in-sup+agw-regdb-1-*": 0.0, "dapg-1+agw-regdb-1-*": 1.0, "dapg+agw-regdb-[123]-imagenet-0": 0.5})
    store(regdb, {"simclr+agw-regdb-[123]-imagenet-0": 0.5})
    arms: dict[str, list[CellResult]] = {}
    for result in stored_of(regdb).values():
        arms.setdefault(result.arm, []).append(result)
    assert [len(arms[arm]) for arm in ("dapg-1", "dapg", "simclr")] == [2, 3, 3]
    assert ours_and_others(arms) == ("dapg-1", ["in-sup"])


def test_partitions_of_regdb_are_drawn_before_seeds(tmp_path: Path) -> None:
    """Two partitions with a gain of 0 and 100 points: their mean is 50, and drawing them gives 0, 50 and 100."""
    regdb = Experiment(("primary",), "small", (Source("regdb", "/data/regdb"),), ("imagenet",), 2, results=tmp_path)
    chances = {"in-sup+agw-regdb-[12]-*": 0.0, "simclr+agw-regdb-1-*": 0.0, "simclr+agw-regdb-2-*": 1.0}
    store(regdb, chances | {"dapg-1+agw-regdb-3-*": 1.0})
    stored = stored_of(regdb)
    sides = [[result for result in stored.values() if result.arm == arm] for arm in ("in-sup", "simclr", "dapg-1")]
    gap = difference(sides[0], sides[1], "visible-to-thermal/clean")["mAP"]
    assert (gap.value, gap.low, gap.high, gap.partitions, gap.seeds) == (0.5, 0.0, 1.0, 2, 2)
    assert spread_of(sides[1], "visible-to-thermal/clean")["mAP"].partitions == 2
    assert not in_common(sides[0], sides[2])
    text = write_report(regdb)
    assert "| SimCLR | 2 |" in text, "two seeds, on each of two partitions"
    assert "regdb" in text, "an arm on another partition is compared with nothing"
    store(regdb, {"simclr+agw-regdb-3-*": 0.0, "in-sup+agw-regdb-3-*": 0.5})
    write_report(regdb)
    text = text_of(files_of(regdb)["page/report.html"].decode())
    assert "AGW from ImageNet, 2 seeds: on corrupted images DAPG (stage 1) is ahead of" in text


def test_claims_are_checked_against_tables_and_cells(experiment: Experiment) -> None:
    gains, robust, misprints, lost = claims.checks(experiment, stored_of(experiment))
    agw = next(row for row in gains.rows if "AGW" in row["claim"])
    assert (agw["stated"], agw["from its tables"], agw["agrees"]) == ("8.64", "8.64", "yes")
    assert agw["here"] == "+100.0 (+100.0 to +100.0) by DAPG, stage 1 on synthetic"
    assert {row["here"] for row in gains.rows if row is not agw} == {"–"}
    printed = {row["where"]: row for row in robust.rows if row["where"].startswith("the paper")}
    assert printed["the paper, SYSU-MM01 all"]["clean"] == "-2.09"  # 45.41 - 47.50
    assert printed["the paper, SYSU-MM01 all"]["as claimed"] == "yes"
    assert printed["the paper, RegDB thermal-to-visible"]["corrupted"] == "-0.37"  # 67.17 - 67.54
    assert printed["the paper, RegDB thermal-to-visible"]["as claimed"] == "no"
    measured = [row for row in robust.rows if row["where"].startswith("here")]
    assert [row["where"] for row in measured] == ["here, synthetic all-100"]
    assert {row["as claimed"] for row in measured} == {"no"}, "CIL hits half, AGW nothing: it costs nothing clean"
    assert len(misprints.rows) == 5
    assert len(lost.rows) == 8


def test_cells_by_other_settings_are_named(experiment: Experiment) -> None:
    stored = read_cells(experiment.folder)
    name = "simclr+agw-synthetic-imagenet-1"
    first, last = stored[name].trainings
    stored[name] = replace(stored[name], trainings=(replace(first, run="simclr-0"), last))
    hours = provenance.costs(experiment, stored, 0.0)
    assert hours.note.endswith(" By other settings than those of now: simclr+agw-synthetic-imagenet-1.")


def test_shared_trainings_cost_once(experiment: Experiment) -> None:
    stored = list(read_cells(experiment.folder).values())
    shared = [replace(stored[0], commit="fedcba9876543210-dirty"), stored[0]]
    rows = provenance.spent(shared)
    assert [row["trainings"] for row in rows] == ["2", "0", "2"]
    assert [row["commit"] for row in rows] == ["fedcba9876-dirty", "0123456789", ""]
    assert rows[-1]["hours"] == "0.04"  # 36 + 72 + 2 x 18 s = 144 s
    assert provenance.origin([]) == "Nothing has run yet."


def test_stored_pictures_are_drawn(experiment: Experiment) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 16), (250, 0, 0)).save(stream, "JPEG")
    seen = {"path": "a.jpg", "person": 1, "camera": 1, "picture": "pictures/a.jpg"}
    answers = [{**seen, "similarity": 0.5, "match": True}], [{**seen, "similarity": 0.25, "match": False}]
    stored = {
        "heading": "agw on synthetic, first weights imagenet",
        "titles": {"ours": "Ours & co", "other": "Theirs"},
        "data": {"title": "Synthetic people", "licence": "CC0-1.0"},
        "mode": "all",
        "severities": {
            "names": ["fog", "rain"],
            "levels": [1, 5],
            "clean": {"ours": 50.0, "other": 40.0},
            "mAP": {"ours": [[41.5, 30.0], [45.0, 5.0]], "other": [[40.0, 32.5], [40.0, 15.0]]},
        },
        "disagreements": {
            "counts": {"both": 3, "neither": 2, "ours": 1, "other": 4},
            "lists": [{"query": seen, "ours": answers[0], "other": answers[1]}],
            "pictures": {"pictures/a.jpg": base64.b64encode(stream.getvalue()).decode()},
        },
        "seconds": 360.0,
    }
    path = heat_maps.file(experiment, ("synthetic", "imagenet", "agw"))
    path.parent.mkdir()
    path.write_text(json.dumps(stored))
    write_report(experiment)
    page = experiment.page.read_text()
    text = text_of(page)
    for word in (
        "41.5",
        "+1.5",
        "-2.5",
        "+5.0",
        "-10.0",
        "Ours &amp; co: clean 50.0",
        "Synthetic people, CC0-1.0; all",
    ):
        assert word in text, word
    counted = "for both in 3 of 10 queries, for neither in 2, for Ours &amp; co alone in 1, for Theirs alone in 4"
    assert counted in text
    shown = shown_images(page)
    assert [image.kind for image in shown] == ["query", "right", "query", "wrong"]
    assert {image.content for image in shown} == {stream.getvalue()}
    assert page.count("data:image/jpeg") == 1, "stored once"
    assert "Heat maps and ranked lists took another 0.10 h." in text
