"""Write one self-contained HTML page from finished runs: tables, curves, ranked lists, settings."""

from dapg.commands._settings import take_option, wants_help
from dapg.core.errors import UsageError, nearest

_HELP = """usage: dapg report FOLDER [FOLDER ...] [--out PAGE.html] [--title TEXT]

Write one self-contained page from all runs in and below the folders, with its score table as .md and .csv beside it.

examples:
  dapg report outputs
  dapg report outputs/pretrain/first outputs/evaluate --out first.html --title "First look"
"""


def main(words: list[str], program: str) -> None:
    """Parse and write."""
    if any(wants_help([word]) for word in words):
        print(_HELP, end="")
        return
    from pathlib import Path

    from dapg.report.collect import collect
    from dapg.report.run_page import write_page

    out, words = take_option(words, "--out", "report.html")
    title, words = take_option(words, "--title", "dapg report")
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        hint = nearest(unknown[0], ["--out", "--title"])
        raise UsageError(f"unknown option {unknown[0]}{hint}; see {program} --help")
    if not words:
        raise UsageError(f"{program} needs a folder; see {program} --help")
    for path in write_page(collect([Path(word) for word in words]), Path(out), title):
        print(f"written: {path}")
