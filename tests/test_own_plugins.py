"""CONTRIBUTING's promise: a method, a corruption, a network and a data set of one's own are one file each."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from command_line import run
from dapg import recipes
from dapg.augment.noise_chain import ChainConfig
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.scales import SCALES
from dapg.core.schema import read_json
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.experiment.plan import Experiment
from foreign import forget_plugins
from made_up_cells import shrink_small, write_people

BLOCKS = re.findall(
    r"`FOLDER/([\w/]+\.py)`[^\n]*\n(?:[^\n]+\n)*\n```python\n(.*?)```",
    (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The files that CONTRIBUTING.md shows, as it says where they go."""
    assert [path for path, _ in BLOCKS] == [
        "methods/pretraining/mine.py",
        "corruptions/smoke.py",
        "models/backbones/small_vit.py",
        "data/sets/mine_set.py",
    ]
    for path, source in BLOCKS:
        file = tmp_path / "own" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    with forget_plugins():
        yield tmp_path / "own"


def test_every_contract_is_kept_and_a_broken_one_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plugins", "check", folder)
    assert (code, err) == (0, ""), out
    for path, _ in BLOCKS:
        assert f"kept  {path}: " in out
    assert "corruptions/smoke.py: every choice is drawn" in out
    assert re.search(r"\nall \d+ checks kept\n$", out)


def test_a_check_says_what_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, _ in BLOCKS:
        if not path.startswith("corruptions"):
            (folder / path).unlink()
    smoke = folder / "corruptions" / "smoke.py"
    smoke.write_text(smoke.read_text().replace("images + ", "images - images.mean() * 9 + "))
    (folder / "corruptions" / "empty.py").write_text("x = 1\n")
    code, out, _ = run(capsys, "plugins", "check", folder)
    assert code == 1
    assert "BROKEN  corruptions/empty.py: can be loaded" in out
    assert re.search(r"BROKEN  corruptions/smoke\.py: \w", out)
    assert run(capsys, "plugins", "check", folder / "corruptions")[0] == 2


def test_an_error_is_said_once_with_the_line_of_the_plug_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, _ in BLOCKS:
        if not path.startswith("corruptions"):
            (folder / path).unlink()
    smoke = folder / "corruptions" / "smoke.py"
    before, _, _ = smoke.read_text().partition("images + ")
    smoke.write_text(smoke.read_text().replace("images + ", "torch.nn.Identity().head + images + "))
    code, out, _ = run(capsys, "plugins", "check", folder)
    problem = f"AttributeError: 'Identity' object has no attribute 'head' ({smoke}:{before.count(chr(10)) + 1})\n"
    assert (code, out.count(problem)) == (1, 1), out
    broken = int(re.findall(r"\n(\d+) of \d+ checks broken\n$", out)[0])
    assert f"BROKEN  corruptions/smoke.py: and {broken - 1} more checks, the same as " in out


def test_the_method_trains_by_its_own_recipe(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "demo", "--data.subset", 16, "--loader.workers", 0, "--device", "cpu", "--plugins", folder]
    out = tmp_path / "run"
    code, _, err = run(capsys, "pretrain", "mine", *words, "--train.batch_size", 8, "--out", out)
    assert code == 0, err
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored["train"]["optimizer"]["name"] == "adam"
    assert read_json(out / "result.json")["steps"] == stored["train"]["steps"] == 5
    trains = {scale: recipes.pretraining("mine", scale).train for scale in SCALES}
    assert {train.optimizer.lr for train in trains.values()} == {1e-3, 4e-3}
    assert (trains["paper"].epochs, trains["small"].steps) == (30.0, 7)


def test_the_method_is_an_arm_of_every_table(folder: Path, tmp_path: Path) -> None:
    before = {cell.name for cell in Experiment(starts=("random",), seeds=1, runs=tmp_path).cells()}
    plugins.add(folder)
    cells = Experiment(starts=("random",), seeds=1, runs=tmp_path).cells()
    ours = [cell for cell in cells if cell.arm == "mine"]
    assert {cell.name for cell in cells} - {cell.name for cell in ours} == before
    assert {"mine+agw-synthetic-random-0", "mine+cil-synthetic-random-0"} <= {cell.name for cell in ours}
    assert {(cell.chain[0].name, cell.chain[0].train.steps) for cell in ours} == {("mine", 7)}


@pytest.mark.slow
def test_its_row_stands_in_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_small(monkeypatch)
    write_people(tmp_path / "sysu")
    only = ["beyond", "--only", "mine+agw-*", "--starts", "random", "--seeds", 1, "--repeats", 1]
    places = ["--runs", tmp_path / "runs", "--results", tmp_path / "results", "--data", f"sysu={tmp_path / 'sysu'}"]
    code, said, err = run(capsys, "reproduce", "run", *only, *places, "--device", "cpu", "--plugins", folder)
    assert code == 0, said + err
    code, table, err = run(capsys, "reproduce", "show", *only, *places, "--plugins", folder)
    assert code == 0, err
    (row,) = [line for line in table.splitlines() if re.match(r"\| mine +\|", line)][:1]
    assert re.search(r"\d+\.\d \(", row), row
    made = [path.parent.name for path in (tmp_path / "runs").rglob("result.json")]
    assert {name.split("-")[0] for name in made} == {"mine", "agw"}


def test_the_corruption_joins_lists_and_the_chain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="smoke"):
        ChainConfig(types=("seen", "smoke"))
    before = ChainConfig().names
    plugins.add(folder)
    assert "smoke" in library.names()
    assert ChainConfig().names == before
    assert ChainConfig(types=("seen", "smoke"), leave_out=("noise",)).names == (*before[3:], "smoke")


def test_the_transformer_is_pre_trained_fine_tuned_and_looked_at(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--backbone", "small_vit", "--backbone.width", 1.0, "--plugins", folder]
    small = ["--preset", "demo", "--loader.workers", 0, "--device", "cpu", "--train.steps", 2]
    first, second = tmp_path / "first", tmp_path / "second"
    words = [*small, *network, "--data.subset", 16, "--train.batch_size", 8]
    assert run(capsys, "pretrain", "simclr", *words, "--out", first)[0] == 0
    tuning = [*small, *network, "--backbone.last_stride", 2, "--train.batch_size", 16, "--init", first]
    code, _, err = run(capsys, "finetune", "agw", *tuning, "--out", second)
    assert code == 2
    assert "SmallViT has no stages that non-local blocks could follow: --method.network.non_local" in err
    code, _, err = run(capsys, "finetune", "agw", *tuning, "--method.network.non_local", "[0,0,0,0]", "--out", second)
    assert code == 0, err
    code, _, err = run(capsys, "finetune", "agw", *tuning, "--backbone.width", 0.5, "--out", tmp_path / "third")
    assert code == 2
    assert "small_vit has no setting width: give --backbone.width 1.0" in err


def test_the_data_set_is_trained_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins.add(folder)
    plugins.load("data.sets", "mine_set", Dataset).write_example(tmp_path / "root")
    words = ["--preset", "demo", "--train.steps", 1, "--train.batch_size", 2, "--loader.workers", 1, "--device", "cpu"]
    code, _, err = run(
        capsys, "pretrain", "simclr", *words, "--data", f"mine_set={tmp_path / 'root'}", "--out", tmp_path / "run"
    )
    assert code == 0, err
