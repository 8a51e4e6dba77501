"""The matrix as data; a real cell on a small tree; a kill inside a cell; a failing cell; tables made twice."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dapg.cli import main
from dapg.commands._reproduce import ExperimentSettings, parse_experiment
from dapg.core.errors import DataError, UsageError
from dapg.core.files import sha256
from dapg.core.rng import generator_from
from dapg.core.shards import read_progress
from dapg.core.train_config import DataConfig
from dapg.corruptions.library import DRAWS
from dapg.data.manifest import read_manifest
from dapg.data.sets.regdb import RegDB
from dapg.data.sets.synthetic import Synthetic
from dapg.experiment import cell as cell_runs
from dapg.experiment import heat_maps, matrix, provenance
from dapg.experiment.figures import WITHIN, comparisons, lines
from dapg.experiment.matrix import Source
from dapg.experiment.page import write_report
from dapg.experiment.plan import Experiment, outlook
from dapg.experiment.queue import run
from dapg.experiment.store import add_cell, read_cells
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.models.weights import pose_weights
from dapg.models.weights.pose_weights import GeneratorFacts, save_generator
from dapg.recipes import pretraining
from dapg.training.finetune import finetune
from dapg.training.loop import Terminated
from dapg.training.training_settings import AlignSettings
from made_up_cells import made_up, shrink_small, write_people


def test_tables_1_and_2_are_28_fine_tunings() -> None:
    """Seven pre-trainings, two fine-tuners, two data sets; RegDB times its ten partitions."""
    sources = (Source("sysu", "/data/sysu"), Source("regdb", "/data/regdb"))
    found = matrix.cells(("table1", "table2"), "paper", sources, ("imagenet",), 1, Path("runs"))
    one_partition = [cell for cell in found if cell.data in ("sysu", "regdb-1")]
    assert len(one_partition) == 28
    assert len(found) == 14 + 14 * 10


def test_thermal_people_are_three_partitions_in_regdbs_layout() -> None:
    sources = (Source("thermal", "people/thermal"),)
    found = matrix.cells(("table1",), "small", sources, ("imagenet",), 1, Path("runs"), "simclr+agw-*")
    assert [cell.name for cell in found] == [f"simclr+agw-thermal-{part}-imagenet-0" for part in (1, 2, 3)]
    data = [cell.chain[-1].data for cell in found]
    assert [(each.name, each.root, each.split) for each in data] == [
        ("regdb", "people/thermal", f"train-{part}") for part in (1, 2, 3)
    ]
    assert len({cell.chain[0].out for cell in found}) == 1, "one stage 1 for all partitions"


@pytest.mark.parametrize(("name", "called"), [("regdb", "thermal"), ("sysu", "synthetic")])
def test_rendered_people_are_not_taken_for_the_papers(tmp_path: Path, name: str, called: str) -> None:
    """Tables would print what the paper has of others, and ours minus it."""
    words = ["table1", "--data", f"{name}={tmp_path}"]
    parse_experiment("dapg reproduce plan", ExperimentSettings(), words, "")
    (tmp_path / "annotations.jsonl").touch()
    with pytest.raises(UsageError, match=f"rendered people.*--data {called}="):
        parse_experiment("dapg reproduce plan", ExperimentSettings(), words, "")


def test_shared_trainings_share_a_folder_and_others_do_not() -> None:
    found = matrix.cells(("table1", "beyond"), "small", (Source("synthetic"),), ("random",), 2, Path("runs"))
    first = {cell.name: cell.chain[0].out for cell in found if len(cell.chain) == 2}
    assert first["simclr+agw-synthetic-random-0"] == first["simclr+cil-synthetic-random-0"]
    assert first["simclr+agw-synthetic-random-0"] != first["simclr+agw-synthetic-random-1"]
    assert first["simclr+agw-synthetic-random-0"] != first["simclr-corrupted+agw-synthetic-random-0"]
    last = [cell.chain[-1].out for cell in found if cell.chain]
    assert len(set(last)) == len(last)


def test_a_folder_name_does_not_depend_on_where_the_runs_are() -> None:
    names = []
    for root in (Path("here"), Path("/somewhere/else")):
        found = matrix.cells(("fig1", "table1"), "small", (Source("synthetic"),), ("random",), 1, root)
        names.append([Path(training.out).name for cell in found for training in cell.chain])
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("scale", "cell", "names"),
    [
        ("small", "dapg-true+agw-synthetic-random-0", ("dapg-86ff86b597", "dapg_align-41446c26b0", "agw-5fee45be74")),
        ("small", "vtbr+agw-synthetic-imagenet-0", ("vtbr-b0071b66e7", "agw-33c8bce89c")),
        ("small", "none+pmwgcn-no-mask-synthetic-random-0", ("pmwgcn-434296ad8b",)),
        ("gpu", "pnl+agw-synthetic-random-0", ("pnl-49491aaf31", "agw-69fb044cf6")),
        ("paper", "simclr+cil-synthetic-imagenet-0", ("simclr-f2ff0d3ab7", "cil-5ad394422f")),
    ],
)
def test_settings_keep_their_hash(scale: str, cell: str, names: tuple[str, ...]) -> None:
    """A run's name ends in the hash of its settings: another one means that stored cells no longer count as done.

    A new setting has to be ``unset(...)``, so that it is not stored where it changes nothing.
    """
    sources, starts = (Source("synthetic"),), ("random", "imagenet")
    (found,) = [c for c in matrix.cells(matrix.TABLES, scale, sources, starts, 1, Path("runs")) if c.name == cell]
    assert tuple(Path(training.out).name for training in found.chain) == names


def test_arms_share_network_and_length() -> None:
    """Equal pictures for all, except the arm that is about equal passes."""
    found = matrix.cells(("beyond",), "small", (Source("synthetic"),), ("random",), 1, Path("runs"))
    steps = {cell.arm: cell.chain[0].train.steps for cell in found if len(cell.chain) > 1}
    assert {value for arm, value in steps.items() if arm != "dapg-1-passes"} == {300}
    assert steps["dapg-1-passes"] == 150
    assert len({json.dumps(vars(replace(c.chain[-1].backbone, init=""))) for c in found if c.chain}) == 1


def test_missing_parts_are_said_and_not_faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matrix.ARMS, "vtbr", replace(matrix.ARMS["vtbr"], pretraining="unheard_of"))
    found = {
        cell.arm: cell for cell in matrix.cells(("table1",), "small", (Source("synthetic"),), ("random",), 1, Path("r"))
    }
    assert found["vtbr"].missing
    assert not found["vtbr"].chain
    assert found["byol"].chain


def test_every_row_of_the_paper_s_tables_can_run() -> None:
    found = matrix.cells(("table1", "table3"), "small", (Source("synthetic"),), ("random", "imagenet"), 1, Path("r"))
    assert not [cell.name for cell in found if cell.missing]


def test_fine_tuners_without_a_part_differ_in_that_part_alone() -> None:
    found = matrix.cells(("finetuners",), "small", (Source("synthetic"),), ("random",), 1, Path("runs"))
    last: dict[str, Any] = {cell.finetuning: cell.chain[-1] for cell in found if cell.arm == "none"}
    whole = last["pmwgcn"]
    assert {"baseline", "agw", "cil", "caj"} <= set(last)
    for name in [name for name in matrix.FINETUNERS if name.startswith("pmwgcn-")]:
        plugin, changes = matrix.FINETUNERS[name]
        assert last[name].name == plugin == "pmwgcn"
        assert last[name].out != whole.out
        restored = {key: {"method.mask": whole.method.mask}.get(key, True) for key in changes}
        assert matrix.changed(last[name], restored).method == whole.method


def test_growth_changes_images_length_or_persons_and_nothing_else() -> None:
    tables, sources = ("images", "labels"), (Source("synthetic"),)
    chains = {
        (cell.arm.removeprefix("dapg-1-mixed-outside"), cell.finetuning): cell.chain
        for cell in matrix.cells(tables, "small", sources, ("imagenet",), 1, Path("runs"))
    }
    first, last = chains["", "agw"]
    assert [last.data.persons, chains["in-sup", "agw-50"][-1].data.persons, first.data.subset] == [0, 50, 0]
    assert chains["", "agw-100"][0] == first
    assert len({chain[-1].out for chain in chains.values()}) == len(chains)
    fewer, longer = chains["-1000", "agw"][0], chains["-again", "agw"][0]
    assert replace(fewer, data=first.data, out=first.out) == first
    assert fewer.data.subset == 1000
    assert longer.train.steps == 2 * first.train.steps == 4 * chains["-half", "agw"][0].train.steps


def test_pseudo_persons_and_captions_are_made_once_for_the_pictures_that_others_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = Synthetic()
    seen = people.records("unlabelled")[:60]
    monkeypatch.setattr(Synthetic, "records", lambda self, split: seen if split == "unlabelled" else [])
    found = matrix.cells(("table1",), "small", (Source("synthetic"),), ("random",), 2, tmp_path)
    by_arm = {(cell.arm, cell.seed): cell.chain[0] for cell in found if cell.finetuning == "agw"}
    for arm, name in (("pnl", "groups"), ("vtbr", "captions")):
        settings: list[Any] = [by_arm[arm, seed] for seed in range(2)]
        assert {each.data for each in settings} == {by_arm["simclr", 0].data}
        (file,) = {getattr(each.method, name) for each in settings}
        cell_runs.make_files(settings[0], "cpu")
        lines = Path(file).read_text().splitlines()
        assert [line.partition("\t")[0] for line in lines] == [record.path for record in seen]
        before = Path(file).stat().st_mtime_ns
        cell_runs.make_files(settings[1], "cpu")
        assert Path(file).stat().st_mtime_ns == before
    assert people.garments(seen[0])["upper"] in lines[0]


def test_files_that_cannot_be_made_are_asked_for(tmp_path: Path) -> None:
    settings = pretraining("vtbr", "paper")
    captions = str(tmp_path / "luperson.tsv")
    tree = tmp_path / "folder"
    tree.mkdir()
    Image.new("RGB", (32, 64)).save(tree / "a.png")
    recipe: Any = settings.method
    method = replace(recipe, captions=captions)
    settings = replace(settings, data=DataConfig("folder", str(tree)), method=method)
    with pytest.raises(UsageError, match=r"captions.*luperson\.tsv"):
        cell_runs.make_files(settings, "cpu")


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generator that has learnt nothing in the place of the package's own."""
    path = tmp_path / "generator.safetensors"
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("matrix generator"))
    save_generator(network, path, GeneratorFacts(64, 32, "self", {}))
    monkeypatch.setattr(pose_weights, "EMBEDDED", path)
    return path


