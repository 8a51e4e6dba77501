"""Say what is done, what would run, and what that takes in time and disk."""

from dapg.commands._next import dapg, say_next
from dapg.commands._reproduce import TABLES, ExperimentSettings, parse_experiment, words_of
from dapg.core.words import counted

_HELP = f"""usage: dapg reproduce plan TABLE [--NAME VALUE ...]

Say which cells are done, what would run, how long it takes and how much disk it needs. Nothing is run.

{TABLES}

examples:
  dapg reproduce plan table1
  dapg reproduce plan all --scale gpu --seeds 3"""


def main(words: list[str], program: str) -> None:
    """Parse, then print the plan."""
    experiment, settings = parse_experiment(program, ExperimentSettings(), words, _HELP)
    from dapg.experiment.plan import outlook
    from dapg.experiment.registration import statement

    print(f"{statement(experiment)}\n")
    plan = outlook(experiment)
    width = max(len(part.cell.name) for part in plan)
    for part in plan:
        time = f"  {_duration(part.seconds)}" if part.state == "to run" else ""
        print(f"{part.cell.name:{width}}  {part.state}{': ' if part.about else ''}{part.about}{time}")
    left = [part for part in plan if part.state == "to run"]
    done, missing = (sum(part.state == state for part in plan) for state in ("done", "missing"))
    print(f"\n{counted(done, 'cell')} done, {len(left)} to run, {missing} cannot run yet")
    if left:
        print(_cost([part.seconds for part in left], sum(part.bytes for part in left)))
        say_next(("run them", dapg("reproduce", "run", *words_of(experiment, settings))))


def _cost(seconds: list[float | None], size: float) -> str:
    """What cells take, some or all of which may take an unknown time; ``size`` in bytes, of all together."""
    disk, known = f"{size / 1e9:.1f} GB of disk", [value for value in seconds if value is not None]
    unknown = len(seconds) - len(known)
    if not known:
        none = f"none of these {unknown} cells is" if unknown > 1 else "this cell is not"
        return f"{disk}; time unknown: {none} like one that was measured here"
    without = f"; the time of {counted(unknown, 'more cell')} is unknown: nothing like it was measured here"
    return f"about {_duration(sum(known))} and {disk}{without if unknown else ''}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not measured yet"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
