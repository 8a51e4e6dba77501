"""Run the paper's experiment matrix, cell by cell."""

from dataclasses import dataclass

from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment
from dapg.commands._settings import take_option

_HELP = f"""usage: dapg reproduce run TABLE [--NAME VALUE ...]

Run the experiment matrix: pre-trainings x fine-tuners x data sets x seeds, scored on clean and corrupted
pictures. A cell that is done is not run again, a killed one goes on where it stopped, and a failing one does not stop
the others: exit code 1 at the end. The same command may run several times at once.

{TABLES}

examples:
  dapg reproduce run beyond --seeds 3 --only '*+agw-*'
  dapg reproduce run all --scale paper --data sysu=/data/SYSU-MM01,regdb=/data/RegDB --device cuda:0,cuda:1"""


@dataclass(frozen=True)
class RunSettings(ExperimentSettings):
    """The experiment."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; several with commas between them: a process for each."""
    cell: str = ""
    """Run this cell only, as the commands do that `dapg reproduce plan --manifest` writes."""


def main(words: list[str], program: str) -> None:
    """Parse and run.

    Raises:
        UsageError: wrong arguments.
        SystemExit: 1 where a cell failed.
    """
    experiment, settings = parse_experiment(program, RunSettings(), words, _HELP)
    from dapg.experiment.queue import run, run_on

    if "," in settings.device:
        _, others = take_option(words, "--device", "")
        if not run_on(others, settings.device.split(","), print):
            raise SystemExit(1)
        return
    failed = run(experiment, lambda line: print(line, flush=True), settings.cell)
    print(f"results: {experiment.folder}")
    if failed:
        print(f"{len(failed)} cells failed: {', '.join(failed)}")
        raise SystemExit(1)
