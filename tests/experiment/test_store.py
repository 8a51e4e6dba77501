"""The store: what is written is read, also after a kill, beside other writers, and after a merge of two branches."""

import json
import multiprocessing
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dapg.core.errors import DapgError, UsageError
from dapg.experiment import store
from dapg.experiment.figures import WITHIN
from dapg.experiment.matrix import Cell
from dapg.experiment.store import CellResult, add_cell, read_cells, refuse_mixed
from dapg.scoring.bootstrap import PersonScores
from made_up_cells import made_up


def result(seed: int, arm: str = "none") -> CellResult:
    return made_up(Cell(arm, "agw", "synthetic", "random", seed), 0.5, ("all", "indoor"))


def files(folder: Path) -> dict[str, bytes]:
    """Everything there but locks."""
    whole = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in whole}


def test_what_is_stored_is_read_and_the_order_of_writing_leaves_no_trace(tmp_path: Path) -> None:
    cells = [replace(result(seed), scores={"all/clean": {"mAP": 0.1 + 0.2 + seed}}) for seed in range(3)]
    for one, other in zip(cells, reversed(cells), strict=True):
        add_cell(tmp_path / "one", one)
        add_cell(tmp_path / "other", other)
    assert files(tmp_path / "one") == files(tmp_path / "other")
    read = read_cells(tmp_path / "one")
    assert list(read.values()) == cells, "to the last bit of 0.30000000000000004"
    assert list(read) == sorted(read)
    assert read["none+agw-synthetic-random-0"].persons == {}
    assert len((tmp_path / "one" / "cells.jsonl").read_text().splitlines()) == 3
    again = replace(cells[1], commit="feed")
    add_cell(tmp_path / "one", again)
    assert list(read_cells(tmp_path / "one").values()) == [cells[0], again, cells[2]]
    assert read_cells(tmp_path / "nothing") == {}


def test_sums_by_person_come_back_to_the_thousandth(tmp_path: Path) -> None:
    """Scores may ask different persons; whoever has no valid query in one is left out there."""
    wide = PersonScores((3, 5, 900), np.array([[1, 0.12345, 0.5, 2], [0, 1e-9, 0, 1], [70, 66.0006, 0, 80.0]]))
    narrow = PersonScores((4, 5), np.array([[1, 1, 1, 4.0], [0, 0, 0, 0]]))
    cell = replace(result(0), persons={"all/clean": wide, "all/all": narrow})
    add_cell(tmp_path, cell)
    (read,) = read_cells(tmp_path, with_persons=True).values()
    assert read.persons["all/clean"].persons == (3, 5, 900)
    stored = [0, 1, 3]  # all but mINP
    np.testing.assert_allclose(read.persons["all/clean"].sums[:, stored], wide.sums[:, stored], atol=0.0005)
    assert np.isnan(read.persons["all/clean"].sums[:, 2]).all()
    assert read.persons["all/all"].persons == (4,)
    assert read.persons["all/all"].sums[:, stored].tolist() == [[1, 1, 4]]


def test_a_cell_with_a_thousand_test_persons_takes_few_kilobytes(tmp_path: Path) -> None:
    """Eight scores with intervals; a hundred such cells leave room below the 3 MB of all results."""
    generator = np.random.default_rng(0)
    numbers = tuple(range(1, 1001))
    queries = np.full(1000, 4.0)

    def persons() -> PersonScores:
        ranks, precision = generator.integers(0, 41, 1000) / 10, 4 * generator.random(1000)
        return PersonScores(numbers, np.stack([ranks, precision, precision, queries], axis=1))

    names = [f"all-100/{condition}" for condition in store.CONDITIONS]
    names += [f"{mode}/{condition}" for mode in WITHIN for condition in store.MIXTURE_CONDITIONS]
    add_cell(tmp_path, replace(result(0), persons={name: persons() for name in names}))
    assert sum(path.stat().st_size for path in (tmp_path / "persons").iterdir()) < 26_000


def test_a_kill_between_the_two_files_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_cell(tmp_path, result(0))
    before = read_cells(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "atomic_write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            add_cell(tmp_path, result(1))
    assert read_cells(tmp_path) == before
    add_cell(tmp_path, result(1))
    assert len(read_cells(tmp_path, with_persons=True)) == 2


def _add(folder: Path, arm: str) -> None:
    for seed in range(8):
        add_cell(folder, result(seed, arm))


def test_processes_that_write_at_once_lose_no_cell(tmp_path: Path) -> None:
    """Every cell that three processes add is there, and the bytes are those of one process."""
    arms = ("none", "simclr", "dapg-1")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(tmp_path / "many", arm)) for arm in arms]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for arm in arms:
        _add(tmp_path / "one", arm)
    assert files(tmp_path / "many") == files(tmp_path / "one")


