"""Write one self-contained HTML page from finished runs: tables, curves, ranked lists, settings."""

from dataclasses import dataclass

from dapg.commands._next import PER_CENT
from dapg.commands._settings import parse, take_words
from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg report FOLDER [FOLDER ...] [--out PAGE.html] [--title TEXT]

Write one self-contained page from all runs in and below the folders, with its score table as .md and .csv beside it;
print the table.

examples:
  dapg report outputs
  dapg report outputs/pretrain/first outputs/evaluate --out first.html --title "First look"
"""

ROWS = 40
"""Of the score table that are printed; all are in its file."""


@dataclass(frozen=True)
class ReportSettings:
    """The page."""

    out: str = "report.html"
    """File of the page; its score table is written beside it as .md and .csv."""
    title: str = "dapg report"
    """Heading."""
    paths: bool = False
    """Show absolute paths of data, weights and folders; else only the last part of each."""


def main(words: list[str], program: str) -> None:
    """Parse and write."""
    folders, words = take_words(words)
    settings = parse(program, ReportSettings(), words, _HELP)
    if not folders:
        raise UsageError(f"{program} needs a folder; see {program} --help")

    from pathlib import Path

    from dapg.report.collect import collect
    from dapg.report.run_page import write_page
    from dapg.report.score_tables import score_rows, to_text

    runs = collect([Path(folder) for folder in folders])
    scores = score_rows(runs)
    written = write_page(runs, Path(settings.out), settings.title, paths=settings.paths)
    if scores:
        print(f"{PER_CENT}\n{to_text(scores[:ROWS])}")
        if len(scores) > ROWS:
            print(f"and {counted(len(scores) - ROWS, 'more row')} in {Path(settings.out).with_suffix('.md')}")
    for path in written:
        print(f"written: {path}")
