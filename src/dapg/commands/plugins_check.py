"""Check methods, corruptions, networks and data sets of your own against their contracts."""

from itertools import groupby
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg plugins check FOLDER

Run the checks that our own plug-ins are tested by over those of a folder, laid out as

  FOLDER/methods/pretraining/NAME.py    a method (methods/alignment, methods/finetuning likewise)
  FOLDER/corruptions/NAME.py            one corruption or several
  FOLDER/models/backbones/NAME.py       a network
  FOLDER/data/sets/NAME.py              a data set

Exit code 1 where a contract is broken. Every command takes the same folder as --plugins FOLDER; CONTRIBUTING.md shows
what to write.
"""


def main(words: list[str], program: str) -> None:
    """Check, and say what is kept and what is not."""
    if words and words[0] in ("-h", "--help"):
        print(_HELP, end="")
        return
    if len(words) != 1:
        raise UsageError(f"{program} takes one folder; see {program} --help")

    from dapg.contracts.run_checks import check_folder

    checked = broken = 0
    for plugin, verdicts in groupby(check_folder(Path(words[0])), lambda verdict: verdict.plugin):
        said: dict[str, list[str]] = {}
        for verdict in verdicts:
            checked += 1
            check = verdict.check.replace("_", " ")
            if not verdict.problem:
                print(f"kept  {plugin}: {check}", flush=True)
                continue
            broken += 1
            if verdict.problem not in said:
                print(f"BROKEN  {plugin}: {check}\n        {verdict.problem}", flush=True)
            said.setdefault(verdict.problem, []).append(check)
        for first, *more in said.values():
            if more:
                others = f"and {counted(len(more), 'more check')}, the same as {first}: {', '.join(more)}"
                print(f"BROKEN  {plugin}: {others}", flush=True)
    if broken:
        print(f"{broken} of {counted(checked, 'check')} broken")
        raise SystemExit(1)
    print(f"all {counted(checked, 'check')} kept")
