"""The demo from nothing, with two steps a training; what it promises is on the page, and a second run reuses all."""

from pathlib import Path

import pytest

from dapg.recipes.demo import Demo, run_demo


@pytest.mark.slow
def test_whole_method_and_its_page(tmp_path: Path) -> None:
    said: list[str] = []
    demo = Demo(tmp_path / "demo", steps=2)
    made = run_demo(demo, said.append)
    assert [line[:5] for line in said] == [f"[{step}/5]" for step in range(1, 6)]
    page = made["page"].read_text()
    for part in ("agw-from-stage-1", "agw-from-random", "histogram", "unseen", "Ranked lists", "Training"):
        assert part in page
    assert made["table"].count("| agw-from-stage-1") == 5  # clean; then clean, all, seen and unseen
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(stamps) == 7
    assert run_demo(demo, said.append)["table"] == made["table"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == stamps
