"""A stage is a function from settings and folders to a folder: config.yaml first, result.json last.

A finished folder with equal settings is reused, one with other settings is an error that names the difference, an
unfinished one is resumed. A folder whose run failed before it made anything but its settings counts as new.
"""

import contextlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dapg import __version__
from dapg.core.errors import DapgError, DataError, UsageError
from dapg.core.files import atomic_write_text, folder_lock, remove_leftovers, write_json
from dapg.core.schema import read_json
from dapg.core.settings import Dataclass, check, differences, dump_yaml, listed, read_yaml, to_dict
from dapg.core.types import JsonObject

CONFIG, RESULT, ENVIRONMENT, EXTENSIONS = "config.yaml", "result.json", "environment.json", "extensions.json"


@dataclass
class RunFolder:
    """One run's folder.

    ``extendable`` maps a dotted key that may grow (training steps) to the word for it; growing it goes on from the
    last checkpoint instead of failing.
    """

    folder: Path
    settings: Dataclass
    kind: str
    rank: int = 0
    extendable: tuple[str, ...] = ()
    shape: Any = JsonObject
    """What is read of a stored result (``core/schema.py``)."""
    alone: bool = False
    """Whether nobody else writes into the folders below; inside a training's there may be evaluations."""
    started: float = field(default_factory=time.time)
    extended_from: dict[str, tuple[object, object]] = field(default_factory=dict)

    def open(self) -> JsonObject | None:
        """Take the folder; the stored result if the same work is finished already, else None.

        Raises:
            UsageError: a setting out of its range, or the folder holds another run.
            DapgError: another process works in it, or it cannot be written.
        """
        check(self.settings)
        self._new = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DapgError(f"cannot create {self.folder}: {error.strerror or error}") from error
        with contextlib.ExitStack() as lock:
            lock.enter_context(folder_lock(self.folder, self.rank))
            finished = self._compare()
            self._lock = lock.pop_all()
        return finished

    def _compare(self) -> JsonObject | None:
        config = self.folder / CONFIG
        # Looked at before the config: a process of the same run that is ahead of us writes the config first.
        present = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        if config.exists():
            different = self._differences(read_yaml(config), started=bool(present - {CONFIG, ENVIRONMENT}))
            for key in self.extendable:
                if key in different and _grows(*different[key]):
                    self.extended_from[key] = different.pop(key)
            if different:
                raise UsageError(
                    f"{self.folder} holds a run with other settings ({listed(different)}); give another --out"
                )
            if not self.extended_from and (self.folder / RESULT).exists():
                return dict(read_json(self.folder / RESULT, self.shape))
        elif present:
            raise UsageError(f"{self.folder} is not empty and holds no {CONFIG}; give another --out")
        if self.rank == 0:
            remove_leftovers(self.folder, self.alone)
            if self.extended_from:
                self._note_extension()
                (self.folder / RESULT).unlink(missing_ok=True)
            values = {"stage": self.kind, **to_dict(self.settings, whole=True)}
            atomic_write_text(config, f"# dapg {self.kind}\n{dump_yaml(values)}")
            write_json(self.folder / ENVIRONMENT, environment())
        return None

    def _differences(self, stored: JsonObject, started: bool) -> dict[str, tuple[object, object]]:
        """What differs from the run in the folder; nothing when that one failed before it made anything."""
        kind = stored.pop("stage", None)
        if kind is None:
            raise UsageError(f"{self.folder / CONFIG} was not written by dapg; give another --out")
        if not started:
            return {}
        if kind != self.kind:
            raise UsageError(f"{self.folder} holds a run of `{kind}`, not of `{self.kind}`; give another --out")
        return differences(self.settings, stored)

    def _note_extension(self) -> None:
        """Remember what the run was before, also if this try is killed."""
        before = {key: old for key, (old, _) in self.extended_from.items()}
        if before not in self.extensions():
            write_json(self.folder / EXTENSIONS, [*self.extensions(), before])

    def extensions(self) -> list[dict[str, object]]:
        """Earlier lengths of a run that was extended, oldest first."""
        path = self.folder / EXTENSIONS
        if not path.exists():
            return []
        lengths: list[dict[str, object]] = read_json(path, list[JsonObject])
        return lengths

    def finish(self, result: JsonObject) -> JsonObject:
        """Write the result, the last file of a run, and give the folder back."""
        whole = {"stage": self.kind, "dapg_version": __version__, **result}
        if self.rank == 0:
            write_json(self.folder / RESULT, whole)
        self.close()
        return whole

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around a stage's work: the folder is given back; work that failed before it made anything leaves nothing."""
        try:
            yield
        except BaseException:
            if self.rank == 0:
                self._withdraw()
            raise
        finally:
            self.close()

    def _withdraw(self) -> None:
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".lock.")}
        if names <= {CONFIG, ENVIRONMENT}:
            for name in names:
                (self.folder / name).unlink()
            if self._new:
                self.close()
                for lock in self.folder.iterdir():
                    lock.unlink()
                with contextlib.suppress(OSError):  # another process of the run may be in it
                    self.folder.rmdir()

    def close(self) -> None:
        """Give the folder back without a result; the work can be taken up again."""
        self._lock.close()


def refuse_other_weights(folder: Path | str, held: str, source: str, then: str | None, now: str | None) -> None:
    """Refuse a finished folder whose weights at the start were replaced since: its settings name their place only.

    Args:
        folder: of the finished stage.
        held: what it holds, such as ``scores of``.
        source: the place of the weights.
        then: their SHA-256 when the folder was made; None where there were none.
        now: that of what lies there now; None where nothing does, so that nothing contradicts.

    Raises:
        UsageError: the two differ.
    """
    if then is not None and now is not None and then != now:
        raise UsageError(
            f"{folder} holds {held} other weights than {source} has now (SHA-256 {then[:12]} there, {now[:12]} now); "
            "give another --out, or delete the folder"
        )


def refuse_changed(folder: Path | str, what: str, then: str | None, now: str | None) -> None:
    """Refuse a finished folder whose input changed since: its settings name the input's place only.

    Args:
        folder: of the finished stage.
        what: the input.
        then: its hash when the folder was made; None where nobody noted it.
        now: its hash now; None where it is not there, so that nothing contradicts.

    Raises:
        UsageError: the two differ.
    """
    if then is not None and now is not None and then != now:
        raise UsageError(
            f"{folder} is finished, but {what} changed since (hash {then[:12]} then, {now[:12]} now); give another "
            "--out, or delete the folder"
        )


def refuse_other_input(path: Path, now: JsonObject) -> None:
    """Compare what a run reads with ``path``, where its first command wrote that down: all must see the same.

    Raises:
        DataError: it changed since.
    """
    if not path.exists():
        write_json(path, now)
        return
    then = read_json(path)
    if then != now:
        changed = listed({key: (then.get(key), now[key]) for key in now if then.get(key) != now[key]})
        raise DataError(
            f"{path} was made from other images or weights than there are now ({changed}); give another --out"
        )


def _grows(old: object, new: object) -> bool:
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old > 0


def environment() -> JsonObject:
    """What a reader needs to know about where a result was made: command, versions, commit, machine."""
    import torch

    packages = {}
    for name in ("torch", "numpy", "pillow", "accelerate", "safetensors"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "command": sys.argv,
        "dapg_version": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": packages,
        "machine": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit() -> str | None:
    """The commit of the source tree dapg runs from, ``-dirty`` when changed; None for an installed wheel."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return None
    try:
        head, dirty = (
            subprocess.run(["git", *words], cwd=here, check=True, capture_output=True, text=True, timeout=10).stdout
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("-dirty" if dirty.strip() else "")
