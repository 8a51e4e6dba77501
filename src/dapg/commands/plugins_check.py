"""Check methods, corruptions, networks and data sets of your own against their contracts."""

from pathlib import Path

from dapg.core.errors import UsageError

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

    broken = 0
    for verdict in check_folder(Path(words[0])):
        words_of_check = verdict.check.replace("_", " ")
        broken += bool(verdict.problem)
        print(f"{'BROKEN' if verdict.problem else 'kept'}  {verdict.plugin}: {words_of_check}", flush=True)
        if verdict.problem:
            print(f"        {verdict.problem}", flush=True)
    if broken:
        print(f"{broken} broken")
        raise SystemExit(1)
