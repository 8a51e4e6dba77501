"""Check every plug-in of a folder, or one of ours."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dapg.contracts import backbones, corruptions, datasets, methods
from dapg.contracts.base import BrokenContract, Checks
from dapg.core import plugins
from dapg.corruptions.base import Corruption
from dapg.methods.runs import FOLDERS


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    plugin: str
    """Its file, below the folder."""
    check: str
    problem: str
    """Empty: the contract is kept."""


def check_folder(folder: Path) -> Iterator[Verdict]:
    """The verdicts on the plug-ins of a folder, as they come.

    Raises:
        UsageError: the folder holds no plug-in, or one whose name is taken.
    """
    plugins.add(folder)
    for package in plugins.PACKAGES:
        for file in sorted(folder.joinpath(*package.split(".")).glob("*.py")):
            if file.stem in plugins.names(package):
                for check, problem in _problems(package, file.stem, folder.resolve()):
                    yield Verdict(str(file.relative_to(folder)), check, problem)


def checks_of(package: str, name: str) -> Iterator[tuple[str, Checks]]:
    """What is to be checked of a plug-in, by which checks: itself, or each corruption in its file."""
    stages = {place: stage for stage, place in FOLDERS.items()}
    if package in stages:
        yield name, methods.checks(stages[package])
    elif package == "corruptions":
        for kind in plugins.classes(package, name, Corruption):
            yield kind.name, corruptions.CHECKS
    else:
        yield name, {"models.backbones": backbones.CHECKS, "data.sets": datasets.CHECKS}[package]


def _problems(package: str, name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Each check and what is wrong; any other error is said with the line of the plug-in that led to it."""
    try:
        subjects = list(checks_of(package, name))
    except Exception as error:
        yield "can be loaded", _with_line(error, folder)
        return
    if not subjects:
        yield "can be loaded", "no class in it is a Corruption"
    for subject, checks in subjects:
        for check, run in checks.items():
            label = check if subject == name else f"{subject} {check}"
            try:
                run(subject)
            except BrokenContract as error:
                yield label, str(error)
            except Exception as error:
                yield label, _with_line(error, folder)
            else:
                yield label, ""


def _with_line(error: Exception, folder: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if folder in Path(frame.filename).parents]
    last = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
