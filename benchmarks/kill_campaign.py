"""Kill every command that writes, at places drawn from a seed; let it end; compare with an uninterrupted run.

usage: python benchmarks/kill_campaign.py WORK [--only 'crop export'] [--kills 12] [--interrupts 2] [--sizes 5]
           [--together 3] [--loaders 4] [--assets KIT] [--seed 0]

* kill: SIGKILL at a file operation (open to write, rename, unlink, mkdir, ...) or at a moment by the clock, two in a
  row, then the command again to its end;
* Ctrl-C: SIGINT at a file operation: exit code 130 and one line, whole files alone, then the command again;
* full disk: a file system in memory of a size that does not do: one line that says where; then, with room, again;
* together: the command twice at once in one folder, one of the two killed every other time, then again;
* loader: a loader process is killed: one line that says so, then again.

After each, what is left must be equal to what an uninterrupted run leaves, save clock times, and no folder may be taken
for a whole one before it is. Every outcome is a line of WORK/outcomes.jsonl; a campaign that is stopped goes on. Needs
Linux, and root for the file system in memory; without it, full disks are left out.
"""

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from dapg import cli  # noqa: E402
from dapg.core.errors import DapgError  # noqa: E402
from dapg.data.sets.synthetic import Synthetic  # noqa: E402
from dapg.data.source import open_dataset, parse_source  # noqa: E402
from dapg.evaluation.corrupted_sets import policy  # noqa: E402
from figures import make_figures  # noqa: E402
from made_up_cells import shrink_small, write_people  # noqa: E402

CLOCK = {
    "seconds", "waited", "pictures_per_second", "data_wait", "scoring_seconds", "time", "commit", "machine",
    "pictures_kept",
}  # fmt: skip
"""What differs between two runs of one thing."""
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir", "os.link", "os.chmod", "shutil.rmtree"}
Act = Callable[[], None]
TEMPORARY = re.compile(r"\.tmp$|\.partial$|^packing\.json$|^\.unfinished")


@dataclass(frozen=True)
class Job:
    """A command with a small workload."""

    name: str
    template: str
    """Its words; {out} is the folder that it writes into, other names are inputs."""
    reads: Callable[[Path], object] | None = None
    """Reads the folder as the next command would; raises DapgError where it is not whole."""
    loader: bool = False
    """Whether it has loader processes."""
    begin: str = ""
    """What lies in the folder before, of an earlier command."""
    lists: bool = False
    """What fails is a line of its list of failures, and the rest goes on."""
    once: bool = False
    """It refuses a folder that it has filled; run again after an end, it may say so."""
    grows: bool = False
    """A gallery: usable at any time, with times and keys of its own in its files, so that only what is read at the end
    is compared."""

    @property
    def one_file(self) -> bool:
        """Whether it writes single files into a folder that is not its own."""
        return "--out {out}/" in self.template

    @property
    def folder(self) -> str:
        """Where later commands find what it left."""
        return self.name.replace(" ", "-")


# ---- one process ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Negative: the signal."""
    printed: str
    operations: int
    """File operations that it began."""


