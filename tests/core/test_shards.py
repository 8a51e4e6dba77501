"""Shards: claimed once, retried, taken over from the dead; the outcome is that of one worker."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dapg.cli import main
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import BusyError, DapgError
from dapg.core.launch import ShardsFailed, launch
from dapg.core.shards import MOST_LOSSES, Board, Job, RunShard, chunk, chunks, piece, read_progress, work
from shard_jobs import burn, digest_job, merge, note

HERE = EngineSettings()


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def opened(job: Job) -> Board:
    board = Board(job.folder, job.tries, job.stale)
    board.open(job)
    return board


def dead_process() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def leave_claim(job: Job, shard: str, **changes: object) -> Path:
    """A claim as another worker writes it."""
    claim = opened(job).claim(shard)
    assert claim is not None
    claim.write_text(json.dumps(json.loads(claim.read_text()) | changes))
    return claim


def test_chunks_cover_everything_once() -> None:
    shards = chunks(23, 10)
    assert shards == {"000000": 10, "000001": 10, "000002": 3}
    assert [number for shard in shards for number in list(range(23))[chunk(shard, 10)]] == list(range(23))
    assert chunks(0, 10) == {}


def test_every_shard_runs_once_and_again_only_when_its_file_is_gone(tmp_path: Path) -> None:
    job = digest_job(tmp_path)
    launch(job, HERE)
    expected = merge(tmp_path, job.shards)
    assert words(tmp_path / "runs") == list(job.shards)
    launch(job, HERE)
    assert len(words(tmp_path / "runs")) == 6
    (tmp_path / "000002.bin").unlink()
    (tmp_path / "000004.bin").write_bytes(b"cut off")
    launch(job, HERE)
    assert words(tmp_path / "runs")[6:] == ["000002", "000004"]
    assert merge(tmp_path, job.shards) == expected
    progress = read_progress(tmp_path)
    assert (progress.done, progress.size_done, progress.size, progress.running) == (6, 60, 60, ())
    assert not list((tmp_path / ".shards/claims").iterdir())


def test_a_failing_shard_is_retried_then_listed_while_the_rest_goes_on(tmp_path: Path) -> None:
    job = digest_job(tmp_path, trap="raises 000001")
    with pytest.raises(ShardsFailed, match=r"1 of 6 shards failed in 4 attempts(.|\n)*000001: ValueError: no numbers"):
        launch(job, replace(HERE, tries=4))
    assert Counter(words(tmp_path / "runs")) == {**dict.fromkeys(job.shards, 1), "000001": 4}
    assert read_progress(tmp_path).failed == {"000001": "ValueError: no numbers in 000001"}
    launch(digest_job(tmp_path), HERE)  # the cause is gone: the same command tries again
    assert read_progress(tmp_path).done == 6


def test_a_hiccup_costs_one_more_attempt(tmp_path: Path) -> None:
    launch(digest_job(tmp_path, trap="raises-once 000003"), HERE)
    assert Counter(words(tmp_path / "runs"))["000003"] == 2
    assert not list((tmp_path / ".shards/claims").iterdir())


def test_a_claim_belongs_to_one_worker_until_its_process_is_gone(tmp_path: Path) -> None:
    job = digest_job(tmp_path)
    claim = leave_claim(job, "000000")
    board = opened(job)
    assert board.claim("000000") is None, "ours, and we live"
    assert [running.shard for running in read_progress(tmp_path).running] == ["000000"]
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": dead_process()}))
    second = board.claim("000000")
    assert second is not None
    assert second.name == "000000.1"
    board.finish("000000", second, [], 0.0)
    assert board.claim("000000") is None, "it is done"
    assert not list((tmp_path / ".shards/claims").iterdir())


@pytest.mark.parametrize("owner", [{"host": "elsewhere", "pid": 1}, {"pid": os.getppid()}])
def test_a_claim_is_lost_without_heartbeat(tmp_path: Path, owner: dict[str, object]) -> None:
    """Of another machine, or of a process here whose number another one has by now."""
    job = digest_job(tmp_path)
    claim = leave_claim(job, "000000", **owner)
    assert opened(job).claim("000000") is None
    os.utime(claim, (time.time() - 1000, time.time() - 1000))
    assert opened(job).claim("000000") is not None


def test_a_long_shard_in_the_command_s_own_process_keeps_its_claim(tmp_path: Path) -> None:
    """It ends when its heart has beaten: a thread that touches the claim while the shard runs."""

    def start() -> RunShard:
        def run_shard(shard: str) -> list[Path]:
            claim = tmp_path / ".shards/claims" / f"{shard}.0"
            os.utime(claim, (0, 0))
            assert Board(tmp_path, job.tries, job.stale).claim(shard) is not None, "as if it had not beaten for long"
            (tmp_path / ".shards/claims" / f"{shard}.1").unlink()
            while claim.stat().st_mtime == 0:
                burn(0.01)
            assert Board(tmp_path, job.tries, job.stale).claim(shard) is None
            return []

        return run_shard

    job = replace(digest_job(tmp_path, shards=1), start=start, stale=8.0, tries=1)
    opened(job)
    work(job)
    assert read_progress(tmp_path).done == 1


def test_a_shard_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    job = digest_job(tmp_path)
    for _ in range(MOST_LOSSES):
        leave_claim(job, "000000", pid=dead_process())
    board = Board(tmp_path, job.tries, job.stale)
    assert board.claim("000000") is None
    assert read_progress(tmp_path).failed == {"000000": f"its worker died {MOST_LOSSES} times"}
    assert opened(job).claim("000000") is not None, "a new launch is a new chance"


def test_who_finishes_late_does_no_harm(tmp_path: Path) -> None:
    """A worker that was thought dead ends after the one that took over has begun."""
    job = digest_job(tmp_path)
    board = opened(job)
    first = leave_claim(job, "000000", pid=dead_process())
    second = board.claim("000000")
    assert second is not None
    board.finish("000000", first, [], 0.0)
    assert board.claim("000000") is None
    board.finish("000000", second, [], 0.0)
    assert not list((tmp_path / ".shards/claims").iterdir())


def test_an_interrupted_worker_gives_its_claim_back(tmp_path: Path) -> None:
    def start() -> RunShard:
        def run_shard(shard: str) -> list[Path]:
            raise KeyboardInterrupt

        return run_shard

    job = replace(digest_job(tmp_path), start=start)
    opened(job)
    with pytest.raises(KeyboardInterrupt):
        work(job)
    assert not list((tmp_path / ".shards/claims").iterdir())


def test_two_jobs_in_one_folder_wait_for_their_own_shards_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is opened while the first runs; its only shard is in the hands of a worker that lives."""
    first = replace(digest_job(tmp_path), shards={"000000": 10, "000001": 10})
    second = replace(first, shards={"000005": 10})
    claim = leave_claim(second, "000005", pid=os.getppid())
    leftover = tmp_path / ".shards/done/.other.1.tmp"
    leftover.touch()

    def work_while_another_starts(job: Job, advance: Callable[[str], object]) -> None:
        work(job, advance)
        opened(second)

    monkeypatch.setattr("dapg.core.launch.work", work_while_another_starts)
    launch(first, HERE)
    assert words(tmp_path / "runs") == ["000000", "000001"]
    assert not read_progress(tmp_path).finished, "of the second"
    assert claim.exists()
    assert leftover.exists(), "who works on the second may be writing it"


