"""Mean, interval and spread of the scores of several models of one method: seeds, or RegDB's ten partitions."""

from dataclasses import dataclass

from dapg.commands._next import PER_CENT, within
from dapg.commands._scores import print_spread
from dapg.commands._settings import parse, take_words
from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg combine RESULT RESULT ... [--out FILE.json]

Mean of the scores, 95 % interval over test persons and models, and the standard deviations over seeds, partitions,
galleries and corruption repeats, each apart. RESULT is the result.json of dapg evaluate, or the folder that holds it.

example:
  dapg combine run-0/evaluate run-1/evaluate run-2/evaluate --out combined.json
"""


@dataclass(frozen=True)
class CombineSettings:
    """What is written."""

    out: str = ""
    """Also write means and intervals to this JSON file."""


def main(words: list[str], program: str) -> None:
    """Parse, combine, print a line for each measure."""
    results, words = take_words(words)
    settings = parse(program, CombineSettings(), words, _HELP)
    if not results:
        raise UsageError(f"{program} needs results; see {program} --help")

    from dapg.core.files import write_json
    from dapg.evaluation.comparison import combine_results

    combined = combine_results(results)
    models = counted(combined["models"], "model")
    print(f"{combined['data']}: protocol {combined['protocol']}, {models}, {combined['feature']}")
    print(PER_CENT)
    for name, scores in {"clean": combined["clean"], **combined["corrupted"]}.items():
        for measure, interval in scores["intervals"].items():
            print(
                f"{name:12} {measure:7} {100 * interval['value']:5.1f}   {within(interval)}, "
                f"{counted(interval['persons'], 'test person')}, {counted(interval['seeds'], 'model')}"
            )
        print_spread(scores["spread"])
    if settings.out:
        write_json(settings.out, combined)
        print(f"written: {settings.out}")
