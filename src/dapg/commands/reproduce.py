"""Run the paper's tables as one cached, restartable experiment."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dapg.commands._settings import parse, take_option, take_positional
from dapg.core.errors import UsageError

if TYPE_CHECKING:
    from dapg.experiment.plan import Experiment

_HELP = """usage: dapg reproduce TABLE [--NAME VALUE ...]

Run the paper's experiment matrix: pre-trainings x fine-tuners x data sets x seeds, on clean and corrupted
pictures. A cell that is done is not run again, a killed one goes on where it stopped, a failing one does not stop the
others. Results are files; --show makes the tables from them.

  --dry-run          say what is done, what would run, how long it takes and how much disk it needs
  --show             print the tables of what is done; write them as Markdown, CSV and LaTeX and one HTML page beside
                     the results
  --pictures         score the networks of two arms by corruption and severity, and take ranked lists where they
                     disagree, for the page; the networks must still be below --runs
  --recheck WORD     run a cheap finished cell again, from nothing, and compare with what is stored; any WORD, such as
                     a commit, draws it; exit code 1 where the scores are outside the tolerance
  --manifest FILE    write one command a cell, for a SLURM array or any other queue
  --data SOURCES     synthetic (default), sysu=PATH, regdb=PATH; several with commas between them

examples:
  dapg reproduce table1 --dry-run
  dapg reproduce beyond --seeds 3 --only '*+agw-*'
  dapg reproduce all --scale paper --data sysu=/data/SYSU-MM01,regdb=/data/RegDB --device cuda:0,cuda:1
  dapg reproduce all --scale gpu --manifest cells.txt
  sbatch --array=1-$(wc -l < cells.txt) --gres=gpu:1 --wrap='eval "$(sed -n ${SLURM_ARRAY_TASK_ID}p cells.txt)"'"""
_TABLES = ["table1", "table2", "table3", "fig1", "beyond", "finetuners", "stage1", "stage2", "all"]
_FLAGS = ("--dry-run", "--show", "--pictures")


@dataclass(frozen=True)
class ReproduceSettings:
    """The experiment."""

    scale: str = "tiny"
    """tiny: minutes a cell on two cores; gpu: one GPU; paper: the published settings."""
    starts: str = "random,imagenet"
    """Where the first weights come from: random, imagenet or both."""
    seeds: int = 5
    """Seeds of each cell."""
    repeats: int = 2
    """Corrupted test sets of each kind (CIL: 10)."""
    only: str = "*"
    """Cells by name, patterns with spaces between them, such as 'dapg* *+agw-*-0'."""
    cell: str = ""
    """Run this cell only, as the manifest's commands do."""
    runs: str = "outputs/reproduce"
    """Folder of the trainings."""
    results: str = "results"
    """Folder of the results."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; several with commas between them: a process for each."""


def main(words: list[str], program: str) -> None:
    """Parse, then plan, run or show.

    Raises:
        UsageError: wrong arguments.
        SystemExit: 1 where a cell failed.
    """
    if not words or words[0] in ("-h", "--help"):
        parse(program, ReproduceSettings(), ["--help"], f"{_HELP}\n\ntables: {', '.join(_TABLES)}")
    table, words = take_positional(words, "TABLE", _TABLES, program)
    flags = {flag for flag in _FLAGS if flag in words}
    words = [word for word in words if word not in _FLAGS]
    manifest, words = take_option(words, "--manifest", "")
    drawn, words = take_option(words, "--recheck", "")
    data, rest = take_option(words, "--data", "synthetic")
    settings = parse(f"{program} {table}", ReproduceSettings(), rest, _HELP)
    experiment = _experiment(table, data, settings)
    if "--dry-run" in flags:
        _plan(experiment)
    elif "--show" in flags:
        _show(experiment)
    elif "--pictures" in flags:
        _draw(experiment)
    elif drawn:
        _recheck(experiment, drawn)
    elif manifest:
        _write_manifest(experiment, [table, *words], manifest)
    elif "," in settings.device:
        _run_on([table, *words], settings.device)
    else:
        _run(experiment, settings.cell)


