"""Put results of dapg benchmark into one table, with what papers print beside them, told apart."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_words
from dapg.core.errors import UsageError

_HELP = """usage: dapg leaderboard RESULT [RESULT ...] [--out leaderboard.csv]

Write results of dapg benchmark as one CSV file and one page. RESULT is the folder of a finished benchmark, or its
result.json. Printed figures stand below the measured ones, each with its source and protocol: none of them was read by
the fixed list, so they are no rivals of the rows above.

examples:
  dapg leaderboard outputs/benchmark/*
  dapg leaderboard outputs/benchmark/mine --printed false --out mine.csv
"""


@dataclass(frozen=True)
class LeaderboardSettings:
    """What is written."""

    out: str = "leaderboard.csv"
    """CSV file; the page is written beside it as .html."""
    printed: bool = True
    """Add the figures that papers print."""


def main(words: list[str], program: str) -> None:
    """Parse, read, write."""
    names, words = take_words(words)
    settings = parse(program, LeaderboardSettings(), words, _HELP)
    if not names:
        raise UsageError(f"{program} needs a result; see {program} --help")

    from pathlib import Path

    from dapg.core.files import atomic_write_text
    from dapg.core.run_folder import RESULT
    from dapg.core.schema import read_json
    from dapg.experiment.leaderboard import leaderboard_rows, printed
    from dapg.report.benchmark_page import write_benchmark_page
    from dapg.report.score_tables import to_csv

    files = [Path(name) / RESULT if Path(name).is_dir() else Path(name) for name in names]
    results = [read_json(file) for file in files]
    rows = leaderboard_rows(results, printed() if settings.printed else [])
    page = Path(settings.out).with_suffix(".html")
    atomic_write_text(settings.out, to_csv(rows))
    write_benchmark_page(page, results, [row for row in rows if row["kind"] == "printed"])
    print(f"written: {settings.out}, {page}")
