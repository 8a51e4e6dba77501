"""Files are whole or absent, whatever happens to the writer; locks die with their process."""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dapg.core import files
from dapg.core.errors import BusyError, DapgError
from dapg.core.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    folder_lock,
    remove_leftovers,
    remove_leftovers_of,
    sha256,
    write_json,
)
from dapg.core.schema import read_json

SOURCE = Path(files.__file__).resolve().parents[2]


def child(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process that runs ``code`` and talks to us in lines."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.strip() == word, process.communicate()[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    atomic_write_text(path, "grün")
    assert path.read_bytes() == "grün".encode()
    atomic_write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["x.txt"]


def test_an_error_in_the_block_keeps_the_old_file_and_itself(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


WRITER = """
import signal, sys
from dapg.core.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    handle = temporary.open("wb")
    handle.write(b"new" * 100_000)
    handle.flush()
    print("half", flush=True)
    signal.pause()
"""


def test_a_writer_killed_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")
    writer = child(WRITER, str(path))
    wait_for(writer, "half")
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.communicate()
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2, "the half-written temporary file lies beside it"
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["state.bin"]


FULL = """
import resource, sys
import numpy as np
from dapg.core.errors import BusyError, DapgError
from dapg.core.files import atomic_path, atomic_write_bytes, write_json
from safetensors.numpy import save_file
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

def tensors(path):
    with atomic_path(path) as temporary:
        save_file({"w": np.zeros(5000)}, temporary)

for write in (lambda p: atomic_write_bytes(p, b"x" * 5000), lambda p: write_json(p, "x" * 5000), tensors):
    try:
        write(sys.argv[1])
    except DapgError as error:
        print(error)
"""


def test_no_room_is_a_clear_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """A file-size limit of 4 KiB stands for the full disk: the system refuses the rest of the write."""
    path = tmp_path / "x.json"
    path.write_text("old")
    run = child(FULL, str(path))
    output, errors = run.communicate()
    assert run.returncode == 0, errors
    lines = output.splitlines()
    assert len(lines) == 3, output
    assert all(line.startswith(f"could not write {path}: ") and "File too large" in line for line in lines), lines
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]


def test_a_full_disk_at_the_flush_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "x"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DapgError, match=r"could not write .*/x: No space left on device"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_leftovers_of_our_files_go_and_those_of_others_stay(tmp_path: Path) -> None:
    """As killed writers leave them, in folders that several processes write into."""
    for name in ("a/mine.jpg", "a/theirs.jpg", "b/mine.jpg"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_bytes(b"1")
            shutil.copy(temporary, temporary.with_name(f"{temporary.name[:-4]}0.tmp"))
    remove_leftovers_of([tmp_path / "a/mine.jpg", tmp_path / "c/never.jpg"])
    assert len(list((tmp_path / "a").glob(".*.tmp"))) == len(list((tmp_path / "b").glob(".*.tmp"))) == 1
    remove_leftovers_of([tmp_path / "a/theirs.jpg", tmp_path / "b/mine.jpg"])
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["mine.jpg", "mine.jpg", "theirs.jpg"]


def test_processes_of_one_number_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """As the first ones of two containers are; here it is one process twice."""
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "x").read_text() == "first", "the last to be done"
    assert names(tmp_path) == ["x"]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(DapgError, match=r"could not write .*file/x\.json"):
        write_json(tmp_path / "file" / "x.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(DapgError, match=r"could not write .*folder: Is a directory"):
        write_json(tmp_path / "folder", {})
    assert names(tmp_path) == ["file", "folder"]


def test_json_round_trip_sorted_and_finite(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value: dict[str, Any] = {"b": [1, 2.5, None, True], "a": {"z": math.nan, "y": (math.inf, "ü")}, "c": -math.inf}
    write_json(path, value)
    assert read_json(path) == {"a": {"y": [None, "ü"], "z": None}, "b": [1, 2.5, None, True], "c": None}
    assert list(json.loads(path.read_text())) == ["a", "b", "c"]
    assert "ü" in path.read_text(encoding="utf-8")
    write_json(path, {3: "whole numbers as keys"})
    assert read_json(path) == {"3": "whole numbers as keys"}
    numbers = {"n": [[1, -2.5], [3e-7]], "text": "[\n  1,\n  2\n]", "none": [], "words": ["[\n 1 ]"]}
    write_json(path, numbers)
    assert read_json(path) == numbers
    assert "\n    [1, -2.5],\n    [3e-07]\n" in path.read_text()


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", None])
def test_damaged_or_missing_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DapgError, match=r"result\.json"):
        read_json(path)


def test_sha256_is_the_library_s(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


HOLDER = """
import signal, sys
from pathlib import Path
from dapg.core.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


def test_the_lock_keeps_a_second_process_out_until_released(tmp_path: Path) -> None:
    holder = child(HOLDER, str(tmp_path))
    try:
        wait_for(holder, "held")
        busy = f"in use by process {holder.pid}; stop it or give another --out"
        with pytest.raises(BusyError, match=busy), folder_lock(tmp_path, patience=0.0):
            pass
        with folder_lock(tmp_path, rank=1, patience=0.0):
            pass
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        wait_for(holder, "released")
        with folder_lock(tmp_path, patience=0.0):
            assert (tmp_path / ".lock.0").read_text() == str(os.getpid())
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_dies_with_a_killed_process(tmp_path: Path) -> None:
    holder = child(HOLDER, str(tmp_path))
    wait_for(holder, "held")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with folder_lock(tmp_path, patience=0.0):
        pass


FORKER = """
import os, signal, sys
from pathlib import Path
from dapg.core.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    worker = os.fork()
    if worker == 0:
        signal.pause()
    print(worker, flush=True)
    signal.pause()
"""


def test_a_forked_worker_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    holder = child(FORKER, str(tmp_path))
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(worker, 0)  # the worker lives
        with folder_lock(tmp_path, patience=60.0):  # the fork may not have let go yet
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.communicate()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DapgError, match=r"cannot lock .*file.*File exists"), folder_lock(tmp_path / "file"):
        pass

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(DapgError, match=r"cannot lock .*No locks available"), folder_lock(tmp_path, patience=60.0):
        pass


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_umask_says(
    mask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is never set to be read: another thread's file of that moment would be open to everybody."""
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            with atomic_path(tmp_path / "x.safetensors") as temporary:
                assert not temporary.exists()
                save_file({"a": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == mode
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_of_250_characters_is_written(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / ("n" * 246 + ".png"), b"x")
    assert [len(path.name) for path in tmp_path.iterdir()] == [250]