def test_a_busy_shard_is_put_off_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapg.core.shards._BUSY_PAUSE", 0.0)

    def start() -> RunShard:
        def run_shard(shard: str) -> list[Path]:
            note(tmp_path / "runs", shard)
            if words(tmp_path / "runs").count("000000") < 5 and shard == "000000":
                raise BusyError("made by another worker")
            return []

        return run_shard

    launch(replace(digest_job(tmp_path, shards=2), start=start), HERE)
    assert words(tmp_path / "runs") == ["000000", "000001", *["000000"] * 4]


def test_what_no_worker_can_start_is_said_at_once(tmp_path: Path) -> None:
    def start() -> RunShard:
        raise DapgError("the model is missing")

    with pytest.raises(DapgError, match="the model is missing"):
        launch(replace(digest_job(tmp_path), start=start), HERE)


def test_names_of_any_kind_are_shards(tmp_path: Path) -> None:
    names = ["a/b.mp4", "a_b.mp4", "ä" * 200, "..", "000000"]

    def start() -> RunShard:
        def run_shard(shard: str) -> list[Path]:
            path = piece(tmp_path, shard, ".txt")
            path.parent.mkdir(exist_ok=True)
            path.write_text(shard)
            return [path]

        return run_shard

    launch(replace(digest_job(tmp_path), shards=dict.fromkeys(names, 1), start=start), HERE)
    assert [piece(tmp_path, name, ".txt").read_text() for name in names] == names


def test_workers_are_processes_that_are_replaced_when_they_die(tmp_path: Path) -> None:
    """Two at a time; one kills itself in its first attempt at a shard. Bytes are those of one worker."""
    launch(digest_job(tmp_path / "one"), HERE)
    job = digest_job(tmp_path / "two", trap="dies-once 000003")
    launch(job, replace(HERE, workers=2))
    assert merge(tmp_path / "two", job.shards) == merge(tmp_path / "one", job.shards)
    assert Counter(words(tmp_path / "two/runs")) == {**dict.fromkeys(job.shards, 1), "000003": 2}
    assert 2 <= len(words(tmp_path / "two/starts")) <= 4
    workers = {json.loads(path.read_text())["worker"] for path in (tmp_path / "two/.shards/done").iterdir()}
    assert str(os.getpid()) not in {worker.split()[-1] for worker in workers}


def test_jobs_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = digest_job(tmp_path, trap="raises 000001")
    with pytest.raises(ShardsFailed):
        launch(job, HERE)
    leave_claim(digest_job(tmp_path, shards=8), "000006")
    assert main(["jobs", "watch", str(tmp_path), "--once", "--json"]) == 0
    stated = json.loads(capsys.readouterr().out)
    assert (stated["done"], stated["shards"], stated["size"], stated["size_done"]) == (5, 8, 80, 50)
    assert [running["shard"] for running in stated["running"]] == ["000006"]
    assert main(["jobs", "watch", str(tmp_path), "--once"]) == 0
    said = capsys.readouterr().out
    assert "test digests: 5 of 8 shards done, 1 running, 0 failed" in said
    assert "000006" in said
    assert main(["jobs", "watch", str(tmp_path / "nothing")]) == 1
    with pytest.raises(SystemExit):
        main(["jobs", "watch", "--help"])
    assert main(["jobs", "watch", str(tmp_path), "--twice"]) == 2
