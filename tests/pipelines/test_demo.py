"""The demo from nothing, with two steps a training; what it promises is on the page, and a second run reuses all."""

from dataclasses import replace
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
from dapg.pipelines.demo import Demo, run_demo


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
def ten_test_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupting pictures of a hundred persons is most of the demo's time."""
    real = Synthetic.trials

    def few(self: Synthetic, mode: str, seed: int = 0) -> list[Trial]:
        trials = real(self, mode, seed)[:2]
        kept = sorted({record.person for record in trials[0].query})[:10]
        sides: list[dict[str, Any]] = [
            {side: tuple(r for r in getattr(trial, side) if r.person in kept) for side in ("query", "gallery")}
            for trial in trials
        ]
        return [replace(trial, **side) for trial, side in zip(trials, sides, strict=True)]

    monkeypatch.setattr(Synthetic, "trials", few)


@pytest.mark.slow
@pytest.mark.usefixtures("ten_test_persons")
def test_whole_method_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First without a generator, then with one, which adds to the same folder."""
    without_generator(monkeypatch, tmp_path)
    out, said = tmp_path / "demo", list[str]()
    first = run_demo(Demo(out, steps=2), said.append)
    assert "stage 2 (poses and alignment) is left out" in said[0]
    assert [line[:5] for line in said[1:]] == [f"[{step}/5]" for step in range(1, 6)]
    page = first["page"].read_text()
    for part in ("is left out: this version ships no", "agw-from-stage-1", "agw-from-random", "histogram", "unseen"):
        assert part in page
    assert "agw-from-stage-2" not in page

    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("demo generator"))
    save_generator(network, tmp_path / "g.safetensors", GeneratorFacts(64, 32, "self", {}))
    said.clear()
    demo = Demo(out, steps=2, generator=str(tmp_path / "g.safetensors"), aligned_pictures=120)
    made = run_demo(demo, said.append)
    assert [line[:5] for line in said] == [f"[{step}/8]" for step in range(1, 9)]
    page = made["page"].read_text()
    assert "is left out" not in page
    for part in ("agw-from-stage-2", "pairs of kind self", "Ranked lists", "with corrupted pictures", "Training"):
        assert part in page
    assert made["table"].count("| agw-from-stage-2") == 5  # clean; then clean, all, seen and unseen
    aligned = read_json(out / "stage-2" / "result.json")
    assert aligned["poses"] == ["front", "left", "back", "right"]
    assert aligned["companions"] == {"pictures": 4 * aligned["data"]["pictures"], "sources_without": 0}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(stamps) == 10
    assert run_demo(demo, said.append)["table"] == made["table"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == stamps
