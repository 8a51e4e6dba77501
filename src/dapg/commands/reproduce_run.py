"""Run the paper's experiment matrix, cell by cell."""

from dataclasses import dataclass

from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment
from dapg.core.engines.base import EngineSettings

_HELP = f"""usage: dapg reproduce run TABLE [--NAME VALUE ...]

Run the experiment matrix: pre-trainings x fine-tuners x data sets x seeds, scored on clean and corrupted
pictures. A cell that is done is not run again, a killed one goes on where it stopped, and a failing one does not stop
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
    """Parse and run.

    Raises:
        UsageError: wrong arguments.
        SystemExit: 1 where a cell failed.
    """
    experiment, settings = parse_experiment(program, RunSettings(), words, _HELP)
    from dapg.experiment.queue import run

    failed = run(experiment, settings.engine)
    print(f"results: {experiment.folder}")
    if failed:
        print(f"{len(failed)} cells failed; tracebacks are in {experiment.queue}:")
        print("\n".join(f"  {name}: {reason}" for name, reason in failed.items()))
        raise SystemExit(1)
