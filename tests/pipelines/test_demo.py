"""The demo from nothing, with two steps a training; what it promises is on the page, and a second run reuses all."""

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.core.schema import read_json
from dapg.core.types import Trial
from dapg.data.sets.synthetic import Synthetic
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.models.weights import pose_weights
from dapg.models.weights.pose_weights import GeneratorFacts, save_generator
from dapg.pipelines import demo as demo_runs
from dapg.pipelines import demo_search
from dapg.pipelines.demo import Demo, run_demo, trained_network
from dapg.pipelines.demo_search import ANSWERS, LISTED, PERSONS, small_trial
from dapg.report.demo_page import Gap, Scored, first_sentence
from page_text import check_page, shown_images


def without_generator(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(pose_weights, "EMBEDDED", folder / "nothing.safetensors")


def test_only_the_package_s_own_generator_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_generator(monkeypatch, tmp_path)
    assert "left out: this version ships no trained generator" in Demo(tmp_path).without_stage_2()
    with pytest.raises(UsageError, match="no generator at"):
        Demo(tmp_path, generator=str(tmp_path / "mine")).without_stage_2()


def test_stage_2_takes_stage_1_s_network_and_pictures_that_have_poses(tmp_path: Path) -> None:
    demo = Demo(tmp_path, seed=3)
    aligned, poses = demo.stage_2(), demo.poses()
    assert not demo.out.joinpath("stage-1").exists(), "a plan needs no earlier run"
    assert (aligned.backbone.init, aligned.generated) == (demo.stage_1().out, poses.out)
    assert (aligned.data.split, aligned.data.subset, aligned.seed) == (poses.split, poses.subset, poses.seed)
    ours: Any = aligned.method
    theirs: Any = demo.stage_1().method
    assert ours.head == theirs.head


@pytest.fixture
def four_test_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupting pictures of a hundred persons is most of the demo's time."""
    real = Synthetic.trials

    def few(self: Synthetic, mode: str, seed: int = 0) -> list[Trial]:
        trials = real(self, mode, seed)[:1]
        kept = sorted({record.person for record in trials[0].query})[:4]
        sides: list[dict[str, Any]] = [
            {side: tuple(r for r in getattr(trial, side) if r.person in kept) for side in ("query", "gallery")}
            for trial in trials
        ]
        return [replace(trial, **side) for trial, side in zip(trials, sides, strict=True)]

    monkeypatch.setattr(Synthetic, "trials", few)


@pytest.mark.slow
@pytest.mark.usefixtures("four_test_persons")
def test_whole_method_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First without a generator, then with one, which adds to the same folder."""
    without_generator(monkeypatch, tmp_path)
    out, said = tmp_path / "demo", list[str]()
    run_demo(Demo(out, steps=2, processes=1), said.append)
    assert "Stage 2 (poses and alignment) is left out" in said[0]
    assert [line.partition("]")[0] for line in said[1:]] == [f"[{step}/9" for step in range(1, 10)]
    page = (out / "report.html").read_text()
    assert "In this run AGW from stage 1 reaches an mAP of " in page
    assert "is left out: this version ships no" in page
    assert "both stages" not in page

    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("demo generator"))
    save_generator(network, tmp_path / "g.safetensors", GeneratorFacts(64, 32, "self", {}))
    said.clear()
    demo = Demo(out, steps=2, generator=str(tmp_path / "g.safetensors"), aligned_images=120, processes=1)
    made = run_demo(demo, said.append, "Nothing is registered.")
    assert [line.partition("]")[0] for line in said] == [f"[{step}/11" for step in range(1, 12)]
    page, details = made["page"].read_text(), (out / "details.html").read_text()
    check_page(page)
    for part in (made["sentence"], "Nothing is registered.", "persons, visible images in fog", "Generated poses"):
        assert part in page
    assert str(tmp_path) not in page
    assert "the difference to ImageNet is " in made["sentence"]
    assert trained_network(out) == str(out / "agw-from-stage-2")
    assert "is left out" not in page
    for part in ("pairs of kind self", "Training", "scores-agw-from-random"):
        assert part in details
    assert [line.split(" | ")[0] for line in made["table"].splitlines()[2:]] == [
        "| both stages", "| stage 1", "| ImageNet", "| random weights"
    ]  # fmt: skip
    aligned = read_json(out / "stage-2" / "result.json")
    assert aligned["poses"] == ["front", "left", "back", "right"]
    assert aligned["companions"] == {"pictures": 4 * aligned["data"]["pictures"], "sources_without": 0}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(stamps) == 10, "two stages, four fine-tunings, four evaluations"
    assert run_demo(demo, said.append)["table"] == made["table"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == stamps


@pytest.mark.usefixtures("four_test_persons")
def test_fast_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (demo_runs, demo_search):
        monkeypatch.setattr(module, "PERSONS", 10)
    said = list[str]()
    made = run_demo(Demo(tmp_path, fast=True, processes=1), said.append)
    assert not list(tmp_path.rglob("metrics.jsonl"))
    page = made["page"].read_text()
    check_page(page)
    rows = re.findall(r"<td>ImageNet</td><td class=\"number\">40</td><td class=\"number\">(\d+) %</td>.*?(\d+) %", page)
    clean, fog = ([int(share) for share in row] for row in rows)
    assert 20 < clean[0] < clean[1], "chance is 10"
    assert fog[0] < clean[0]
    kinds = [image.kind for image in shown_images(page)]
    ready = made["table"].count("\n") - 2
    assert kinds.count("query") == 2 * LISTED
    assert len(kinds) == 2 * LISTED * (1 + ready * ANSWERS)
    assert f"dapg serve --demo .../{tmp_path.name}" in page
    assert trained_network(tmp_path) == "agw-dapg-small"
    assert trained_network(tmp_path / "nothing") == ""


@pytest.mark.slow
def test_lanes_run_side_by_side_and_their_steps_in_order(tmp_path: Path) -> None:
    """Each lane's second step needs the file of its first; two processes besides this one do the work."""
    said = list[str]()
    lanes = [
        [(f"{lane} {step}", partial(_write, tmp_path / lane, step)) for step in range(2)] for lane in ("one", "two")
    ]
    demo_runs._run(lanes, 2, said.append)
    assert sorted(said) == ["one 0", "one 1", "two 0", "two 1"]
    writers = {(tmp_path / lane / f"{step}").read_text() for lane in ("one", "two") for step in range(2)}
    assert str(os.getpid()) not in writers


def _write(folder: Path, step: int) -> None:
    if step:
        assert (folder / f"{step - 1}").exists()
    folder.mkdir(exist_ok=True)
    (folder / f"{step}").write_text(str(os.getpid()))


def test_persons_and_queries_are_drawn_by_the_seed_alone() -> None:
    dataset = Synthetic()
    first, again, other = (small_trial(dataset, seed) for seed in (0, 0, 1))
    assert first == again
    persons = {record.person for record in first.query}
    assert len(persons) == PERSONS
    assert persons == {record.person for record in first.gallery}
    assert persons != {record.person for record in other.query}
    assert (len(first.query), len(first.gallery)) == (4 * PERSONS, 8 * PERSONS)


def test_the_first_sentence_says_what_came_out() -> None:
    ours = Scored("stage-2", "both stages", 30.0, 33.0, 18.0, 20.0)
    imagenet = Scored("imagenet", "ImageNet", 31.0, 33.5, 17.0, 19.0)
    assert first_sentence([imagenet, ours]) == (
        "In this run AGW from both stages reaches an mAP of 33.0 % on clean and 18.0 % on corrupted images; "
        "the difference to ImageNet is -0.5 and +1.0 points."
    )
    sure = replace(imagenet, behind=(Gap(-0.5, -2.04, 1.26), Gap(1.0, -0.01, 2.2)))
    assert "to ImageNet is -0.5 (-2.0 to +1.3) and +1.0 (+0.0 to +2.2) points" in first_sentence([sure, ours])
    assert first_sentence([imagenet]) == (
        "In this run AGW from ImageNet reaches an mAP of 33.5 % on clean and 17.0 % on corrupted images."
    )
