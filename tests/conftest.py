"""One thread per test process, and shapes in signatures checked: both before the first import of torch and dapg."""

import functools
import os
from collections.abc import Callable
from typing import Any, get_args
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import jaxtyping
from jaxtyping import install_import_hook

CHECKED_CALLS = 10
"""Of each function with shapes in each test. A check takes longer than most small operations that are called a
thousand times; mypy proves the other types."""

_tests_begun = 0
_jaxtyped = jaxtyping.jaxtyped


def _check_first_calls(*, typechecker: Any) -> Callable[[Any], Any]:
    """``jaxtyped`` for the import hook, with the limit of ``CHECKED_CALLS``."""

    def decorate(target: Any) -> Any:
        if target.__module__ == "dapg.gallery.server.app":
            return target  # FastAPI checks what comes in, and hands over classes of its own
        check = _jaxtyped(typechecker=typechecker)
        if not any(map(_has_shape, getattr(target, "__annotations__", {}).values())):
            return target
        if isinstance(target, type):
            return check(target)
        checked: Any = None  # made by the first call: making all takes longer than importing the package
        test, calls = -1, 0

        @functools.wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked, test, calls
            if test != _tests_begun:
                test, calls = _tests_begun, 0
            calls += 1
            if calls > CHECKED_CALLS:
                return target(*args, **kwargs)
            if checked is None:
                checked = check(target)
            return checked(*args, **kwargs)

        return call

    return decorate


def pytest_configure() -> None:
    """What tests write need not outlive a loss of power, and each of thousands of waits for the disk takes 6 ms."""
    mock.patch.object(os, "fsync", _do_not_wait).start()


def _do_not_wait(descriptor: int) -> None:
    pass


def _has_shape(hint: Any) -> bool:
    """``Float[Tensor, "B D"]``, or something made of it."""
    if isinstance(hint, str):
        return "Tensor" in hint
    if isinstance(hint, list):  # the arguments of a Callable
        return any(map(_has_shape, hint))
    whole = isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)
    return whole or any(map(_has_shape, get_args(hint)))


def pytest_runtest_setup() -> None:
    global _tests_begun
    _tests_begun += 1


jaxtyping.jaxtyped = _check_first_calls  # type: ignore[assignment]
install_import_hook("dapg", "beartype.beartype")
