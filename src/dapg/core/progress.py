"""What a terminal sees and sends: one kind of progress bar, and Ctrl-C for the process that leads alone."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

from tqdm import tqdm


def progress_bar(title: str, unit: str, total: int, done: int = 0, shown: bool = True) -> "tqdm[NoReturn]":
    """A bar on the terminal; none where the output is no terminal, or the environment has ``TQDM_DISABLE=1``."""
    hidden = not shown or os.environ.get("TQDM_DISABLE") == "1"
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=True if hidden else None, dynamic_ncols=True)


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