def stage_2(root: Path) -> dict[str, matrix.Cell]:
    found = matrix.cells(("stage2",), "small", (Source("synthetic"),), ("random",), 1, root)
    return {cell.arm: cell for cell in found}


def test_an_alignment_stands_between_stage_1_and_fine_tuning(generator: Path, tmp_path: Path) -> None:
    """Every arm from one stage 1, none of which has run; only what the positives are differs."""
    found = stage_2(tmp_path / "runs")
    first, aligned, last = found["dapg"].chain
    ours: Any
    theirs: Any
    ours, theirs = aligned.method, first.method
    assert isinstance(aligned, AlignSettings)
    assert not isinstance(first, AlignSettings)
    assert not (tmp_path / "runs").exists()
    assert (aligned.backbone.init, last.backbone.init) == (first.out, aligned.out)
    assert ours.head == theirs.head
    assert (ours.views.height, ours.views.width) == (96, 48)
    assert (aligned.train.steps, aligned.train.optimizer.lr, ours.negatives) == (150, 1e-4, "batch")
    assert found["dapg-1"].chain[0] == first
    positives: Any
    for arm, positives in (("dapg-original", "original"), ("dapg-shuffled", "shuffled"), ("dapg-true", "true")):
        before, other, _ = found[arm].chain
        assert before == first
        generated = aligned.generated if positives == "shuffled" else ""
        assert other == replace(aligned, positives=positives, generated=generated, out=other.out)
        assert other.out != aligned.out
    pose, steep = (found[arm].chain[1] for arm in ("dapg-pose", "dapg-steep"))
    assert pose == replace(aligned, method=replace(ours, channel=0.0), out=pose.out)
    optimizer = replace(aligned.train.optimizer, lr=1e-3)
    assert steep == replace(aligned, train=replace(aligned.train, optimizer=optimizer), out=steep.out)
    alone, _ = found["dapg-2"].chain  # there is nothing to forget
    assert alone == replace(steep, backbone=replace(steep.backbone, init="random"), out=alone.out)
    assert found["dapg-1-again"].chain[0].train.steps == 2 * first.train.steps
    names = [Path(training.out).name for training in stage_2(Path("/somewhere/else"))["dapg"].chain]
    assert names == [Path(training.out).name for training in (first, aligned, last)]
    generator.write_bytes(generator.read_bytes() + b" ")
    assert stage_2(tmp_path / "runs")["dapg"].chain[1].out != aligned.out, "another generator, another training"


