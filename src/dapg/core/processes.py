"""Helper processes: Ctrl-C is for the one that leads them, and what is said when one of them was killed."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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


def killed_loader(error: RuntimeError) -> str:
    """A sentence about an error by which torch says that a loader process died; empty for any other error."""
    said = str(error).strip()
    if not said.startswith("DataLoader worker"):
        return ""
    return (
        f"a loader process was killed ({said.splitlines()[0].rstrip('. ')}), often because memory ran out: lower "
        "--loader.workers (--workers), or close other programs; then run the command again to go on"
    )
