"""`dapg finetune` from the command line: settings, selection, partitions, persons in one modality, and a score."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import run
from dapg.core import plugins
from dapg.core.scales import PRESETS
from dapg.core.settings import field_docs, to_dict
from dapg.core.types import Modality
from dapg.data.sets.regdb import RegDB
from dapg.data.sets.synthetic import Synthetic
from dapg.methods.runs import load_method, method_class
from dapg.pipelines.partitions import parse_partitions
from dapg.recipes import finetuning
from dapg.training.checkpoint import whole_checkpoints

METHODS = plugins.names("methods.finetuning")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training persons, one for validation, two for the test."""
    root = tmp_path_factory.mktemp("people")
    Synthetic.write_example(root)
    return root


SMALL = (
    *("--preset", "demo", "--train.batch_size", "8", "--pictures", "2", "--train.steps", "3"),
    *("--backbone.width", "0.125", "--loader.workers", "0", "--loader.height", "32", "--loader.width", "16"),
    *("--method.views.height", "32", "--method.views.width", "16", "--device", "cpu", "--train.log_every", "1"),
)


def result_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "result.json").read_text()))


def test_help_lists_methods_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "finetune", "--help")
    assert code == 0
    assert {"agw", "baseline"} <= set(METHODS)
    for word in (*METHODS, *PRESETS):
        assert word in out


@pytest.mark.parametrize("method", ["agw", "baseline"])
def test_every_setting_of_the_method_is_an_option(capsys: pytest.CaptureFixture[str], method: str) -> None:
    code, out, err = run(capsys, "finetune", method, "--preset", "small", "--help-all")
    assert (code, err) == (0, "")
    config: Any = method_class("finetune", method).Config
    for name in field_docs(config):
        assert f"--method.{name}" in out
    assert "--method.network.non_local_channels" in out


@pytest.mark.parametrize("preset", PRESETS)
def test_printed_settings_are_the_preset(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    code, out, err = run(capsys, "finetune", "agw", "--preset", preset, "--print_config")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out) == to_dict(finetuning("agw", preset), whole=True)


def test_paper_preset_is_the_published_recipe() -> None:
    """The numbers of AGW's train.py, one by one."""
    paper = finetuning("agw", "paper")
    optimizer, schedule = paper.train.optimizer, paper.train.schedule
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.1, 0.9, True)
    assert optimizer.weight_decay == 5e-4
    assert (schedule.name, schedule.warmup, schedule.milestones, schedule.gamma) == ("step", 10.0, (20.0, 50.0), 0.1)
    assert schedule.by_epoch
    assert (paper.train.epochs, paper.train.batch_size, paper.pictures) == (81.0, 64, 4)
    assert paper.train.precision == "fp32"
    assert (paper.backbone.name, paper.backbone.last_stride) == ("resnet50", 1)
    views: Any = paper.method.views
    assert (views.height, views.width, views.padding, views.flip, views.erasing) == (288, 144, 10, 0.5, 0.0)
    assert paper.selection == "last"