def test_without_a_generator_only_arms_that_need_one_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pose_weights, "EMBEDDED", tmp_path / "nothing")
    missing = {arm: cell.missing for arm, cell in stage_2(tmp_path).items() if cell.missing}
    assert set(missing) == {"dapg", "dapg-shuffled", "dapg-pose", "dapg-channel", "dapg-steep", "dapg-2"}
    assert {"no trained pose generator" in reason for reason in missing.values()} == {True}


@pytest.mark.parametrize("wrong", [{"tables": ("table9",)}, {"starts": ("warm",)}, {"only": "nothing*"}])
def test_wrong_questions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(Experiment(), **wrong).cells()


@pytest.mark.parametrize("scale, size", [("small", (160, 80)), ("paper", (288, 144))])
def test_cells_and_heat_maps_corrupt_at_the_scales_size(scale: str, size: tuple[int, int]) -> None:
    experiment = Experiment(scale=scale)
    assert experiment.corrupted_at == size
    settings = cell_runs._corruption(experiment)
    assert (settings.height, settings.width) == size


def test_other_test_persons_have_a_folder_of_their_own(tmp_path: Path) -> None:
    """The command in the tables names the set, not where it lies."""
    experiment = Experiment(("table1",), test=str(tmp_path / "people" / "test1000"), results=tmp_path)
    assert experiment.folder == tmp_path / "reproduce-small-test1000"
    (cell, *_) = experiment.cells()
    assert experiment.test_data(cell).root == experiment.test
    assert replace(experiment, test="").test_data(cell) == DataConfig("synthetic")
    assert provenance.command(experiment).endswith(" --test=test1000")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Three arms, two steps each, on SYSU-MM01's layout with thirteen persons."""
    write_people(tmp_path / "sysu")
    shrink_small(monkeypatch)
    only = "none+agw-* simclr+agw-* dapg-1+agw-*"
    return Experiment(
        ("beyond",), "small", (Source("sysu", str(tmp_path / "sysu")),), ("random",), 1, 1, only,
        tmp_path / "runs", tmp_path / "results", "cpu",
    )  # fmt: skip


