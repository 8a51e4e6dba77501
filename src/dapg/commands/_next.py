"""Shared by the commands: what a finished one says to do next, and what the columns of scores mean."""

import shlex
from collections.abc import Sequence

from dapg.core import plugins
from dapg.core.errors import DapgError
from dapg.core.types import JsonObject
from dapg.core.words import counted

PER_CENT = (
    "per cent, higher is better; rank-k: queries with a match among the first k answers; mAP: how far up all matches "
    "are; mINP: how far up the last one is"
)
"""Said above every table of scores."""


def dapg(*words: object, further: str = "") -> str:
    """A dapg command as a shell takes it; ``further`` is its end, quoted already."""
    return f"dapg {shlex.join(map(str, words))}{further}"


def finished(result: JsonObject) -> str:
    """How a line about a finished run begins."""
    return "already finished, reused" if result.get("reused") else "done"


def within(interval: JsonObject, sign: str = "") -> str:
    """``95 % interval 1.0 to 2.0`` of fractions, in per cent; ``sign`` is ``+`` for differences."""
    return f"95 % interval {100 * interval['low']:{sign}.1f} to {100 * interval['high']:{sign}.1f}"


def refuse_problems(folder: str, problems: Sequence[str], place: str = "") -> None:
    """Print problems of a gallery, one line each, and end with an error where there are some; ``place`` says where."""
    for problem in problems:
        print(problem)
    if problems:
        raise DapgError(f"{folder}: {counted(len(problems), 'problem')}{place}, see above")


def say_next(*steps: tuple[str, str]) -> None:
    """Print commands to go on with, one line each, to be copied as they are; folders of plug-ins go with them.

    Args:
        steps: what each is good for, and the command; words in capitals are for the user to fill in.
    """
    own = "".join(f" --plugins {shlex.quote(folder)}" for folder in plugins.GIVEN)
    for purpose, command in steps:
        print(f"next: {command}{own}    # {purpose}")
