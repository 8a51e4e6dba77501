"""One thread per test process, and shapes in signatures checked: both before the first import of torch and dapg."""

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import jaxtyping
from jaxtyping import install_import_hook

CHECKED_CALLS = 10
"""Of each function in each test. A check takes longer than most small operations that are called a thousand times."""

_tests_begun = 0
_jaxtyped = jaxtyping.jaxtyped


def _check_first_calls(*, typechecker: Any) -> Callable[[Any], Any]:
    """``jaxtyped`` for the import hook, with the limit of ``CHECKED_CALLS``."""

    def decorate(target: Any) -> Any:
        if target.__module__ == "dapg.gallery.server.app":
            return target  # FastAPI checks what comes in, and hands over classes of its own
        checked = _jaxtyped(typechecker=typechecker)(target)
        if isinstance(target, type):
            return checked
        test, calls = -1, 0

        @functools.wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal test, calls
            if test != _tests_begun:
                test, calls = _tests_begun, 0
            calls += 1
            return checked(*args, **kwargs) if calls <= CHECKED_CALLS else target(*args, **kwargs)

        return call

    return decorate


def pytest_runtest_setup() -> None:
    global _tests_begun
    _tests_begun += 1


jaxtyping.jaxtyped = _check_first_calls  # type: ignore[assignment]
install_import_hook("dapg", "beartype.beartype")
