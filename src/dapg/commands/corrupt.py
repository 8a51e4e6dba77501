"""Write a corrupted copy of a data set's test pictures, with a manifest of what was done to each."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_positional, wants_help
from dapg.core.errors import UsageError

_HELP = """usage: dapg corrupt SOURCE --out FOLDER [--policy NAME] [--split test] [--part I/N]

Write a copy of a data set's pictures with the corruptions of a policy: cil (visible pictures only, one of 20 types,
severity 1 to 5: the protocol of CIL and of the paper), mlmda-C*, seen, unseen, noise, blur, weather, digital, one type
(fog) or one type at one severity (fog-3). What happens to a picture is a function of data set, path, repeat and seed.
An interrupted copy goes on where it stopped.

examples:
  dapg corrupt sysu=/data/SYSU-MM01 --split test --out /data/SYSU-MM01-C
  dapg corrupt /path/to/pictures --policy fog-3 --split all --out outputs/foggy
"""


@dataclass(frozen=True)
class CorruptSettings:
    """What to corrupt, how, and where to."""

    out: str = "outputs/corrupted"
    """New root of the copy."""
    policy: str = "cil"
    """A named policy, a corruption, or a corruption and a severity such as fog-3."""
    split: str = "test"
    """Which pictures."""
    height: int = 288
    """Rows before corrupting; 0 with width 0 keeps each picture's own size."""
    width: int = 144
    """Columns before corrupting."""
    seed: int = 0
    """Base seed."""
    repeat: int = 0
    """Which of the repeats; each needs a folder of its own."""
    part: str = "1/1"
    """I/N writes the I-th of N parts, to share the work between machines."""


def main(words: list[str], program: str) -> None:
    """Parse, write, print counts."""
    if wants_help(words):
        print(_HELP, end="")
        return
    source, words = take_positional(words, "SOURCE", None, program)
    settings = parse(program, CorruptSettings(), words, _HELP)

    from dataclasses import replace

    from dapg.data.source import DataConfig, open_dataset, parse_source
    from dapg.evaluation.corrupted import policy, write_copy

    chosen = replace(policy(settings.policy), height=settings.height, width=settings.width, seed=settings.seed)
    dataset = open_dataset(DataConfig(**parse_source(source)))  # type: ignore[arg-type]
    made = write_copy(
        dataset, dataset.records(settings.split), chosen, settings.out, settings.repeat, _part(settings.part)
    )
    for name, count in made.items():
        print(f"{name}: {count}")
    print(f"written: {settings.out}")


def _part(text: str) -> tuple[int, int]:
    index, slash, parts = text.partition("/")
    if not (slash and index.isdigit() and parts.isdigit()):
        raise UsageError(f"--part is I/N, for example 1/4, not {text!r}")
    return int(index), int(parts)
