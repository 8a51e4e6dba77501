"""A `dapg` command in this process, for tests."""

import pytest

from dapg import cli


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
