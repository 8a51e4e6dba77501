"""What finished commands say to do next is what a shell and the commands themselves take."""

import shlex
from dataclasses import replace

import pytest
import yaml

from command_line import run
from dapg.commands._next import dapg, say_next
from dapg.commands._reproduce import TABLES, words_of
from dapg.commands._training import tuning_step
from dapg.commands.reproduce_run import RunSettings
from dapg.core import plugins
from dapg.core.engines.base import EngineSettings
from dapg.core.settings import to_dict
from dapg.core.train_config import DataConfig
from dapg.experiment import matrix
from dapg.experiment.plan import Experiment
from dapg.recipes import pretraining


def test_commands_are_copied_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say_next(("look", dapg("report", "my runs/it's", further=" --data x")))
    (line,) = capsys.readouterr().out.splitlines()
    words = shlex.split(line.removeprefix("next: "), comments=True)
    assert words == ["dapg", "report", "my runs/it's", "--data", "x"]


def test_plug_ins_go_with_what_comes_next(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "GIVEN", ["my own"])
    say_next(("look", dapg("report", "outputs")))
    assert capsys.readouterr().out == "next: dapg report outputs --plugins 'my own'    # look\n"


@pytest.mark.parametrize(
    ("preset", "start", "changed"),
    [("small", "", {}), ("small", "random", {}), ("demo", "", {"width": 0.5}), ("gpu", "imagenet", {"end": "layer3"})],
)
def test_a_fine_tuning_takes_the_network_that_was_trained(
    preset: str, start: str, changed: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pretraining("mocov2", preset, start)
    settings = replace(settings, backbone=replace(settings.backbone, **changed), out="outputs/my run")  # type: ignore[arg-type]
    _, command = tuning_step(settings, preset, start)
    code, printed, _ = run(capsys, *shlex.split(command)[1:], "--print_config")
    backbone = yaml.safe_load(printed)["backbone"]
    assert (code, backbone.pop("init")) == (0, "outputs/my run")
    expected = to_dict(settings.backbone, whole=True)
    assert {**backbone, "last_stride": 0, "init": ""} == {**expected, "last_stride": 0, "init": ""}


def test_other_data_ask_for_labelled_ones() -> None:
    settings = replace(pretraining("mocov2", "small"), data=DataConfig("folder", "crops"))
    assert tuning_step(settings, "small", "")[1].endswith("--data LABELLED")


def test_an_experiment_is_shown_as_it_was_run() -> None:
    settings = RunSettings(seeds=3, only="dapg* agw*", engine=EngineSettings("slurm", 8))
    assert words_of(Experiment(("table1",)), settings) == ["table1", "--seeds", "3", "--only", "dapg* agw*"]
    assert words_of(Experiment(("table1", "table2")), RunSettings())[0] == "all"


def test_help_names_every_table() -> None:
    assert all(table in TABLES for table in matrix.TABLES), "written out, as --help does without the matrix's imports"
