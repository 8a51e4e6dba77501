"""Write one self-contained HTML page from finished runs: tables, curves, ranked lists, settings."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_words
from dapg.core.errors import UsageError

_HELP = """usage: dapg report FOLDER [FOLDER ...] [--out PAGE.html] [--title TEXT]

Write one self-contained page from all runs in and below the folders, with its score table as .md and .csv beside it.

examples:
  dapg report outputs
  dapg report outputs/pretrain/first outputs/evaluate --out first.html --title "First look"
"""


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

    runs = collect([Path(folder) for folder in folders])
    for path in write_page(runs, Path(settings.out), settings.title, paths=settings.paths):
        print(f"written: {path}")
