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
    known = [part.seconds for part in left if part.seconds is not None]
    done, missing = (sum(part.state == state for part in plan) for state in ("done", "missing"))
    print(f"\n{counted(done, 'cell')} done, {len(left)} to run, {missing} cannot run yet")
    total = f"about {_duration(sum(known, 0.0))}" if known else "an unknown time"
    unknown = len(left) - len(known)
    without = f", without {counted(unknown, 'cell')} whose like was never measured here" if unknown else ""
    if left:
        print(f"they take {total} and {sum(part.bytes for part in left) / 1e9:.1f} GB of disk{without}")
        say_next(("run them", dapg("reproduce", "run", *words_of(experiment, settings))))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not measured yet"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
