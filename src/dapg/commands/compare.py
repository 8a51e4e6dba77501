"""Is a difference of scores more than luck? Paired differences of groups of results with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

from dapg.commands._next import within
from dapg.commands._settings import parse, take_words
from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg compare RESULT RESULT [--out FILE.json]
       dapg compare RESULT ... vs RESULT ... [vs RESULT ...] [--out FILE.json]

Paired differences, later group minus first, with 95 % intervals over test persons. RESULT is the result.json of
dapg evaluate, dapg score or dapg neighbours, or the folder that holds it. Several results of a group are its seeds or
partitions; with more than two groups p is adjusted by Holm's rule.

examples:
  dapg compare first/result.json second/result.json
  dapg compare base-0 base-1 base-2 vs ours-0 ours-1 ours-2 --out compared.json
"""


@dataclass(frozen=True)
class CompareSettings:
    """What is written."""

    out: str = ""
    """Also write the differences to this JSON file."""


def main(words: list[str], program: str) -> None:
    """Parse, compare, print a line for each measure."""
    names, words = take_words(words)
    settings = parse(program, CompareSettings(), words, _HELP)
    groups = _groups(names)
    if len(groups) < 2 or not all(groups):
        raise UsageError(f"{program} needs two results, or groups of results with `vs` between them")

    from dapg.core.files import write_json
    from dapg.evaluation.comparison import compare_results

    compared = compare_results(*groups)
    print("points of per cent; above 0 the later group is better; an interval that holds 0 does not tell them apart")
    for comparison in compared:
        sides = (" ".join(comparison[side]) for side in ("second", "first"))
        print(f"{' minus '.join(sides)}, protocol {comparison['protocol']}")
        for measure, interval in comparison["differences"].items():
            adjusted = f", {interval['p_holm']:.4f} by Holm's rule" if len(compared) > 1 else ""
            print(
                f"{measure:7} {100 * interval['value']:+6.1f}   {within(interval, '+')}, p {interval['p']:.4f}"
                f"{adjusted}, {counted(interval['persons'], 'test person')}, {counted(interval['seeds'], 'seed')}"
                + (f" in each of {interval['partitions']} partitions" if interval["partitions"] > 1 else "")
            )
    if settings.out:
        write_json(settings.out, compared)
        print(f"written: {settings.out}")


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Results between the words ``vs``; without one each result is a group."""
    if "vs" not in names:
        return [[name] for name in names]
    groups: list[list[str]] = [[]]
    for name in names:
        if name == "vs":
            groups.append([])
        else:
            groups[-1].append(name)
    return groups