def test_published_schedule_on_sysu_sized_epochs() -> None:
    """Epochs of 696 steps: the rates that train.py prints at epochs 0, 9, 19, 20, 49, 50 and 80."""
    from dapg.training.optimizers import learning_rate

    paper = finetuning("agw", "paper").train
    total = paper.total_steps(696.0)
    assert total == 81 * 696
    rates = [
        learning_rate(696 * epoch + 695, total, 0.1, paper.schedule, 696.0) for epoch in (0, 9, 19, 20, 49, 50, 80)
    ]
    assert rates == pytest.approx([0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_a_run_scores_itself_from_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, people: Path
) -> None:
    out = tmp_path / "run"
    words = ("finetune", "agw", *SMALL, "--data", f"synthetic={people}", "--out", str(out))
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert "done: 3 steps" in said
    result = result_of(out)
    assert result["facts"] == {"pictures": 48, "persons": [1, 2, 3, 4]}
    assert (result["split"], result["steps_per_epoch"], result["persons_in_one_modality"]) == ("train", 9, [])
    assert result["scores"] == {}

    code, said, err = run(capsys, *words)
    assert (code, "already finished, reused" in said) == (0, True)
    command = next(line for line in said.splitlines() if line.startswith("next: "))
    printed = shlex.split(command.removeprefix("next: dapg "), comments=True)
    assert printed == ["evaluate", str(out), "--data", f"synthetic={people}"]
    more = ("--mode", "all", "--workers", "0", "--device", "cpu")
    code, said, err = run(capsys, *printed, *more)
    assert code == 0, err
    assert f"data: synthetic, {people}" in said
    scored = result_of(out / "evaluate-synthetic-all")
    # Without --data the run is scored on its own people, not on the embedded ones.
    code, said, err = run(capsys, "evaluate", str(out), *more, "--out", str(tmp_path / "again"))
    assert code == 0, err
    assert f"data: synthetic, {people}" in said
    assert result_of(tmp_path / "again")["data"] == scored["data"]
    assert "after_bn" in said
    assert "before_bn" in said

    second = ("--init", str(out), "--out", str(tmp_path / "second"))
    assert run(capsys, "finetune", "baseline", *SMALL, "--data", f"synthetic={people}", *second)[0] == 0


def test_the_modality_chooses_the_stem_of_a_trained_network(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, people: Path
) -> None:
    words = ("finetune", "baseline", *SMALL, "--data", f"synthetic={people}", "--out", str(tmp_path))
    assert run(capsys, *words)[0] == 0
    method = load_method(tmp_path)
    images = torch.randn(2, 3, 32, 16)
    visible, infrared = (method.encode(images, modality)["after_bn"] for modality in Modality)
    assert not torch.allclose(visible, infrared)


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_selection_keeps_the_best_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, people: Path, selection: str
) -> None:
    choice = ["--selection", selection, "--train.validate_every", "1"]
    if selection == "validation":  # corruptions need 32 pixels
        choice += ["--corrupted_scores", "true", "--method.views.height", "64", "--method.views.width", "32"]
    words = ("finetune", "baseline", *SMALL, "--data", f"synthetic={people}", *choice, "--out", str(tmp_path))
    code, _, err = run(capsys, *words)
    assert code == 0, err
    result = result_of(tmp_path)
    assert result["facts"]["persons"] == [1, 2, 3, 4]  # type: ignore[index]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scored = {line["step"]: line for line in lines if line["kind"] == "validation"}
    assert set(scored) == {1, 2, 3}
    assert {"mAP", "rank-1", "mINP"} <= scored[1].keys()
    assert ({"corrupted all mAP", "corrupted unseen rank-1"} <= scored[1].keys()) == (selection == "validation")
    best = result["best"]["step"]  # type: ignore[index]
    assert scored[best]["mAP"] == max(line["mAP"] for line in scored.values())
    folder = next(each.folder for each in whole_checkpoints(tmp_path) if each.step == best)
    from safetensors.torch import load_file

    kept, chosen = load_file(tmp_path / "method.safetensors"), load_file(folder / "method.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in chosen.items())


def test_persons_in_one_modality_are_left_out_with_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = tmp_path / "people"
    Synthetic.write_example(root)
    for camera in (3, 6):
        for path in (root / f"cam{camera}" / "0002").iterdir():
            path.unlink()
    words = ("finetune", "baseline", *SMALL, "--data", f"synthetic={root}", "--out", str(tmp_path / "run"))
    code, said, err = run(capsys, *words)
    assert code == 0, err
    assert "warning: 1 of 4 persons are not used: they have images in one modality only (person 2)" in said + err
    result = result_of(tmp_path / "run")
    assert result["persons_in_one_modality"] == [2]
    assert result["facts"]["persons"] == [1, 3, 4]  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train.batch_size", "10"), "--train.batch_size 10 does not divide into 1 part"),
        (("--train.batch_size", "4"), "one person in each part of a batch, so that no triplet has a negative; give 8"),
        (("--train.batch_size", "64"), "a batch of 16 persons needs as many persons"),
        (("--train.early_stop", "1", "--data", "llcm=nowhere"), "nowhere"),
        (("--partitions", "all"), "--partitions belongs to --data regdb=PATH"),
        (("--partitions", "0-3"), "RegDB's partitions are 1 to 10"),
        (("--partitions", "x"), "--partitions takes all, or numbers"),
        (("--data.split", "unlabelled"), "has no person with images in both kinds of light"),
    ],
)
def test_wrong_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, people: Path, words: tuple[str, ...], message: str
) -> None:
    begin = ("finetune", "baseline", *SMALL, "--data", f"synthetic={people}", "--out", str(tmp_path / "run"))
    code, _, err = run(capsys, *begin, *words)
    assert code in (1, 2)
    assert message in err


def test_partition_numbers() -> None:
    assert parse_partitions("all") == list(range(1, 11))
    assert parse_partitions("2-4,9") == [2, 3, 4, 9]


def test_partitions_are_trained_scored_and_summarised(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root, out = tmp_path / "RegDB", tmp_path / "runs"
    RegDB.write_example(root)
    small = (*SMALL, "--train.batch_size", "4", "--pictures", "1", "--train.steps", "1")
    words = ("finetune", "baseline", *small, "--data", f"regdb={root}", "--out", str(out))
    code, said, err = run(capsys, *words, "--partitions", "1,3")
    assert code == 0, err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["partitions"] == [1, 3]
    assert not summary["comparable"]
    for mode in ("visible-to-thermal", "thermal-to-visible"):
        line = summary["scores"][mode]["after_bn"]["rank-1"]
        assert line["mean"] == pytest.approx((line["each"]["1"] + line["each"]["3"]) / 2)
        assert f"{mode}, after_bn: rank-1" in said
    for number in (1, 3):
        stored = yaml.safe_load((out / f"partition-{number}" / "config.yaml").read_text())
        assert stored["data"]["split"] == f"train-{number}"
        trained = set(result_of(out / f"partition-{number}")["facts"]["persons"])  # type: ignore[index]
        assert trained == {record.person for record in RegDB(root).records(f"train-{number}")}

    before = (out / "partition-1" / "result.json").stat().st_mtime_ns
    code, _, err = run(capsys, *words, "--partitions", "1-3")  # goes on with what is missing
    assert code == 0, err
    assert (out / "partition-1" / "result.json").stat().st_mtime_ns == before
    assert json.loads((out / "summary.json").read_text())["partitions"] == [1, 2, 3]
