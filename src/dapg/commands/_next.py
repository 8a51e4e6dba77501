"""Shared by the commands: what a finished one says to do next, and what the columns of scores mean."""

import shlex

PER_CENT = (
    "per cent, higher is better; rank-k: queries with a match among the first k answers; mAP: how far up all matches "
    "are; mINP: how far up the last one is"
)
"""Said above every table of scores."""


def dapg(*words: object, further: str = "") -> str:
    """A dapg command as a shell takes it; ``further`` is its end, quoted already."""
    return f"dapg {shlex.join(map(str, words))}{further}"


def say_next(*steps: tuple[str, str]) -> None:
    """Print commands to go on with, one line each, to be copied as they are.

    Args:
        steps: what each is good for, and the command; words in capitals are for the user to fill in.
    """
    for purpose, command in steps:
        print(f"next: {command}    # {purpose}")
