"""Plug-ins that stay those of one test."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dapg.core import plugins

PACKAGE = Path(plugins.__file__).parents[1]


@contextmanager
def forget_plugins() -> Iterator[None]:
    """Folders that are added inside, and the modules that come from them, are gone afterwards."""
    for package in plugins.PACKAGES:
        plugins.folders(package)  # imports it, so that its path is known before
    packages = {name: module for name, module in sys.modules.items() if name.startswith("dapg") and _is_package(module)}
    paths = {name: list(module.__path__) for name, module in packages.items()}
    before, variable = set(sys.modules), os.environ.pop(plugins.VARIABLE, None)
    plugins._entry_points.cache_clear()
    try:
        yield
    finally:
        for name, path in paths.items():
            packages[name].__path__[:] = path
        for name in sorted(set(sys.modules) - before, reverse=True):
            file = getattr(sys.modules[name], "__file__", None)
            if name.startswith("dapg.") and file and PACKAGE not in Path(file).parents:
                parent, _, child = name.rpartition(".")
                vars(sys.modules[parent]).pop(child, None)
                del sys.modules[name]
        os.environ.pop(plugins.VARIABLE, None)
        if variable is not None:
            os.environ[plugins.VARIABLE] = variable
        plugins._entry_points.cache_clear()


def _is_package(module: object) -> bool:
    return isinstance(getattr(module, "__path__", None), list)
