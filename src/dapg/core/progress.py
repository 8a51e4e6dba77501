"""What a terminal sees and sends: a bar (in a log: lines), and Ctrl-C for the process that leads alone."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn, TypeAlias

from tqdm import tqdm

EVERY = 30.0
"""Seconds between two lines in a log."""


class Lines:
    """Progress for a log: a line with what is done, how fast, and how long it will take, every ``EVERY`` seconds."""

    def __init__(self, title: str, unit: str, total: int, done: int) -> None:
        self._words, self._total, self.n, self._note = (title, unit), total, done, ""
        self._began, self._first = time.monotonic(), done
        self._told = self._began

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to say."""

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.n += n
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        self._told = now
        rate = max(self.n - self._first, 1e-9) / (now - self._began)
        left = tqdm.format_interval(max(self._total - self.n, 0) / rate)
        title, unit = self._words
        done = f"{self.n:,} of {self._total:,} {unit}s"
        note = f", {self._note}" if self._note else ""
        print(f"{title}: {done}, {rate:.3g} per second, {left} left{note}", file=sys.stderr, flush=True)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """What else to say in the next line."""
        self._note = s


Bar: TypeAlias = "tqdm[NoReturn] | Lines"


def progress_bar(title: str, unit: str, total: int, done: int = 0, shown: bool = True) -> Bar:
    """A bar on a terminal, else a line now and then; nothing where the environment has ``TQDM_DISABLE=1``."""
    hidden = not shown or os.environ.get("TQDM_DISABLE") == "1"
    if hidden or sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc=title, unit=unit, disable=hidden, dynamic_ncols=True)
    return Lines(title, unit, total, done)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C does nothing here, and never does anything to processes that are started here."""
    if threading.current_thread() is not threading.main_thread():  # only that one may choose
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