def test_a_cell_of_a_partition_is_scored_on_that_partition_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RegDB's other partitions test persons that the model was trained on."""
    RegDB.write_example(tmp_path / "people")
    shrink_small(monkeypatch)
    experiment = Experiment(
        ("primary",), "small", (Source("thermal", str(tmp_path / "people")),), ("random",), 1, 1,
        "none+agw-thermal-2-*", tmp_path / "runs", tmp_path / "results", "cpu",
    )  # fmt: skip
    assert not run(experiment)
    (result,) = read_cells(experiment.folder, with_persons=True).values()
    people = RegDB(tmp_path / "people")
    tested, trained = ({record.person for record in people.records(f"{part}-2")} for part in ("test", "train"))
    assert tested
    assert not tested & trained
    for mode in ("visible-to-thermal", "thermal-to-visible"):
        for condition in ("clean", "all"):
            assert set(result.persons[f"{mode}/{condition}"].persons) == tested


def test_data_that_are_not_there_are_named_before_anything_is_trained_or_estimated(tmp_path: Path) -> None:
    nowhere = Experiment(
        ("beyond",), "small", (Source("sysu", str(tmp_path / "nowhere")),), ("random",), 1, 1, "simclr+agw-*",
        tmp_path / "runs", tmp_path / "results", "cpu",
    )  # fmt: skip
    (plan,) = outlook(nowhere)
    assert (plan.state, plan.seconds) == ("missing", 0.0)
    assert "SYSU-MM01 not found" in plan.about
    with pytest.raises(DataError, match="SYSU-MM01 not found"):
        run(nowhere)
    assert not (tmp_path / "runs").exists()