class Process:
    """A `dapg` command in a fork of this process, which has everything imported and nothing computed."""

    def __init__(self, words: Sequence[str], log: Path, act: Act | None = None, at: int = 0) -> None:
        self.log, self.count = log, log.with_suffix(".count")
        self.count.write_bytes(b"")
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(list(words), act, at)

    def _run(self, words: list[str], act: Act | None, at: int) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["dapg", *words]
            _count_operations(self.count, act, at)
            code = cli.main(words)
            sys.stdout.flush()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def kill(self) -> None:
        """SIGKILL to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, limit: float = 600.0) -> Ended:
        """Its end; processes that it leaves behind are killed."""
        began = time.monotonic()
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - began > limit:
                self.kill()
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, self.log.read_text(errors="replace"), self.count.stat().st_size)


def _count_operations(count: Path, act: Act | None, at: int) -> None:
    """Call ``act`` before the file operation number ``at`` (from 1) of this process."""
    handle, done, owner = os.open(count, os.O_WRONLY | os.O_APPEND), 0, os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        writes = event in WRITES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not writes or os.getpid() != owner:
            return
        done += 1
        os.write(handle, b".")
        if done == at and act is not None:
            act()

    sys.addaudithook(hook)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill_a_loader() -> None:
    for child in multiprocessing.active_children()[:1]:
        child.kill()


# ---- what is left --------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    """Relative path -> a hash of what the file says, without clock times; of checkpoints the last of each run."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".lock")]
    files = [path for path in files if ".shards" not in path.parts]  # who worked when
    steps: dict[Path, str] = {}
    for path in files:
        if path.parent.parent.name == "checkpoints":
            steps[path.parent.parent] = max(path.parent.name, steps.get(path.parent.parent, ""))
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in files
        if not _is_about_the_run(path) and steps.get(path.parent.parent, path.parent.name) == path.parent.name
    }


def _is_about_the_run(path: Path) -> bool:
    """Commands and machines; sizes and hashes of a checkpoint's pickles, which hold times."""
    return path.name == "environment.json" or (path.name == "manifest.json" and path.parent.name.startswith("step_"))


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        value: object = _timeless(json.loads(path.read_text()))
    elif path.suffix == ".jsonl":
        value = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    elif path.name == "metrics.csv":
        with path.open(newline="") as handle:
            value = [_timeless(row) for row in csv.DictReader(handle)]
    elif path.suffix == ".pt":
        value = _timeless(torch.load(path, weights_only=True))
    elif path.suffix == ".safetensors":
        value = {name: _timeless(tensor) for name, tensor in load_file(path).items()}
    elif path.name == "cells.csv":
        value = [row.split(",")[0] for row in path.read_text().splitlines()]
    else:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _timeless(item) for key, item in value.items() if key not in CLOCK}
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    if isinstance(value, torch.Tensor):
        stream = io.BytesIO()
        np.save(stream, value.detach().float().numpy() if value.dtype == torch.bfloat16 else value.numpy())
        return hashlib.sha256(stream.getvalue()).hexdigest()
    return value


def differences(now: dict[str, str], before: dict[str, str]) -> list[str]:
    """Names of files that one side lacks or that differ."""
    return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))


def in_a_fork(work: Callable[[], object]) -> str:
    """What the work returns, as text, or ``refused: ...`` where it raises a DapgError; this process stays clean."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = f"{work()}"
        except DapgError as error:
            said = f"refused: {error}"
        except BaseException as error:
            said = f"bug: {type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4096])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return said


def messages(ended: Ended, lists: bool = False) -> list[str]:
    """What is wrong with the words of a process that failed, perhaps with a list of its own."""
    lines = [line for line in ended.printed.splitlines() if line.startswith("dapg: ")]
    wrong = []
    if "Traceback" in ended.printed or "this is a bug" in ended.printed or "dapg: unexpected" in ended.printed:
        wrong.append("a traceback or a bug")
    if len(lines) != 1 and not (lists and not lines):
        wrong.append(f"{len(lines)} lines begin with `dapg: `")
    return wrong


# ---- the disk ------------------------------------------------------------------------------------------------------


class Disk:
    """A folder, which is a file system in memory where this is allowed; its size can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(folder):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)], check=False)
        self.sizeable = os.path.ismount(folder)

    def empty(self) -> Path:
        """Nothing in it, and room; the folder that a command writes into."""
        self.size(512 * 2**20)
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return self.folder / "out"

    def size(self, size: int) -> None:
        if self.sizeable:
            subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def used(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())

    def close(self) -> None:
        if self.sizeable:
            subprocess.run(["umount", str(self.folder)], check=False)


# ---- the campaign --------------------------------------------------------------------------------------------------


