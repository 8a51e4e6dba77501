"""Check a copy of a data set: published counts, lists, unreadable and duplicate images, persons in two splits."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_source
from dapg.core.errors import DataError
from dapg.core.ranges import Threads
from dapg.core.words import counted

_HELP = """usage: dapg data verify SOURCE [--decode BOOL] [--out FILE.json]

Check a copy of a data set before spending hours on it. Counts of splits and trials are compared with the published
ones, every image is decoded, equal files and persons in two splits are named. Exit code 1 when something is wrong.

examples:
  dapg data verify sysu=/data/SYSU-MM01
  dapg data verify /path/to/my/images --out verified.json
"""


@dataclass(frozen=True)
class VerifySettings:
    """What to check."""

    decode: bool = True
    """Read and decode every image (the slow part)."""
    threads: Threads = 2
    """Images read at a time."""
    all: bool = False
    """List every finding, in place of one line and three examples for each cause."""
    out: str = ""
    """Also write counts and findings to this JSON file."""


def main(words: list[str], program: str) -> None:
    """Parse, check, print counts and findings."""
    config, words = take_source(words, "SOURCE", program)
    settings = parse(program, VerifySettings(), words, _HELP)

    from dapg.core.files import write_json
    from dapg.core.settings import to_dict
    from dapg.data.source import open_dataset
    from dapg.data.verify import grouped, verify, verify_folder

    if config.root:
        report = verify_folder(config.name, config.root, settings.decode, settings.threads)
    else:
        report = verify(open_dataset(config), settings.decode, settings.threads)
    print(f"{report.title} under {report.root}")
    for name, count in report.counts.items():
        print(f"  {count:>10,}  {name}")
    for line in map(str, report.findings) if settings.all else grouped(report.findings):
        print(line)
    if settings.out:
        write_json(settings.out, {**to_dict(report), "passed": report.passed})
    errors = sum(finding.error for finding in report.findings)
    if not report.passed:
        raise DataError(
            f"{report.title} under {report.root}: {counted(errors, 'error')}, see above and docs/reference/datasets.md"
        )
    notes = f"no errors, {counted(len(report.findings), 'note')}"
    print(notes if report.findings else "everything is as it should be")
