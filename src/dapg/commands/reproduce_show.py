"""Print the tables of what is done and write them as Markdown, CSV, LaTeX and one HTML page."""

from dataclasses import dataclass

from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment

_HELP = f"""usage: dapg reproduce show TABLE [--NAME VALUE ...]

Print the tables of what is done, from the stored results alone, and write them as Markdown, CSV and LaTeX
beside the results, with one HTML page. Cells are shown together only if they were drawn and corrupted alike.

{TABLES}

examples:
  dapg reproduce show table1 --starts random
  dapg reproduce show beyond --pictures"""


@dataclass(frozen=True)
class ShowSettings(ExperimentSettings):
    """The experiment."""

    pictures: bool = False
    """Before that, score two arms by corruption and severity and take ranked lists where they disagree, for the page;
    their networks must still be below --runs."""


def main(words: list[str], program: str) -> None:
    """Parse and show."""
    experiment, settings = parse_experiment(program, ShowSettings(), words, _HELP)
    from dapg.experiment.page import write_report

    if settings.pictures:
        from dapg.experiment.heat_maps import write_pictures

        write_pictures(experiment, lambda line: print(line, flush=True))
    print(write_report(experiment))
    print(f"page: {experiment.page}")
