"""Errors a user is meant to read: what is wrong, where, what to do. Printed without a traceback."""


class DapgError(Exception):
    """Something failed for a reason we can name, in one line: breaks in file names or foreign texts become spaces."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(
            "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(message.split()))
        )


class BusyError(DapgError):
    """Another live process works in this folder."""


class UsageError(DapgError):
    """The settings or arguments are wrong; nothing was started."""

    exit_code = 2


class DataError(DapgError):
    """A data set, image or label file is missing, damaged or contradicts itself."""


class WeightsError(DapgError):
    """A weights file cannot be read or does not fit the network."""


class TrainingError(DapgError):
    """Training met NaN, infinity or a collapse and was stopped."""


def nearest(word: str, known: list[str]) -> str:
    """``"; did you mean 'x'?"`` with the known word closest to ``word``, or ``""`` when none is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def killed_loader(error: RuntimeError) -> str:
    """A sentence about an error by which torch says that a loader process died; empty for any other error."""
    said = str(error).strip()
    if not said.startswith("DataLoader worker"):
        return ""
    return (
        f"a loader process was killed ({said.splitlines()[0].rstrip('. ')}), often because memory ran out: lower "
        "--loader.workers (--workers), or close other programs; then run the command again to go on"
    )