def _experiment(table: str, data: str, settings: ReproduceSettings) -> "Experiment":
    from pathlib import Path

    from dapg.experiment.matrix import SCALES, TABLES, Source
    from dapg.experiment.plan import Experiment

    if settings.scale not in SCALES:
        raise UsageError(f"--scale is {', '.join(SCALES)}, not {settings.scale!r}")
    if min(settings.seeds, settings.repeats) < 1:
        raise UsageError("--seeds and --repeats are 1 or more")
    return Experiment(
        tables=TABLES if table == "all" else (table,),
        scale=settings.scale,
        sources=tuple(Source(*_source(text)) for text in data.split(",")),
        starts=tuple(settings.starts.split(",")),
        seeds=settings.seeds,
        repeats=settings.repeats,
        only=settings.only,
        runs=Path(settings.runs),
        results=Path(settings.results),
        device=settings.device.split(",")[0],
    )


def _source(text: str) -> tuple[str, str]:
    """A data set that can be fine-tuned on, and its root."""
    name, _, root = text.partition("=")
    if name not in ("synthetic", "sysu", "regdb"):
        raise UsageError(f"--data takes synthetic, sysu=PATH and regdb=PATH, not {text!r}")
    if name != "synthetic" and not root:
        raise UsageError(f"where is {name}? Give --data {name}=PATH")
    return name, root


def _plan(experiment: "Experiment") -> None:
    from dapg.experiment.plan import outlook

    found = outlook(experiment)
    width = max(len(each.cell.name) for each in found)
    for each in found:
        time = "" if not each.state.startswith("to run") else f"  {_duration(each.seconds)}"
        print(f"{each.cell.name:{width}}  {each.state}{time}")
    left = [each for each in found if each.state.startswith("to run")]
    known = [each.seconds for each in left if each.seconds is not None]
    unknown = len(left) - len(known)
    print(
        f"\n{sum(each.state.startswith('done') for each in found)} cells done, {len(left)} to run, "
        f"{sum(each.state.startswith('missing') for each in found)} cannot run yet"
    )
    print(f"about {_duration(sum(known, 0.0))} and {sum(each.bytes for each in left) / 1e9:.1f} GB of disk", end="")
    print(f", without {unknown} cells whose like has not been measured here" if unknown else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not measured yet"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def _run(experiment: "Experiment", cell: str) -> None:
    from dapg.experiment.queue import run

    failed = run(experiment, lambda line: print(line, flush=True), cell)
    print(f"results: {experiment.folder}")
    if failed:
        print(f"{len(failed)} cells failed: {', '.join(failed)}")
        raise SystemExit(1)


def _run_on(words: list[str], devices: str) -> None:
    from dapg.experiment.queue import run_on

    _, words = take_option(words, "--device", "")
    if not run_on(words, devices.split(","), print):
        raise SystemExit(1)


def _write_manifest(experiment: "Experiment", words: list[str], path: str) -> None:
    from dapg.core.files import atomic_write_text
    from dapg.experiment.plan import commands

    lines = commands(experiment, words)
    atomic_write_text(path, "".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} commands: {path}")


def _show(experiment: "Experiment") -> None:
    from dapg.experiment.page import write_report

    print(write_report(experiment))
    print(f"page: {experiment.folder / 'tables' / 'report.html'}")


def _draw(experiment: "Experiment") -> None:
    from dapg.experiment.heat_maps import write_pictures

    written = write_pictures(experiment, lambda line: print(line, flush=True))
    print(f"{len(written)} files written; --show puts them on the page")


def _recheck(experiment: "Experiment", word: str) -> None:
    from dapg.experiment.recheck import recheck

    verdict = recheck(experiment, word, lambda line: print(line, flush=True))
    print(verdict)
    if not verdict.passed:
        raise SystemExit(1)
