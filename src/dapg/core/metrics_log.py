"""Numbers of a run as files: metrics.jsonl while it goes, metrics.csv beside it, and for a tracker if asked for."""

import contextlib
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from dapg.core.errors import DataError
from dapg.core.files import atomic_write_text, csv_text, write_failure
from dapg.core.schema import checked, parse_json, wall
from dapg.core.types import JsonObject

JSONL, CSV = "metrics.jsonl", "metrics.csv"


@runtime_checkable
class Tracker(Protocol):
    """What the log asks of a tracker of Accelerate's."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Named numbers of a step."""

    def finish(self) -> None:
        """No more numbers follow."""


def read_metrics(folder: Path) -> list[JsonObject]:
    """The lines of metrics.jsonl, which is a log: a last one that a kill cut off is left out.

    Others that are damaged are left out, too; how many, a warning says.
    """
    path = folder / JSONL
    if not path.exists():
        return []
    with wall(path):
        *whole, unfinished = path.read_bytes().split(b"\n")
    lines = [line for line in (_line(text, path) for text in whole) if line is not None]
    if len(lines) < len(whole):
        count = len(whole) - len(lines)
        tqdm.write(f"warning: {path}: left out {count:,} of {len(whole):,} lines, damaged", file=sys.stderr)
    last = _line(unfinished, path)
    return lines if last is None else [*lines, last]


def _line(text: bytes, path: Path) -> JsonObject | None:
    """None where it is damaged."""
    with contextlib.suppress(DataError):
        line: JsonObject = checked(parse_json(text, path), dict[str, float | str | None], path)
        if isinstance(line.get("step"), int) and isinstance(line.get("kind", ""), str):
            return line
    return None


def loss_curve(folder: Path, most: int = 40) -> list[tuple[int, float]]:
    """(step, loss) of a training at no more than ``most`` places, for a result that outlives its run.

    Each place is the mean of equally many logged losses (the last one of what is left), at the step of the last; losses
    have four significant digits. Empty without a log.
    """
    lines = [line for line in read_metrics(folder) if line.get("kind") == "train" and _is_number(line.get("loss"))]
    width = -(-len(lines) // most) or 1
    blocks = [lines[start : start + width] for start in range(0, len(lines), width)]
    return [(block[-1]["step"], float(f"{statistics.fmean(line['loss'] for line in block):.4g}")) for block in blocks]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class MetricsLog:
    """One JSON line per report, written by rank 0. Lines after ``last_step``, of an earlier try, are dropped."""

    def __init__(self, folder: Path, last_step: int = 0, trackers: Sequence[Tracker] = ()) -> None:
        self.folder = folder
        earlier = [line for line in read_metrics(folder) if line.get("step", 0) <= last_step]
        atomic_write_text(folder / JSONL, "".join(json.dumps(line) + "\n" for line in earlier))
        self._handle = (folder / JSONL).open("a", encoding="utf-8")
        self._trackers = trackers

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """One line: step, kind (train or validation) and named numbers; not-finite ones become null."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            self._handle.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
            self._handle.flush()
        except OSError as error:
            raise write_failure(self.folder / JSONL, error) from error
        for tracker in self._trackers:
            tracker.log({f"{kind}/{key}": value for key, value in values.items()}, step=step)

    def write_csv(self) -> None:
        """All lines so far as one table."""
        lines = read_metrics(self.folder)
        columns = list(dict.fromkeys(key for line in lines for key in line))
        rows = [[line.get(column, "") for column in columns] for line in lines]
        atomic_write_text(self.folder / CSV, csv_text([columns, *rows]))

    def close(self) -> None:
        """Write the table and close the files."""
        self.write_csv()
        self._handle.close()
        for tracker in self._trackers:
            tracker.finish()
