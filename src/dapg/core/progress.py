"""One kind of progress bar."""

import os
from typing import NoReturn

from tqdm import tqdm


def progress_bar(title: str, unit: str, total: int, done: int = 0, shown: bool = True) -> "tqdm[NoReturn]":
    """A bar on the terminal; none where the output is no terminal, or the environment has ``TQDM_DISABLE=1``."""
    hidden = not shown or os.environ.get("TQDM_DISABLE") == "1"
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=True if hidden else None, dynamic_ncols=True)
