"""A plug-in is a file: its name is the plug-in's, its folder says what kind, its one public class is the plug-in.

Nothing is registered. Every file of a plug-in folder is one, save those that begin with an underscore and ``base.py``,
the contract. A folder outside the package is laid out like it (``--plugins FOLDER``: FOLDER/methods/pretraining/x.py);
installed packages name their classes as entry points. ``names`` imports no plug-in, so that help texts stay fast.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar, cast

from dapg.core.errors import UsageError, nearest

T = TypeVar("T")

PACKAGES = (
    "methods.pretraining",
    "methods.alignment",
    "methods.finetuning",
    "corruptions",
    "models.backbones",
    "data.sets",
)
"""Packages below ``dapg`` that plug-ins of others can join, and where their files are in a folder of plug-ins."""
VARIABLE = "DAPG_PLUGINS"
"""Environment variable with folders of plug-ins, which the processes that we start read, too."""
GIVEN: list[str] = []
"""Folders that the command line named, for the commands that are said to come next."""
_GROUPS = {
    "dapg.methods": "methods",
    "dapg.corruptions": "corruptions",
    "dapg.backbones": "models.backbones",
    "dapg.datasets": "data.sets",
}
"""Group of entry points -> package. Names are the plug-ins'; for methods ``pretraining.mine`` and the like."""
_NO_PLUGINS = ("base", "library")
"""The contract of a folder; what is made of all corruptions."""


def add(folder: Path | str) -> None:
    """Let the plug-ins of a folder join those of the package.

    Raises:
        UsageError: no such folder, nothing in it is a plug-in, or one has the name of another.
    """
    folder = Path(folder).resolve()
    places = {package: folder.joinpath(*package.split(".")) for package in PACKAGES}
    if not any(_files(place) for place in places.values()):
        laid_out = ", ".join(f"{package.replace('.', '/')}/NAME.py" for package in PACKAGES)
        raise UsageError(f"{folder} holds no plug-in; it is laid out as {laid_out}")
    for package, place in places.items():
        if not place.is_dir() or place in folders(package):
            continue
        taken = sorted(set(_files(place)) & set(names(package)))
        if taken:
            raise UsageError(f"{place / taken[0]}.py: there is a plug-in of that name already; rename the file")
        importlib.import_module(f"dapg.{package}").__path__.append(str(place))
    importlib.invalidate_caches()
    known = os.environ.get(VARIABLE, "").split(os.pathsep)
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*filter(None, known), str(folder)]))


def folders(package: str) -> tuple[Path, ...]:
    """Where the files of a package are: its own folder, then those that were added."""
    return tuple(Path(place) for place in importlib.import_module(f"dapg.{package}").__path__)


def names(package: str) -> list[str]:
    """Names of the plug-ins of ``dapg.<package>``, in alphabetical order."""
    return sorted({*(name for place in folders(package) for name in _files(place)), *_entry_points(package)})


def added_names(package: str) -> list[str]:
    """Those of them that come from folders that were added."""
    return sorted(name for place in folders(package)[1:] for name in _files(place))


def summary(package: str, name: str) -> str:
    """First line of the docstring of a plug-in's file, read without importing it."""
    path = _source(package, name)
    return _first_line(path, path.stat().st_mtime_ns)


_CALLED = {"Dataset": "data set"}
"""What users call a contract whose name is not a word."""


def load(package: str, name: str, contract: Callable[..., T]) -> type[T]:
    """The plug-in of a name: the one public class in its file that fulfils ``contract``.

    Raises:
        UsageError: no such file (the nearest name is suggested), or not exactly one class in it.
    """
    assert inspect.isclass(contract)  # an abstract one, which type[T] would not let through
    known = names(package)
    if name not in known:
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise UsageError(f"no {_CALLED.get(contract.__name__, contract.__name__.lower())} is called {name!r}{hint}")
    if name in _entry_points(package):
        chosen = [_entry_points(package)[name].load()]
    else:
        chosen = classes(package, name, contract)
    if len(chosen) != 1 or not (inspect.isclass(chosen[0]) and issubclass(chosen[0], contract)):
        where = _source(package, name)
        raise UsageError(f"{where} must hold one public {contract.__name__}, found {len(chosen)}")
    return cast(type[T], chosen[0])


def load_all(package: str, contract: Callable[..., T]) -> list[type[T]]:
    """The classes that fulfil ``contract`` in all plug-ins of a package whose files may hold several."""
    kinds: list[type[T]] = [point.load() for point in _entry_points(package).values()]
    for place in folders(package):
        for name in _files(place):
            kinds += [kind for kind in classes(package, name, contract) if not inspect.isabstract(kind)]
    return kinds


def classes(package: str, name: str, contract: Callable[..., T]) -> list[type[T]]:
    """Public classes of a plug-in's file that fulfil a contract."""
    assert inspect.isclass(contract)  # typed as a function, as a ``type`` would have to be without abstract methods
    module = importlib.import_module(f"dapg.{package}.{name}")
    public = [value for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
    return [cast(type[T], k) for k in public if k.__module__ == module.__name__ and issubclass(k, contract)]


def _files(place: Path) -> list[str]:
    """Names of the plug-ins in a folder."""
    if not place.is_dir():
        return []
    with os.scandir(place) as files:
        stems = sorted(file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return [stem for stem in stems if not stem.startswith("_") and stem not in _NO_PLUGINS]


def _source(package: str, name: str) -> Path:
    """The file of a plug-in."""
    if name in _entry_points(package):
        spec = importlib.util.find_spec(_entry_points(package)[name].module)
        if spec is None or spec.origin is None:
            raise UsageError(f"{name}: the installed package that offers it has no module for it")
        return Path(spec.origin)
    return next(path for place in folders(package) if (path := place / f"{name}.py").is_file())


@functools.cache
def _entry_points(package: str) -> dict[str, EntryPoint]:
    """Plug-ins of installed packages by name."""
    return dict(_of_installed(package))


def _of_installed(package: str) -> Iterator[tuple[str, EntryPoint]]:
    for group, top in _GROUPS.items():
        prefix = package.removeprefix(top).removeprefix(".")
        if package != top and not package.startswith(f"{top}."):
            continue
        for point in entry_points(group=group):
            kind, _, name = point.name.rpartition(".")
            if kind == prefix:
                yield name, point


@functools.lru_cache(maxsize=1024)
def _first_line(path: Path, changed: int) -> str:
    """Of a file's docstring; parsed once for each time it was ``changed``."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


for _folder in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
    add(_folder)
