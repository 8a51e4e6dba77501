"""A plug-in is a file: a name becomes a module of a folder, and the module's one public class is the plug-in.

Nothing is registered. ``names`` lists files without importing them, so that help texts stay fast.
"""

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from dapg.core.errors import UsageError, nearest

T = TypeVar("T")

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]


def _folder(package: str) -> Path:
    """Source folder of a package below ``dapg``, for example ``methods.pretraining``."""
    return _PACKAGE_ROOT.joinpath(*package.split("."))


def names(package: str) -> list[str]:
    """Names of the plug-ins in ``dapg.<package>``: its files, save those that hold no plug-in.

    Files that start with an underscore, and those whose module docstring begins with ``"Contract"`` or
    ``"Shared"``, are for the folder itself.
    """
    plugin_names = []
    for path in sorted(_folder(package).glob("*.py")):
        if path.stem.startswith("_") or summary(package, path.stem).startswith(("Contract", "Shared")):
            continue
        plugin_names.append(path.stem)
    return plugin_names


def summary(package: str, name: str) -> str:
    """First line of the docstring of a plug-in's file, read without importing it."""
    path = _folder(package) / f"{name}.py"
    return _first_line(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _first_line(path: Path, changed: int) -> str:
    """Of a file's docstring; parsed once for each time it was ``changed``."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def load(package: str, name: str, contract: Callable[..., T]) -> type[T]:
    """The one public class that fulfils ``contract`` in ``dapg/<package>/<name>.py``.

    Raises:
        UsageError: no such file (the nearest name is suggested), or not exactly one class in it.
    """
    assert inspect.isclass(contract)  # an abstract one, which type[T] would not let through
    known = names(package)
    if name not in known:
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise UsageError(f"no {contract.__name__.lower()} is called {name!r}{hint}")
    module = importlib.import_module(f"dapg.{package}.{name}")
    classes = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
        and issubclass(value, contract)
    ]
    if len(classes) != 1:
        raise UsageError(
            f"dapg/{package.replace('.', '/')}/{name}.py must hold one public {contract.__name__}, found {len(classes)}"
        )
    return cast(type[T], classes[0])
