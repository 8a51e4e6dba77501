"""Run the paper's tables as one cached, restartable experiment."""

from typing import TYPE_CHECKING

from dapg.commands._settings import take_option, wants_help
from dapg.core.errors import UsageError

if TYPE_CHECKING:
    from dapg.recipes.reproduce import Experiment

_HELP = """usage: dapg reproduce TABLE [--scale {tiny,gpu,paper}] [OPTIONS]

Run the paper's experiment matrix: pre-trainings x fine-tuners x data sets x seeds, on clean and corrupted pictures. A
cell that is done is not run again, a killed one goes on where it stopped, a failing one does not stop the others.
Results are files under --results; `dapg reproduce TABLE --show` makes the tables from them.

TABLE is table1, table2, table3, fig1, beyond (what a fair comparison needs besides: standard and corrupted views, equal
passes, CAJ) or all. Tables 1 and 2 share their cells.

options:
  --scale SCALE      tiny: minutes a cell on two cores (default); gpu: one GPU; paper: the published settings
  --data SOURCES     synthetic (default), sysu=PATH, regdb=PATH; several with commas between them
  --starts STARTS    random, imagenet, or both with a comma between them (default: both)
  --seeds N          seeds of each cell (default 5)
  --repeats N        corrupted test sets of each kind (default 2; CIL: 10)
  --only PATTERNS    cells by name, e.g. 'dapg* *+agw-*-0'
  --dry-run          say what is done, what would run, how long it takes and how much disk it needs
  --show             print the tables of what is done as Markdown, and write Markdown, CSV and LaTeX beside the results
  --runs FOLDER      folder of the trainings (default outputs/reproduce)
  --results FOLDER   folder of the results (default results)
  --device DEVICE    auto, cpu, cuda or cuda:N; several with commas between them: a process for each
  --manifest FILE    write one command a cell, for a SLURM array or any other queue
  --cell NAME        run this cell only, as the manifest's commands do

examples:
  dapg reproduce table1 --dry-run
  dapg reproduce beyond --seeds 3 --only '*+agw-*'
  dapg reproduce all --scale paper --data sysu=/data/SYSU-MM01,regdb=/data/RegDB --device cuda:0,cuda:1
  dapg reproduce all --scale gpu --manifest cells.txt
  sbatch --array=1-$(wc -l < cells.txt) --gres=gpu:1 --wrap='eval "$(sed -n ${SLURM_ARRAY_TASK_ID}p cells.txt)"'
"""
_FLAGS = ("--dry-run", "--show")


def main(words: list[str], program: str) -> None:
    """Parse, then plan, run or show.

    Raises:
        UsageError: wrong arguments.
        SystemExit: 1 where a cell failed.
    """
    if wants_help(words) or not words:
        print(_HELP, end="")
        return
    flags = {flag for flag in _FLAGS if flag in words}
    words = [word for word in words if word not in _FLAGS]
    manifest, words = take_option(words, "--manifest", "")
    cell, words = take_option(words, "--cell", "")
    device, words = take_option(words, "--device", "auto")
    given = list(words)

    from dapg.recipes.reproduce import run_on

    experiment = _experiment(words, device.split(",")[0], program)
    if "--dry-run" in flags:
        _plan(experiment)
    elif "--show" in flags:
        _show(experiment)
    elif manifest:
        _write_manifest(experiment, given, manifest)
    elif "," in device:
        if not run_on(given, device.split(","), print):
            raise SystemExit(1)
    else:
        _run(experiment, cell)


def _experiment(words: list[str], device: str, program: str) -> "Experiment":
    from pathlib import Path

    from dapg.recipes.matrix import SCALES, TABLES, Source
    from dapg.recipes.reproduce import Experiment

    table, words = words[0], words[1:]
    if table != "all" and table not in TABLES:
        raise UsageError(f"{program} needs one of {', '.join(TABLES)} or all, not {table!r}")
    values = {}
    for option, default in (
        ("--scale", "tiny"),
        ("--data", "synthetic"),
        ("--starts", "random,imagenet"),
        ("--seeds", "5"),
        ("--repeats", "2"),
        ("--only", "*"),
        ("--runs", "outputs/reproduce"),
        ("--results", "results"),
    ):
        values[option], words = take_option(words, option, default)
    if words:
        raise UsageError(f"unknown {words[0]!r}; see {program} --help")
    if values["--scale"] not in SCALES:
        raise UsageError(f"--scale is {', '.join(SCALES)}, not {values['--scale']!r}")
    return Experiment(
        tables=TABLES if table == "all" else (table,),
        scale=values["--scale"],
        sources=tuple(Source(*_source(text)) for text in values["--data"].split(",")),
        starts=tuple(values["--starts"].split(",")),
        seeds=_positive(values["--seeds"], "--seeds"),
        repeats=_positive(values["--repeats"], "--repeats"),
        only=values["--only"],
        runs=Path(values["--runs"]),
        results=Path(values["--results"]),
        device=device,
    )


def _source(text: str) -> tuple[str, str]:
    """A data set that can be fine-tuned on, and its root."""
    name, _, root = text.partition("=")
    if name not in ("synthetic", "sysu", "regdb"):
        raise UsageError(f"--data takes synthetic, sysu=PATH and regdb=PATH, not {text!r}")
    if name != "synthetic" and not root:
        raise UsageError(f"where is {name}? Give --data {name}=PATH")
    return name, root


def _positive(text: str, option: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{option} is a whole number from 1 on, not {text!r}")
    return int(text)


def _plan(experiment: "Experiment") -> None:
    from dapg.recipes.reproduce import outlook

    found = outlook(experiment)
    width = max(len(each.cell.name) for each in found)
    for each in found:
        time = "" if not each.state.startswith("to run") else f"  {_duration(each.seconds)}"
        print(f"{each.cell.name:{width}}  {each.state}{time}")
    left = [each for each in found if each.state.startswith("to run")]
    known = [each.seconds for each in left if each.seconds is not None]
    unknown = len(left) - len(known)
    print(
        f"\n{sum(each.state == 'done' for each in found)} cells done, {len(left)} to run, "
        f"{sum(each.state.startswith('missing') for each in found)} cannot run yet"
    )
    print(f"about {_duration(sum(known, 0.0))} and {sum(each.bytes for each in left) / 1e9:.1f} GB of disk", end="")
    print(f", without {unknown} cells whose like has not been measured here" if unknown else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not measured yet"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def _run(experiment: "Experiment", cell: str) -> None:
    from dapg.recipes.reproduce import run

    failed = run(experiment, lambda line: print(line, flush=True), cell)
    print(f"results: {experiment.folder}")
    if failed:
        print(f"{len(failed)} cells failed: {', '.join(failed)}")
        raise SystemExit(1)


def _write_manifest(experiment: "Experiment", words: list[str], path: str) -> None:
    from dapg.core.files import atomic_write_text
    from dapg.recipes.reproduce import commands

    lines = commands(experiment, words)
    atomic_write_text(path, "".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} commands: {path}")


def _show(experiment: "Experiment") -> None:
    from dapg.recipes.tables import write_tables

    print(write_tables(experiment))