class Campaign:
    """Runs the kinds of accident over jobs and notes every outcome."""

    def __init__(self, work: Path, seed: int, places: dict[str, Path | str]) -> None:
        self.work, self.seed, self.places = work, seed, places
        self.disk = Disk(work / "disk")
        self.outcomes = work / "outcomes.jsonl"
        lines = self.outcomes.read_text().splitlines() if self.outcomes.exists() else []
        self.known = {(line["job"], line["kind"], line["number"]): line for line in map(json.loads, lines)}

    def reference(self, job: Job) -> None:
        """An uninterrupted run: what it leaves, its operations, time and greatest use of the disk."""
        out = self.fresh(job)
        began = time.monotonic()
        ended = self.process(job, out).wait()
        self.seconds = time.monotonic() - began
        assert ended.code == 0, f"{job.name}: {ended.printed}"
        self.operations, self.used = ended.operations, self.disk.used()
        self.expected = content(out)
        self.read = in_a_fork(lambda: job.reads(out)) if job.reads else ""
        assert not self.read.startswith(("refused", "bug")), f"{job.name}: {self.read}"
        print(f"{job.name}: {self.operations} operations, {self.seconds:.1f} s, {self.used // 1024} KiB", flush=True)

    def fresh(self, job: Job) -> Path:
        out = self.disk.empty()
        if job.begin:
            shutil.copytree(Path(self.places["done"], job.begin), out)
        return out

    def process(self, job: Job, out: Path, act: Act | None = None, at: int = 0, tag: str = "") -> Process:
        words = [word.format(out=out, **self.places) for word in job.template.split()]
        words = [word.replace(",", " ") if word.startswith("none+") else word for word in words]  # patterns of cells
        return Process(words, self.work / f"log{tag}.txt", act, at)

    def run(self, job: Job, kinds: dict[str, int]) -> None:
        """All accidents that are not in the outcomes yet."""
        missing = [
            (kind, number)
            for kind, count in kinds.items()
            for number in range(count)
            if (job.name, kind, number) not in self.known
        ]
        missing = [(kind, number) for kind, number in missing if kind != "loader" or job.loader]
        missing = [(kind, number) for kind, number in missing if kind != "full disk" or self.disk.sizeable]
        if not missing:
            return
        self.reference(job)
        for kind, number in missing:
            chance = random.Random(f"{self.seed} {job.name} {kind} {number}")
            share = (number + chance.random()) / kinds[kind]  # spread over the run
            accident = {
                "kill": self.kill, "Ctrl-C": self.ctrl_c, "full disk": self.full_disk, "together": self.together,
                "loader": self.loader,
            }[kind]  # fmt: skip
            out = self.fresh(job)
            facts = accident(job, out, share, number, chance)
            wrong = facts.pop("wrong", [])
            self.note(job, kind, number, facts, [*wrong, *self.end(job, out)])

    def note(self, job: Job, kind: str, number: int, facts: dict[str, object], wrong: list[str]) -> None:
        line = {"job": job.name, "kind": kind, "number": number, **facts, "wrong": wrong}
        self.known[job.name, kind, number] = line
        with self.outcomes.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
        if wrong:
            print(f"WRONG {json.dumps(line)}", flush=True)

    def end(self, job: Job, out: Path) -> list[str]:
        """The command again to its end; what is wrong with what it leaves."""
        ended = self.process(job, out).wait()
        if ended.code == 2 and job.once and job.reads and in_a_fork(lambda: job.reads and job.reads(out)) == self.read:
            return []
        if ended.code:
            return [f"lost: exit code {ended.code} when run again: {ended.printed[-600:]}"]
        now, wrong = content(out), []
        if job.one_file:  # a kill within its writing leaves a hidden temporary file
            now = {name: digest for name, digest in now.items() if not name.endswith(".tmp")}
        if not job.grows and (different := differences(now, self.expected)):
            wrong.append(f"wrong: {', '.join(different[:6])} differ or are missing or left over")
        if self.read and (said := in_a_fork(lambda: job.reads(out) if job.reads else "")) != self.read:
            wrong.append(f"wrong: reads {said[:200]}")
        return wrong

    def taken_for_whole(self, job: Job, out: Path) -> list[str]:
        """Whether a reader takes an unfinished folder, and finds something else than in a finished one."""
        if job.reads is None or job.grows:
            return []
        said = in_a_fork(lambda: job.reads(out) if job.reads else "")
        if said.startswith("refused") or said == self.read:
            return []
        return [f"wrong: an unfinished folder is read: {said[:200]}"]

    def kill(self, job: Job, out: Path, share: float, number: int, chance: random.Random) -> dict[str, object]:
        killed, wrong = [], []
        for turn in range(2):
            if number % 4 == 3:  # by the clock
                process = self.process(job, out)
                time.sleep((share if not turn else chance.random()) * self.seconds)
                process.kill()
                place = f"{share:.2f} of the time"
            else:
                at = 1 + int((share if not turn else chance.random()) * self.operations)
                process, place = self.process(job, out, die, at), f"operation {at}"
            ended = process.wait()
            if ended.code == -signal.SIGKILL:
                killed.append(place)
                wrong += self.taken_for_whole(job, out)
            elif ended.code and not (job.once and "already" in ended.printed):
                wrong.append(f"lost: exit code {ended.code} after a kill: {ended.printed[-600:]}")
        return {"kills": len(killed), "places": killed, "wrong": wrong}

    def ctrl_c(self, job: Job, out: Path, share: float, number: int, chance: random.Random) -> dict[str, object]:
        at = 1 + int(share * self.operations)
        ended = self.process(job, out, interrupt, at).wait()
        wrong = []
        if ended.code not in (0, 130):
            wrong.append(f"exit code {ended.code}: {ended.printed[-600:]}")
        if ended.code:
            wrong += [f"{what}: {ended.printed[-900:]}" for what in messages(ended)]
            wrong += self.taken_for_whole(job, out)
            left = [str(path) for path in out.rglob("*") if path.name.endswith(".tmp")]
            wrong += [f"half a file is left: {', '.join(left[:3])}"] * bool(left)
        return {"at": at, "code": ended.code, "wrong": wrong}

    def full_disk(self, job: Job, out: Path, share: float, number: int, chance: random.Random) -> dict[str, object]:
        size = max(4096, int(share * self.used) // 4096 * 4096)
        self.disk.size(max(size, self.disk.used() + 4096))
        ended = self.process(job, out).wait()
        wrong = []
        if ended.code not in (0, 1):
            wrong.append(f"exit code {ended.code}: {ended.printed[-600:]}")
        if ended.code:
            wrong += [f"{what}: {ended.printed[-900:]}" for what in messages(ended, job.lists)]
            if str(self.disk.folder) not in ended.printed:
                wrong.append(f"no place is named: {ended.printed[-400:]}")
        said = ended.printed.strip().splitlines()[-1:] if ended.code else []
        wrong += self.taken_for_whole(job, out)
        self.disk.size(512 * 2**20)
        return {"size": size, "of": self.used, "code": ended.code, "said": said, "wrong": wrong}

    def together(self, job: Job, out: Path, share: float, number: int, chance: random.Random) -> dict[str, object]:
        at = 1 + int(share * self.operations)
        first = self.process(job, out, die if number % 2 else None, at, "-first")
        second = self.process(job, out, tag="-second")
        ends = [process.wait() for process in (first, second)]
        wrong = []
        for ended in ends:
            if ended.code > 0:
                wrong += [f"{what}: {ended.printed[-900:]}" for what in messages(ended)]
        codes = [ended.code for ended in ends]
        said = "is in use by process", "already"
        if all(codes) and not any(words in ended.printed for ended in ends for words in said):
            wrong.append(f"none of the two ended well: {codes}, {ends[1].printed[-400:]}")
        return {"codes": codes, "said": [ended.printed[-200:] for ended in ends if ended.code > 0], "wrong": wrong}

    def loader(self, job: Job, out: Path, share: float, number: int, chance: random.Random) -> dict[str, object]:
        at = 1 + int(share * self.operations)
        ended = self.process(job, out, kill_a_loader, at).wait()
        wrong = []
        if ended.code:
            wrong += [f"{what}: {ended.printed[-900:]}" for what in messages(ended)]
            if "a loader process was killed" not in ended.printed:
                wrong.append(f"not named: {ended.printed[-400:]}")
        return {"at": at, "code": ended.code, "wrong": wrong}


# ---- workloads -----------------------------------------------------------------------------------------------------


def small_people(root: Path) -> Path:
    """Some of the embedded people as a tree: 6 to train on, 2 to validate, 4 to test, and 6 unlabelled images."""
    people = Synthetic()
    truths = []
    available: list[int] = []
    for split, count in (("train", 6), ("val", 2), ("test", 4)):
        persons = people.persons(split)[:count]
        available += persons
        _write(root / f"exp/{split}_id.txt", ",".join(map(str, persons)).encode())
        for record in people.records(split):
            if record.person in persons:
                _write(root / record.path, people.read(record))
                truths.append(people.truth(record))
    _write(root / "exp/available_id.txt", ",".join(map(str, sorted(available))).encode())
    for record in people.records("unlabelled")[:6]:
        _write(root / record.path, people.read(record))
        truths.append(people.truth(record))
    _write(root / "annotations.jsonl", "".join(json.dumps(truth) + "\n" for truth in truths).encode())
    return root


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def footage(folder: Path) -> Path:
    """Forty frames of a red and a green person, and a detector that sees them."""
    from onnx_people import Planted, write_network

    red, green = (250, 10, 10), (10, 250, 10)
    (folder / "scene").mkdir(parents=True)
    background = np.random.default_rng(0).integers(60, 120, (120, 200, 3), dtype=np.uint8)
    for number in range(40):
        pixels = background.copy()
        pixels[30:100, 10 + 2 * number : 40 + 2 * number] = red
        pixels[20:80, 180 - 2 * number : 205 - 2 * number] = green
        Image.fromarray(pixels).save(folder / "scene" / f"{number:04d}.png", compress_level=1)
    write_network(folder / "yolo.onnx", "v8", (Planted(red), Planted(green, 0.8)), size=(128, 224))
    return folder


def features(path: Path) -> None:
    draws = np.random.default_rng(0)
    persons = np.arange(24) % 6
    values = draws.normal(size=(24, 8)) + persons[:, None]
    np.savez(
        path, query_features=values[:8], query_persons=persons[:8], gallery_features=values[8:],
        gallery_persons=persons[8:],
    )  # fmt: skip


def records_of(kind: str, split: str = "") -> Callable[[Path], object]:
    """Hash of all images of a split, as a training would read them."""

    def read(out: Path) -> object:
        dataset = open_dataset(parse_source(f"{kind}={out}"))
        digest = hashlib.sha256()
        for record in dataset.records(split or dataset.default_split()):
            digest.update(repr(record).encode() + dataset.read(record))
        return digest.hexdigest()

    return read


def run_of(out: Path) -> object:
    """A run counts as finished where it has a result: then all of it must be there."""
    if not (out / "result.json").exists():
        raise DapgError("not finished")
    whole = content(out)
    return hashlib.sha256(repr({name: whole[name] for name in whole if "checkpoints" not in name}).encode()).hexdigest()


def scores_of(out: Path) -> object:
    """What a leaderboard reads; tables and page are made from it."""
    if not (out / "result.json").exists():
        raise DapgError("not finished")
    return _digest(out / "result.json")


def manifest_of(out: Path) -> object:
    from dapg.data.manifest import read_manifest

    manifest = read_manifest(out)
    files = [
        hashlib.sha256((out / picture.file).read_bytes()).hexdigest() for picture in manifest.pictures if picture.file
    ]
    return hashlib.sha256(repr((manifest.pictures, files)).encode()).hexdigest()


def exported(out: Path) -> object:
    from dapg.models.weights.backbone_weights import init_backbone

    if not (out / "config.json").exists():
        raise DapgError("not finished")
    backbone, _ = init_backbone("resnet18", {"width": 0.125}, str(out), 0)
    return hashlib.sha256(repr(_timeless(dict(backbone.state_dict()))).encode()).hexdigest()


def gallery_of(out: Path) -> object:
    """Every image of a gallery with its feature; the audit must be whole, and nothing half there."""
    from dapg.gallery.gallery import Gallery

    gallery = Gallery(out, "cpu")
    try:
        problems = [*gallery.check(()), *gallery.verify_audit()[0]]
        if problems:
            raise AssertionError(f"the gallery is damaged: {problems[:3]}")
        digest = hashlib.sha256()
        vectors = dict(gallery.database.query("SELECT picture, vector FROM features"))
        for picture in sorted(gallery.pictures(limit=1_000_000), key=lambda picture: picture.path):
            digest.update(repr((picture.path, picture.person, picture.camera)).encode())
            digest.update(gallery.picture_file(picture.number) + bytes(vectors[picture.number]))
        return digest.hexdigest()
    finally:
        gallery.close()


TRAIN = """--preset demo --device cpu --train.steps 8 --train.batch_size 8 --train.log_every 3
--train.checkpoint_every 2 --loader.workers 1 --loader.memory 0 --out {out}"""
"""Checkpoints in the middle of the windows of the log."""
SMALL = (
    """--data.split train --backbone resnet18 --backbone.width 0.125 --method.views.height 32 --method.views.width 16"""
)
CELLS = """beyond --data sysu={sysu} --starts random --seeds 1 --repeats 1 --only none+agw-*,simclr+agw-* --device cpu
--runs {out}/runs --results {out}/results"""

JOBS = (
    Job("pretrain dapg", f"pretrain dapg --data {{data}} {SMALL} {TRAIN}", run_of, loader=True),
    Job("pretrain mocov2", f"pretrain mocov2 --data {{data}} {SMALL} {TRAIN}", run_of, loader=True),
    Job(
        "pose train",
        """pose train --preset demo --device cpu --data {data} --data.split train --generator.width 8
        --generator.blocks 1 --discriminator.width 4 --train.steps 6 --train.batch_size 2 --train.checkpoint_every 2
        --train.log_every 3 --loader.workers 1 --loader.memory 0 --out {out}""",
        run_of,
        loader=True,
    ),
    Job(
        "pose generate",
        """pose generate {data} --split train --subset 30 --batch_size 8 --generator {done}/pose-train --device cpu
        --out {out}""",
        manifest_of,
    ),
    Job("pose estimate", "pose estimate {data} --estimator annotations --out {out}", run_of),
    Job("pose check", "pose check {out}", begin="pose-generate"),
    Job(
        "align",
        f"""align --data {{data}} --data.subset 30 --generated {{done}}/pose-generate --init {{done}}/pretrain-dapg
        {SMALL} {TRAIN}""",
        run_of,
        loader=True,
    ),
    Job(
        "finetune agw",
        f"finetune agw --data {{data}} --pictures 2 {SMALL} --loader.height 32 --loader.width 16 {TRAIN}",
        run_of,
        loader=True,
    ),
    Job("export", "export {done}/pretrain-dapg --out {out}", exported),
    Job(
        "evaluate",
        """evaluate {done}/finetune-agw --data {data} --workers 1 --device cpu --corruption fog --corruption.repeats 1
        --corruption.height 64 --corruption.width 32 --ranked_lists 3 --out {out}""",
        run_of,
        loader=True,
    ),
    Job(
        "evaluate imagenet",
        """evaluate imagenet --backbone mobilenet_v2 --height 64 --width 32 --data {data} --workers 1 --device cpu
        --out {out}""",
        run_of,
        loader=True,
    ),
    Job("corrupt", "corrupt {data} --corruption fog-3 --split val --out {out}", records_of("synthetic", "val")),
    Job("data shard", "data shard {data} --per_shard 20 --out {out}", records_of("shards", "train")),
    Job(
        "data crop",
        """data crop {footage}/scene --detector yolo --detect.weights {footage}/yolo.onnx --sampling.segment_seconds 0.5
        --picture_rate 10 --filters.min_sharpness 0 --filters.duplicate_bits -1 --out {out}""",
        records_of("folder"),
    ),
    Job(
        "data synth",
        """data synth --assets {assets} --persons 3 --validation_persons 1 --test_persons 1 --unlabelled 3 --workers 1
        --height 64 --width 32 --out {out}""",
        records_of("synthetic", "train"),
    ),
    Job(
        "data group",
        "data group {data} --data.split train --by histogram --groups 3 --device cpu --out {out}/groups.tsv",
    ),
    Job("data caption", "data caption {data} --data.split train --out {out}/captions.tsv"),
    Job("neighbours", "neighbours histogram --crops {done}/data-crop --seconds 0.2 --device cpu --out {out}"),
    Job("explain", "explain {done}/finetune-agw {picture} --device cpu --out {out}"),
    Job("score", "score {features} --protocol plain --out {out}/scores.json"),
    Job("compare", "compare {done}/evaluate {done}/evaluate-imagenet --out {out}/compared.json"),
    Job("combine", "combine {done}/evaluate --out {out}/combined.json"),
    Job("report", "report {done}/pretrain-dapg {done}/evaluate --out {out}/page.html"),
    Job(
        "extract",
        """extract histogram --data {data} --data.split train --height 64 --width 32 --engine.workers 1 --device cpu
        --out {out}""",
        run_of,
    ),
    Job(
        "index",
        """index {out} {figures} --model histogram --height 32 --width 16 --batch_size 8 --threads 1
        --engine.workers 1 --device cpu""",
        gallery_of,
        grows=True,
    ),
    Job("gallery backup", "gallery backup {done}/index --out {out}", gallery_of, once=True, grows=True),
    Job(
        "threshold",
        """threshold histogram --data folder={figures} --data.split all --height 32 --width 16 --splits 2
        --replicates 20 --workers 0 --device cpu --out {out}/thresholds.json --html {out}/thresholds.html""",
    ),
    Job(
        "benchmark",
        """benchmark histogram --data folder={figures} --mode cross-modal --height 32 --width 16 --repeats 1
        --cache_size 0 --device cpu --out {out}""",
        scores_of,
    ),
    Job("leaderboard", "leaderboard {done}/benchmark --out {out}/leaderboard.csv"),
    Job("reproduce run", f"reproduce run {CELLS}", lists=True),
    Job("reproduce show", f"reproduce show {CELLS}", begin="reproduce-run"),
)
"""Every command that writes; later ones read what earlier ones leave."""


def read_by(wanted: Sequence[str]) -> set[str]:
    """Commands by name, all if none is named, and those whose folders they read."""
    names = set(wanted) or {job.name for job in JOBS}
    for job in reversed(JOBS):
        if job.name in names:
            words = {word.removeprefix("{done}/") for word in job.template.split()} | {job.begin}
            names |= {other.name for other in JOBS if other.folder in words}
    return names


def prepare(work: Path, assets: Path | None) -> dict[str, Path | str]:
    """Images, footage and features, once; where they are, by the names of the templates."""
    inputs = work / "inputs"
    if not (inputs / "figures").exists():
        shutil.rmtree(inputs, ignore_errors=True)
        small_people(inputs / "synthetic")
        write_people(inputs / "sysu")
        footage(inputs / "footage")
        features(inputs / "features.npz")
        make_figures(inputs / "figures", persons=20, pictures=1)
    (inputs / "done").mkdir(exist_ok=True)
    picture = min((inputs / "synthetic").glob("cam1/*/*"))
    return {
        "data": f"synthetic={inputs / 'synthetic'}", "sysu": inputs / "sysu", "footage": inputs / "footage",
        "picture": picture, "features": inputs / "features.npz", "done": inputs / "done",
        "assets": assets or Path("none"), "figures": inputs / "figures",
    }  # fmt: skip


def table(outcomes: Sequence[dict[str, object]]) -> str:
    """One row per command, accidents by kind, what went wrong."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for line in outcomes:
        row = rows[str(line["job"])]
        row[str(line["kind"])] += 1
        row["kills"] += int(str(line.get("kills", 0))) + (line.get("codes") or []).count(-9)  # type: ignore[attr-defined]
        for what in line["wrong"]:  # type: ignore[attr-defined]
            row["lost" if what.startswith("lost") else "wrong"] += 1
    columns = ("kills", "Ctrl-C", "full disk", "together", "loader", "lost", "wrong")
    lines = ["| command | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    total: Counter[str] = Counter()
    for name, row in rows.items():
        total += row
        lines.append(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
    lines.append("| all | " + " | ".join(str(total[column]) for column in columns) + " |")
    return "\n".join(lines)


@contextlib.contextmanager
def everything_imported() -> Iterator[None]:
    """So that a fork begins with its work; and the scale `small` and the benchmark in seconds."""
    import torch._dynamo

    import dapg.data.cropping.crop
    import dapg.evaluation.benchmark
    import dapg.evaluation.explain
    import dapg.evaluation.thresholds
    import dapg.experiment.page
    import dapg.export.export
    import dapg.features.extract_shards
    import dapg.features.neighbours
    import dapg.gallery.gallery
    import dapg.pose.check
    import dapg.pose.generate
    import dapg.recipes
    import dapg.report.benchmark_page
    import dapg.report.run_page
    import dapg.training.align
    import dapg.training.finetune
    import dapg.training.pretrain  # noqa: F401

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        shrink_small(patch)
        protocol = dataclasses.replace(policy("vi-c-1.0/visible"), types=("contrast",), severities=(1, 5))
        patch.setattr("dapg.evaluation.benchmark.chosen_policies", lambda settings: {"visible": protocol})
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="", help="names of commands, as in the table, commas between them")
    parser.add_argument("--kills", type=int, default=6, help="pairs of kills for each command")
    parser.add_argument("--interrupts", type=int, default=2)
    parser.add_argument("--sizes", type=int, default=5)
    parser.add_argument("--together", type=int, default=2)
    parser.add_argument("--loaders", type=int, default=3)
    parser.add_argument(
        "--assets", type=Path, default=None, help="the kit of `dapg data synth`, which is left out without"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kinds = {
        "kill": options.kills, "Ctrl-C": options.interrupts, "full disk": options.sizes, "together": options.together,
        "loader": options.loaders,
    }  # fmt: skip
    with everything_imported():
        campaign = Campaign(work, options.seed, prepare(work, options.assets))
        wanted = [name.strip() for name in options.only.split(",") if name.strip()]
        try:
            for job in JOBS:
                if (job.name == "data synth" and options.assets is None) or job.name not in read_by(wanted):
                    continue
                kept = Path(campaign.places["done"], job.folder)
                if not kept.exists():  # later commands read it
                    campaign.reference(job)
                    shutil.copytree(campaign.disk.folder / "out", kept)
                if not wanted or job.name in wanted:
                    campaign.run(job, kinds)
        finally:
            campaign.disk.close()
    print(table(list(campaign.known.values())))
    sys.exit(any(line["wrong"] for line in campaign.known.values()))


if __name__ == "__main__":
    main()
