"""Run a cheap finished cell again, from nothing, and compare with what is stored."""

from dataclasses import dataclass

from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment

_HELP = f"""usage: dapg reproduce recheck TABLE [--NAME VALUE ...]

Run a cheap finished cell again, from nothing, and compare with what is stored. Exit code 1 where the scores
are outside the tolerance; 0 where nothing is stored that could be compared.

{TABLES}

example:
  dapg reproduce recheck all --word "$(git rev-parse HEAD)\""""


@dataclass(frozen=True)
class RecheckSettings(ExperimentSettings):
    """The experiment."""

    word: str = "recheck"
    """Draws the cell: any word, such as a commit."""


def main(words: list[str], program: str) -> None:
    """Parse, run again and compare."""
    experiment, settings = parse_experiment(program, RecheckSettings(), words, _HELP)
    from dapg.experiment.recheck import NothingToCheck, recheck

    try:
        verdict = recheck(experiment, settings.word, lambda line: print(line, flush=True))
    except NothingToCheck as reason:
        print(f"nothing was run: {reason}")
        return
    print(verdict)
    if not verdict.passed:
        raise SystemExit(1)