def test_a_cell_from_nothing_a_kill_inside_it_and_tables(
    small: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = outlook(small)
    assert [part.state for part in before] == ["to run"] * 3
    assert before[0].seconds is None  # nothing has been measured yet

    # Killed after the pre-training: it is there, the cell is not.

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    simclr = replace(small, only="simclr+agw-*")
    monkeypatch.setattr(cell_runs, "finetune", killed)
    with pytest.raises(KeyboardInterrupt):
        run(simclr)
    (left,) = outlook(simclr)
    assert (left.state, left.about) == ("to run", "finetune agw, score")
    stamp = (Path(left.cell.chain[0].out) / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(cell_runs, "finetune", finetune)
    assert run(simclr) == {}
    assert (Path(left.cell.chain[0].out) / "result.json").stat().st_mtime_ns == stamp
    assert (outlook(simclr)[0].state, outlook(simclr)[0].about) == ("done", "")
    result = read_cells(simclr.folder)[left.cell.name]
    assert [[step for step, _ in training.curve] for training in result.trainings] == [[2], [2]]
    assert (result.draws, result.corruptions.split()[:2]) == (DRAWS, ["vi-c", "1.0"])

    # SIGTERM ends the whole command; it is no failure of the cell.
    def stopped(*_: Any) -> Any:
        raise Terminated("stopped by SIGTERM")

    monkeypatch.setattr(cell_runs, "finetune", stopped)
    with pytest.raises(Terminated):
        run(small)
    assert read_progress(small.queue).failed == {}

    # A failing cell does not stop the others; its reason is kept until it works.
    def fails(settings: Any, *rest: Any) -> Any:
        if settings.backbone.init == "random":
            raise UsageError("no such thing")
        return finetune(settings, *rest)

    monkeypatch.setattr(cell_runs, "finetune", fails)
    assert run(small) == {"none+agw-sysu-random-0": "UsageError: no such thing"}
    assert [part.state for part in outlook(small)] == ["to run", "done", "done"]
    monkeypatch.setattr(cell_runs, "finetune", finetune)
    assert run(small) == {}

    # Heat maps and ranked lists of our network and the strongest other one, once; without the networks they are named.
    monkeypatch.setattr(heat_maps, "NAMES", ("contrast", "fog"))
    monkeypatch.setattr(heat_maps, "LEVELS", (1, 5))
    (drawn,) = heat_maps.write_pictures(small, print)
    stored = json.loads(drawn.read_text())
    assert stored["cells"]["ours"]["name"] == "dapg-1+agw-sysu-random-0"
    assert [len(row) for table in stored["severities"]["mAP"].values() for row in table] == [2, 2, 2, 2]
    assert sum(stored["disagreements"]["counts"].values()) == 12  # three persons, two infrared cameras, two pictures
    assert heat_maps.write_pictures(small, print) == []
    drawn.unlink()
    capsys.readouterr()
    assert heat_maps.write_pictures(replace(small, runs=tmp_path / "elsewhere"), print) == []
    assert "is not at hand" in capsys.readouterr().out
    drawn.write_text(json.dumps(stored))

    # Tables: ours are there, the rest says why not; made again they are equal to the byte.
    text = write_report(small)
    assert "Not run: MoCo v2;" in text
    cells = read_cells(small.folder, with_persons=True)
    ours = [line for line in lines(small, cells) if line.arm == "dapg-1" and line.finetuning == "agw"]
    assert len(ours) == 2 * 3 * 2
    assert all(line.low <= line.value <= line.high for line in ours)  # type: ignore[operator]
    assert {gap.other for gap in comparisons(small, "beyond", cells)} == {"none", "simclr"}
    names = {path.name for path in small.folder.rglob("*.*") if not path.name.startswith(".")}
    tables = {"beyond.md", "beyond.csv", "beyond.tex", "beyond-differences.csv"}
    persons = {f"{cell.name}.npz" for cell in small.cells()}
    assert names == {*tables, *persons, "cells.csv", "cells.jsonl", "report.html", "agw-sysu-random.json"}
    page = small.page.read_bytes()
    assert b"contrast" in page
    assert b"The first answer is right for both in" in page
    assert write_report(small) == text
    assert small.page.read_bytes() == page


def test_cells_with_both_stages(small: Experiment, generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poses are generated once, the alignment starts from stage 1 and the fine-tuning from the alignment."""
    some = sorted({record.person for record in Synthetic().records("train")})[:10]
    few = [record for record in Synthetic().records("train") if record.person in some]
    monkeypatch.setattr(Synthetic, "records", lambda self, split: list(few))
    both = replace(small, tables=("stage2",), only="dapg+agw-* dapg-shuffled+agw-*")
    shuffled, whole = outlook(both)
    assert (shuffled.state, whole.state) == ("to run", "to run")
    assert shuffled.about == "pretrain dapg, align dapg_align, finetune agw, score"
    assert whole.about == "align dapg_align, finetune agw, score", "stage 1 is the other's to train"
    assert run(both) == {}
    for part, positives in ((shuffled, "shuffled"), (whole, "generated")):
        first, aligned, last = part.cell.chain
        assert isinstance(aligned, AlignSettings)
        manifest = read_manifest(aligned.generated)
        assert {picture.path for picture in manifest.pictures} == {record.path for record in few}
        trainings = read_cells(both.folder)[part.cell.name].trainings
        stages = [(training.stage, training.run) for training in trainings]
        folders = [Path(training.out).name for training in (first, aligned, last)]
        assert stages == list(zip(("pretrain", "align", "finetune"), folders, strict=True))
        assert trainings[1].alignment["generator"]["generator"] == sha256(generator)  # type: ignore[index]
        assert trainings[1].alignment["positives"] == positives
        for training in (aligned, last):
            made_from = json.loads((Path(training.out) / "result.json").read_text())["init"]
            source = {aligned.out: first.out, last.out: aligned.out}[training.out]
            assert made_from["sha256"] == sha256(Path(source) / "backbone.safetensors")


def test_stage_1_is_shown_within_the_visible_cameras_too(tmp_path: Path) -> None:
    """Rows by mode with the kept share of clean mAP; only the compared modes are compared."""
    experiment = Experiment(("stage1",), starts=("random",), seeds=1, results=tmp_path)
    for cell in experiment.cells():
        if cell.arm in ("none", "dapg-1"):
            add_cell(experiment.folder, made_up(cell, 0.9 if cell.arm == "dapg-1" else 0.4))
    cells = read_cells(experiment.folder, with_persons=True)
    found = {(line.arm, *line.column): line for line in lines(experiment, cells)}
    stored = cells["dapg-1+agw-synthetic-random-0"].scores
    for mode, condition in (("all-100", "seen"), (WITHIN[0], "all"), (WITHIN[1], "clean")):
        value = found["dapg-1", mode, condition, "mAP"].value
        assert value == pytest.approx(100 * stored[f"{mode}/{condition}"]["mAP"], abs=0.01)
    assert found["simclr", "all-100", "clean", "mAP"].state == "not run"
    compared = comparisons(experiment, "stage1", cells)
    assert {(each.arm, each.other) for each in compared} == {("dapg-1", "none")}
    assert {each.mode for each in compared} == {"all-100", *WITHIN}
    text = write_report(experiment)
    clean, corrupted = (stored[f"visible-100 centred/{condition}"]["mAP"] for condition in ("clean", "all"))
    (row,) = [
        line
        for block in text.split("| pre-training | seeds | visible-100 centred clean rank-1")[1:]
        for line in block.splitlines()
        if line.startswith("| DAPG, stage 1 |")
    ][:1]
    assert row.rstrip(" |").rpartition(" | ")[2] == f"{corrupted / clean:.2f}"
    assert "| random | DAPG, stage 1 | 1 | 7 | 448 | 36 | 5.0 |" in text


def test_stage_2_compares_the_whole_method_with_stage_1_alone(generator: Path, tmp_path: Path) -> None:
    experiment = Experiment(("stage2",), starts=("random",), seeds=1, results=tmp_path)
    for cell in experiment.cells():
        if cell.arm in ("dapg-1", "dapg", "dapg-shuffled"):
            add_cell(experiment.folder, made_up(cell, 0.9 if cell.arm == "dapg" else 0.4))
    compared = comparisons(experiment, "stage2", read_cells(experiment.folder, with_persons=True))
    assert {(each.arm, each.other) for each in compared} == {("dapg", "dapg-1"), ("dapg", "dapg-shuffled")}
    assert {each.condition for each in compared} == {"clean", "all"}
    assert {each.mode for each in compared} == {"all-100", *WITHIN}
    assert all(each.value > 0 for each in compared)
    assert re.search(r"Not run: .*both stages, true other pictures \(uses labels\)", write_report(experiment))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["fig1", "--seeds", "1", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(["reproduce", "plan", *base]) == 0
    said = capsys.readouterr().out
    assert "6 to run" in said
    assert "of disk; time unknown: none of these 6 cells is like one that was measured here\n" in said
    assert main(["reproduce", "plan", *base, "--only", "*mine*"]) == 2
    assert "; a method of your own needs --plugins FOLDER" in capsys.readouterr().err
    for wrong in (["table7"], ["fig1", "--scale", "big"], ["fig1", "--data", "sysu"], ["fig1", "--seeds", "0"]):
        assert main(["reproduce", "plan", *wrong]) == 2