def test_branches_that_ran_different_cells_merge(tmp_path: Path) -> None:
    """By git's union merge, as ``.gitattributes`` asks for; two results of one cell are refused."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True)

    folder = tmp_path / "results" / "reproduce-small"
    git("init", "-q", "-b", "main")
    (tmp_path / ".gitattributes").write_text("results/*/cells.jsonl merge=union\n")
    (tmp_path / ".gitignore").write_text(".lock.*\n")
    add_cell(folder, result(2))
    git("add", ".")
    git("commit", "-qm", "one cell")
    git("switch", "-qc", "other")
    add_cell(folder, result(3))
    git("add", ".")
    git("commit", "-qm", "another cell")
    git("switch", "-q", "main")
    add_cell(folder, result(1))
    git("add", ".")
    git("commit", "-qm", "a third cell")
    git("merge", "-q", "other", "-m", "both")
    stored = read_cells(folder, with_persons=True)
    assert list(stored.values()) == [result(1), result(2), result(3)]
    assert list(stored) == [f"none+agw-synthetic-random-{seed}" for seed in (1, 2, 3)]
    lines = (folder / "cells.jsonl").read_text().splitlines()
    (folder / "cells.jsonl").write_text("\n".join([*lines, lines[0].replace('"seed":1', '"seed":2')]))
    with pytest.raises(DapgError, match=r"lines 2 and 4 are different results of none\+agw-synthetic-random-2"):
        read_cells(folder)


@pytest.mark.parametrize("damage", ["{", '{"arm": "none"}', "[]"])
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    add_cell(tmp_path, result(0))
    with (tmp_path / "cells.jsonl").open("a") as handle:
        handle.write(damage + "\n")
    with pytest.raises(DapgError, match=r"cells\.jsonl, line 2: not a cell"):
        read_cells(tmp_path)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    add_cell(tmp_path, result(0))
    (tmp_path / "persons" / "none+agw-synthetic-random-0.npz").unlink()
    assert len(read_cells(tmp_path)) == 1
    with pytest.raises(DapgError, match=r"random-0\.npz does not exist"):
        read_cells(tmp_path, with_persons=True)


def test_cells_drawn_or_corrupted_differently_are_not_mixed() -> None:
    cells = {str(seed): result(seed) for seed in range(3)}
    refuse_mixed(cells)
    refuse_mixed({})
    other_data = replace(cells["2"], data="sysu", corruptions="another")
    refuse_mixed({**cells, "2": other_data})
    (trained,) = cells["2"].trainings
    for changed, kind in (
        ({"draws": 1}, "draws version 1, 2 repeats"),
        ({"corruptions": ""}, "corrupted by no list"),
        ({"repeats": 9}, "9 repeats"),
        ({"tested": "0123456789ab"}, "tested on 0123456789ab"),
        ({"trainings": (replace(trained, data={"hash": "4567"}),)}, "data 4567"),
    ):
        with pytest.raises(UsageError, match=rf"synthetic are about different images: .*{kind}.* \(1 cells\)"):
            refuse_mixed({**cells, "2": replace(cells["2"], **changed)})


def test_few_persons_differ_by_seed_but_not_by_arm() -> None:
    def few(seed: int, arm: str, learnt: str) -> CellResult:
        other = replace(result(seed), arm=arm, finetuning="agw-50")
        return replace(other, trainings=(replace(other.trainings[0], data={"hash": learnt}),))

    cells = {str(seed): result(seed) for seed in range(2)}
    drawn = {f"{arm}{seed}": few(seed, arm, f"seed {seed}") for arm in ("none", "dapg") for seed in range(2)}
    refuse_mixed({**cells, **drawn})
    with pytest.raises(UsageError, match=r"data another \(1 cells\)"):
        refuse_mixed({**cells, **drawn, "dapg1": few(1, "dapg", "another")})
    with pytest.raises(UsageError, match=r"9 repeats \(1 cells\)"):
        refuse_mixed({**cells, **drawn, "dapg1": replace(drawn["dapg1"], repeats=9)})


def test_cells_of_different_precision_are_not_mixed(tmp_path: Path) -> None:
    cells = {str(seed): result(seed) for seed in range(3)}
    (trained,) = cells["2"].trainings
    half = replace(cells["2"], trainings=(replace(trained, precision="bf16"),))
    with pytest.raises(UsageError, match="agw on synthetic from random mix precisions in finetune: bf16, fp32"):
        refuse_mixed({**cells, "2": half})
    refuse_mixed({"2": half})
    refuse_mixed({**cells, "2": replace(half, start="imagenet")})  # another network, never compared with these
    add_cell(tmp_path, half)
    file = tmp_path / "cells.jsonl"
    assert list(read_cells(tmp_path).values()) == [replace(half, persons={})]
    file.write_text(file.read_text().replace('"precision":"bf16",', ""))
    assert next(iter(read_cells(tmp_path).values())).trainings[0].precision == "fp32", "from before it was noted"


def test_lines_are_compact_and_plain(tmp_path: Path) -> None:
    add_cell(tmp_path, result(0))
    text = (tmp_path / "cells.jsonl").read_text()
    assert " " not in text
    assert json.loads(text)["scores"]["all/clean"].keys() == {"rank-1", "mAP", "mINP"}
