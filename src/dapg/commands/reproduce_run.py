"""Run the paper's experiment matrix, cell by cell."""

from dataclasses import dataclass

from dapg.commands._next import dapg, say_next
from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment, words_of
from dapg.core.engines.base import EngineSettings
from dapg.core.words import counted

_HELP = f"""usage: dapg reproduce run TABLE [--NAME VALUE ...]

Run the experiment matrix: pre-trainings x fine-tuners x data sets x seeds, scored on clean and corrupted
images. A cell that is done is not run again, a killed one goes on where it stopped, and a failing one does not stop
the others: exit code 1 at the end. The same command may run several times at once.

{TABLES}

examples:
  dapg reproduce run beyond --seeds 3 --only '*+agw-*'
  dapg reproduce run all --scale paper --data sysu=/data/SYSU-MM01,regdb=/data/RegDB --workers 8"""


@dataclass(frozen=True)
class RunSettings(ExperimentSettings):
    """The experiment."""

    engine: EngineSettings = EngineSettings(tries=1)
    """Who runs the cells."""


def main(words: list[str], program: str) -> None:
    """Parse and run."""
    experiment, settings = parse_experiment(program, RunSettings(), words, _HELP)
    from dapg.experiment.queue import run

    failed = run(experiment, settings.engine)
    print(f"results: {experiment.folder}")
    if failed:
        print(f"{counted(len(failed), 'cell')} failed; tracebacks are in {experiment.queue}:")
        print("\n".join(f"  {name}: {reason}" for name, reason in failed.items()))
        raise SystemExit(1)
    say_next(("the tables of what is done", dapg("reproduce", "show", *words_of(experiment, settings))))
